"""The measures on clips whose motion and content are known: `python -m unittest` in this folder."""

import json
import pathlib
import unittest

import cv2
import numpy as np

import clones
import flow
import followed
import media
import scene
import tracks

CLIPS = pathlib.Path(__file__).parent / "clips"
FACTS = json.loads((CLIPS / "clips.json").read_text())
FOOTAGE = json.loads((CLIPS / "footage" / "footage.json").read_text())
TRUTH = {fact["name"]: fact for fact in FACTS["clips"]}
DRAWN = {name: media.read_clip(CLIPS / f"{name}.mp4") for name in TRUTH}
MOTION = {name: flow.Motion(clip) for name, clip in DRAWN.items()}
TRACKS = {name: tracks.Tracks(motion) for name, motion in MOTION.items()}


class Directions(unittest.TestCase):
    def test_flow_is_as_drawn(self):
        for name, fact in TRUTH.items():
            motion, camera = MOTION[name], fact["moves"] == "camera"
            with self.subTest(name):
                if "direction" in fact:
                    mean = motion.translation.mean(0)
                    cosine = mean @ np.array(fact["direction"]) / np.linalg.norm(mean)
                    self.assertGreater(cosine, np.cos(np.radians(8)))
                if "divergence" in fact:
                    self.assertGreater(motion.divergence.mean() * fact["divergence"], 0.01 if camera else 0.001)
                if "curl" in fact:
                    self.assertGreater(motion.curl.mean() * fact["curl"], 0.01)

    def test_each_clip_follows_itself_and_no_other(self):
        for name, fact in TRUTH.items():
            followers = [other for other in TRUTH if flow.follows(fact, MOTION[name], MOTION[other])]
            self.assertEqual(followers, [name])

    def test_neither_backwards_nor_still_clips_follow(self):
        noise = np.random.default_rng(0).normal(0, 4, (16, 128, 128, 3))
        for name, fact in TRUTH.items():
            with self.subTest(name):
                if name != "object_bounce":  # which is the same backwards
                    self.assertFalse(flow.follows(fact, MOTION[name], flow.Motion(DRAWN[name][::-1])))
                still = np.repeat(DRAWN[name][:1], 16, axis=0)
                self.assertFalse(flow.follows(fact, MOTION[name], flow.Motion(still)))
                noisy = np.clip(still + noise, 0, 255).astype(np.uint8)
                self.assertFalse(flow.follows(fact, MOTION[name], flow.Motion(noisy)))


    def test_flicker_does_not_follow(self):
        for seed in range(3):
            spots = np.random.default_rng(seed).random((16, 128, 128, 3))
            blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 4) for frame in spots])
            flicker = np.clip((blurred - 0.5) * 2000 + 128, 0, 255).astype(np.uint8)
            motion = flow.Motion(flicker)
            followed = [name for name, fact in TRUTH.items() if flow.follows(fact, MOTION[name], motion)]
            self.assertEqual(followed, [])


class Footage(unittest.TestCase):
    """Real footage: the measures against the motion that the references were made with."""

    @classmethod
    def setUpClass(cls):
        camera = [f for f in FOOTAGE if f["moves"] == "camera" and f["kind"] in ("slow", "fast")]
        cls.camera = {f["name"]: (f, flow.Motion(media.read_clip(CLIPS / "footage" / f"{f['name']}.mp4"))) for f in camera}

    def test_a_reference_follows_itself_at_its_own_rate(self):
        for name, (fact, motion) in self.camera.items():
            with self.subTest(name):
                row = followed.camera(fact, motion)
                self.assertTrue(row["direction"])
                self.assertAlmostEqual(row["amplitude"], 1.0, delta=0.16)

    def test_it_follows_no_other_move(self):
        for name, (fact, _) in self.camera.items():
            move = name.rsplit("_", 1)[0]
            followers = {other.rsplit("_", 1)[0] for other, (_, m) in self.camera.items() if followed.camera(fact, m)["direction"]}
            self.assertEqual(followers, {move}, name)

    def test_a_faster_clone_has_the_direction_but_not_the_amplitude(self):
        fact, _ = self.camera["pan_left_slow"]
        row = followed.camera(fact, self.camera["pan_left_fast"][1])
        self.assertTrue(row["direction"])
        self.assertFalse(followed.right_amplitude(row))

    def test_turning_back_half_way_is_no_following(self):
        fact, motion = self.camera["pan_up_slow"]
        there_and_back = np.concatenate([motion.clip[:8], motion.clip[:8][::-1]])
        self.assertFalse(followed.camera(fact, flow.Motion(there_and_back))["direction"])

    def drawn(self, path, sizes=np.ones(16)):
        """A red disc on a teal ground along a path."""
        teal, clip = np.multiply(FACTS["backgrounds"]["teal"], 255), []
        for place, size in zip(path, sizes):
            frame = np.broadcast_to(teal, (128, 128, 3)).astype(np.uint8).copy()
            centre = tuple(int(round(16 * (64 + v))) for v in place)
            cv2.circle(frame, centre, int(16 * 17 * size), np.multiply(FACTS["colours"]["red"], 255).tolist(), -1, cv2.LINE_AA, 4)
            clip.append(frame)
        return np.stack(clip)

    def test_paths_are_told_half_by_half(self):
        recogniser = scene.Recogniser(FACTS, media.read_image(CLIPS / "shapes.png", cv2.IMREAD_GRAYSCALE))
        facts = {f["name"]: f for f in FOOTAGE if f["kind"] == "object"}
        still = self.drawn(np.zeros((16, 2)))
        for name, fact in facts.items():
            with self.subTest(name):
                clip = self.drawn(fact["path"], fact["sizes"])
                row = followed.thing(fact, recogniser, clip)
                self.assertTrue(row["direction"])
                self.assertAlmostEqual(row["amplitude"], 1.0, delta=0.15)
                self.assertFalse(followed.thing(fact, recogniser, still)["direction"])
                half = np.concatenate([clip[:8], np.repeat(clip[7:8], 8, axis=0)])
                self.assertFalse(followed.thing(fact, recogniser, half)["direction"])
        fact = facts["object_there_and_back"]
        self.assertFalse(followed.thing(fact, recogniser, self.drawn(facts["object_right"]["path"]))["direction"])


class Fidelity(unittest.TestCase):
    def test_a_clip_is_like_itself(self):
        for name, own in TRACKS.items():
            with self.subTest(name):
                self.assertGreater(len(own.begin), 30)
                self.assertGreater(tracks.fidelity(own, own), 0.98)
                self.assertGreater(tracks.local_fidelity(own, own), 0.98)

    def test_other_motions_are_unlike(self):
        pairs = [(TRACKS[a], TRACKS[b]) for a in TRUTH for b in TRUTH if a != b]
        self.assertLess(np.mean([tracks.fidelity(a, b) for a, b in pairs]), 0.5)
        self.assertLess(np.mean([tracks.local_fidelity(a, b) for a, b in pairs]), 0.1)
        self.assertLess(tracks.fidelity(TRACKS["pan_down"], TRACKS["pan_up"]), -0.8)

    def test_backwards_is_unlike(self):
        for name in ("pan_right", "pan_down_right", "object_up"):
            backwards = tracks.Tracks(flow.Motion(DRAWN[name][::-1]))
            self.assertLess(tracks.fidelity(TRACKS[name], backwards), 0.3)
        for name in ("zoom_in", "roll_left"):
            # Every direction is there both ways: only the local score tells them apart.
            backwards = tracks.Tracks(flow.Motion(DRAWN[name][::-1]))
            self.assertGreater(tracks.fidelity(TRACKS[name], backwards), 0.8)
            self.assertLess(tracks.local_fidelity(TRACKS[name], backwards), 0.0)

    def test_what_does_not_move_scores_nothing(self):
        still = tracks.Tracks(flow.Motion(np.repeat(DRAWN["pan_up"][:1], 16, axis=0)))
        self.assertEqual(len(still.begin), 0)
        self.assertEqual(tracks.fidelity(TRACKS["pan_up"], still), 0.0)


class Scenes(unittest.TestCase):
    def setUp(self):
        self.recogniser = scene.Recogniser(FACTS, media.read_image(CLIPS / "shapes.png", cv2.IMREAD_GRAYSCALE))

    def test_drawn_shapes_and_colours_are_seen(self):
        sets = [(FACTS["clips"], CLIPS), (FACTS["tuning"], CLIPS / "tuning")]
        for facts, folder in sets:
            for fact in facts:
                with self.subTest(fact["name"]):
                    seen = self.recogniser.seen(media.read_clip(folder / f"{fact['name']}.mp4"))
                    self.assertEqual(seen, (fact["colour"], fact["shape"]))

    def test_blurred_and_noisy_ones_too(self):
        noise = np.random.default_rng(1)
        right = 0
        for name, fact in TRUTH.items():
            blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.2) for frame in DRAWN[name]])
            rough = np.clip(blurred + noise.normal(0, 8, blurred.shape), 0, 255).astype(np.uint8)
            right += self.recogniser.seen(rough) == (fact["colour"], fact["shape"])
        self.assertGreaterEqual(right / len(TRUTH), 0.9)

    def test_every_shape_is_told_from_the_others_at_any_turn(self):
        for name, silhouettes in zip(self.recogniser.shapes, self.recogniser.silhouettes):
            for silhouette in silhouettes[::5]:
                self.assertEqual(self.recogniser.shape(silhouette), name)

    def test_a_bare_background_shows_nothing(self):
        olive = np.multiply(FACTS["backgrounds"]["olive"], 255)
        bare = np.broadcast_to(olive, (16, 128, 128, 3)).astype(np.uint8)
        self.assertEqual(self.recogniser.seen(bare), (None, None))

    def test_sketches_surround_their_shapes(self):
        for fact in FACTS["sketches"]:
            strokes = media.read_image(CLIPS / fact["file"], cv2.IMREAD_GRAYSCALE) > 127
            inside = media.read_image(CLIPS / fact["inside"], cv2.IMREAD_GRAYSCALE) > 127
            self.assertGreater(scene.overlap(scene.filled(strokes), inside), 0.75)
            self.assertEqual(self.recogniser.shape(inside), fact["shape"])


class Clones(unittest.TestCase):
    def test_a_run_is_known_by_its_effective_settings(self):
        defaults = {"motion_weight": 2000.0, "blocks": ["up_blocks.2"], "steps": 30}
        run = lambda *options: clones.Run(CLIPS / "pan_up.mp4", "a red star", 1, options).content(defaults)
        self.assertEqual(run(), run("--motion-weight", 2000, "--blocks", "up_blocks.2"))
        self.assertNotEqual(run(), run("--motion-weight", 0))
        self.assertNotEqual(run(), run("--control", "rgb"))


class Consistency(unittest.TestCase):
    def test_flicker_is_seen(self):
        clip = DRAWN["pan_left"]
        flicker = np.where(np.arange(16)[:, None, None, None] % 2, clip * 0.8, clip).astype(np.uint8)
        self.assertGreater(flow.consistency(MOTION["pan_left"]), 38)
        self.assertLess(flow.consistency(flow.Motion(flicker)), 30)

    def test_psnr_of_a_known_error(self):
        zero = np.zeros((4, 4), np.uint8)
        self.assertAlmostEqual(flow.psnr(zero, zero + 16), 20 * np.log10(255 / 16), places=6)
        self.assertEqual(flow.psnr(zero, zero), 50.0)


if __name__ == "__main__":
    unittest.main()
