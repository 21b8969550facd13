import os
import shutil
import threading
import time
import unittest
from fractions import Fraction

import paths  # noqa: F401
from programs import WithPrograms
from motionclone_resolve import clone, job
from motionclone_resolve.problem import Cancelled, Problem
from motionclone_resolve.timeline import Clip


def a_clip(path, **changes):
    values = {
        "item": None, "name": "shot", "path": path, "start": 90100, "duration": 75, "left_offset": 30,
        "timeline_rate": Fraction(25), "source_rate": Fraction(50),
    }  # fmt: skip
    return Clip(**{**values, **changes})


class Cloning(WithPrograms):
    def setUp(self):
        super().setUp()
        self.clip = a_clip(self.at("shot.mp4"))

    def settings(self, **changes):
        values = {"prompt": "Relics, on the sea-bed!", "options": ("--frames=4",)}
        return clone.Settings(**{
            "program": self.program, "bundle": self.bundle, "folder": self.results, **values, **changes,
        })  # fmt: skip

    def make(self, **changes):
        heard = []
        cancelled = threading.Event()
        path = clone.clone(self.clip, self.settings(**changes), lambda *news: heard.append(news), cancelled)
        return path, heard

    def test_a_result_and_its_progress(self):
        path, heard = self.make()
        self.assertEqual(os.listdir(self.results), ["relics-on-the-sea-bed-001.mov"])
        self.assertEqual(path, os.path.join(self.results, "relics-on-the-sea-bed-001.mov"))
        self.assertIn(("cutting the clip", 1.0), heard)
        self.assertIn(("denoising, loss 43.0, 8 s left", 0.5), heard)
        self.assertIn(("fitting the length", 1.0), heard)

    def test_nothing_is_overwritten(self):
        first, _ = self.make()
        with open(first, "w") as file:
            file.write("mine")
        second, _ = self.make()
        self.assertEqual(os.path.basename(second), "relics-on-the-sea-bed-002.mov")
        with open(first) as file:
            self.assertEqual(file.read(), "mine")

    def test_exactly_the_shown_frames_are_cut(self):
        words = clone.cut_command(self.clip, self.settings(), "cut.mkv")
        self.assertEqual(words[words.index("-ss") + 1], "1.190000")
        self.assertEqual(words[words.index("-frames:v") + 1], "150")
        start = clone.cut_command(a_clip("x", left_offset=0), self.settings(), "cut.mkv")
        self.assertEqual(start[start.index("-ss") + 1], "0.000000")

    def test_the_result_is_as_long_as_the_clip(self):
        clip = a_clip("x", timeline_rate=Fraction(30000, 1001), duration=100)
        words = clone.fit_command(clip, self.settings(), "frames", 16, "out.mov")
        self.assertEqual(words[words.index("-frames:v") + 1], "100")
        self.assertEqual(words[words.index("-r") + 1], "30000/1001")
        self.assertEqual(Fraction(words[words.index("-framerate") + 1]), Fraction(30000, 1001) * 16 / 100)
        self.assertIn("minterpolate", words[words.index("-vf") + 1])
        words = clone.fit_command(clip, self.settings(smooth=False), "frames", 16, "out.mov")
        self.assertNotIn("minterpolate", words[words.index("-vf") + 1])

    def test_what_the_user_writes_is_never_an_option(self):
        words = clone.clone_command(self.settings(prompt="--out=x", negative="-n"), "cut", "frames")
        self.assertIn("--prompt=--out=x", words)
        self.assertIn("--negative=-n", words)

    def test_what_is_left_empty_is_left_to_the_program(self):
        choices = {"program": self.program, "folder": self.results, "prompt": "a fish", "quality": "standard"}
        settings = job.settings_from({**choices, **dict.fromkeys(("bundle", "size", "frames", "strength"), "")})
        names = [word.split("=")[0] for word in clone.clone_command(settings, "cut", "frames")[2:]]
        self.assertEqual(names, ["--reference", "--prompt", "--seed", "--out"])
        settings = job.settings_from({**choices, "size": "256x128", "frames": "8", "strength": "0", "quality": "best"})
        for option in ("--size=256x128", "--frames=8", "--motion-weight=0", "--steps=200"):
            self.assertIn(option, settings.options)

    def test_the_programs_error_is_shown_in_one_sentence(self):
        with self.assertRaises(Problem) as caught:
            self.make(prompt="fail")
        self.assertEqual(str(caught.exception), "motionclone failed: the bundle is broken.")
        self.assertEqual(os.listdir(self.results), [])

    def test_cancelling_interrupts_and_leaves_nothing(self):
        cancelled = threading.Event()

        def cancel():
            deadline = time.monotonic() + 20
            while not os.path.exists(self.program + ".waiting") and time.monotonic() < deadline:
                time.sleep(0.02)
            cancelled.set()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        with self.assertRaises(Cancelled):
            clone.clone(self.clip, self.settings(prompt="wait"), lambda *_: None, cancelled)
        canceller.join()
        self.assertTrue(os.path.exists(self.program + ".interrupted"))
        self.assertEqual(os.listdir(self.results), [])

    def test_settings_that_cannot_work_are_refused_before_anything_is_made(self):
        for changes, said in [
            ({"prompt": " "}, "prompt"),
            ({"program": ""}, "nothing chosen"),
            ({"program": self.at("gone")}, "gone"),
            ({"bundle": self.folder}, "motionclone import"),
            ({"folder": "results"}, "full path"),
        ]:
            with self.assertRaisesRegex(Problem, said):
                self.make(**changes)
        os.environ["MOTIONCLONE_FFMPEG"] = self.at("gone")
        with self.assertRaisesRegex(Problem, "MOTIONCLONE_FFMPEG"):
            self.make()
        self.assertFalse(os.path.exists(self.results))

    def test_ffmpeg_is_found_where_motionclone_finds_it(self):
        self.assertEqual(clone.find_ffmpeg(self.program), os.environ.pop("MOTIONCLONE_FFMPEG"))
        self.assertEqual(clone.find_ffmpeg(self.program), self.at("ffmpeg"))
        os.environ["PATH"] = self.at("nowhere")
        with self.assertRaisesRegex(Problem, "ffmpeg was not found"):
            clone.find_ffmpeg(self.at("elsewhere/motionclone"))

    def test_resolves_libraries_are_kept_from_other_programs(self):
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(["/opt/resolve/libs", "/usr/local/cuda/lib64"])
        self.assertEqual(clone.environment()["LD_LIBRARY_PATH"], "/usr/local/cuda/lib64")
        os.environ["LD_LIBRARY_PATH"] = "/opt/resolve/libs"
        self.assertNotIn("LD_LIBRARY_PATH", clone.environment())


class WithFfmpeg(WithPrograms):
    """The real ffmpeg cuts and fits as said."""

    def setUp(self):
        super().setUp()
        os.environ.pop("MOTIONCLONE_FFMPEG")
        os.remove(self.at("ffmpeg"))
        if not shutil.which("ffmpeg"):
            print("skipped: there is no ffmpeg on PATH")
            self.skipTest("there is no ffmpeg on PATH")

    def frames(self, path):
        """The frames of a video as grey 2x2 pictures, and its rate."""
        out = clone.subprocess.run(
            ["ffmpeg", "-v", "error", "-i", path, "-vf", "scale=2:2:flags=area,format=gray", "-f", "rawvideo", "-"],
            capture_output=True, check=True,
        ).stdout  # fmt: skip
        return [out[i] for i in range(0, len(out), 4)]

    def run_ffmpeg(self, command):
        clone._run(command, "x", 1, lambda *_: None, threading.Event())

    def test_the_cut_holds_exactly_the_frames(self):
        source = self.at("counted 100%.mkv")
        # Frame n has the grey level 2 n.
        self.run_ffmpeg(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=black:s=64x48:r=30000/1001:d=4,format=gray",
                         "-vf", "geq=lum='2*N'", "-c:v", "ffv1", source])  # fmt: skip
        rates = {"timeline_rate": Fraction(24000, 1001), "source_rate": Fraction(30000, 1001)}
        for left, duration in [(0, 8), (4, 8), (36, 40), (91, 4)]:
            clip = a_clip(source, left_offset=left, duration=duration, **rates)
            cut = self.at(f"cut-{left}.mkv")
            settings = clone.Settings(self.program, "", "", "x")
            self.run_ffmpeg(clone.cut_command(clip, settings, cut))
            first = clip.source_start
            self.assertEqual(self.frames(cut), [2 * n for n in range(first, first + clip.source_frames)])

    def test_the_fitted_file_has_exactly_the_clips_frames(self):
        folder = self.at("frames 100%")
        os.mkdir(folder)
        self.run_ffmpeg(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=s=64x64:r=8:d=2", "-start_number", "0",
                         os.path.join(folder.replace("%", "%%"), "frame_%04d.png")])  # fmt: skip
        for smooth in (False, True):
            for duration, rate in [(75, Fraction(25)), (11, Fraction(24000, 1001)), (16, Fraction(25)), (1, Fraction(30))]:
                clip = a_clip("x", duration=duration, timeline_rate=rate)
                out = self.at(f"out-{duration}-{smooth}.mov")
                settings = clone.Settings(self.program, "", "", "x", smooth=smooth)
                self.run_ffmpeg(clone.fit_command(clip, settings, folder, 16, out))
                self.assertEqual(len(self.frames(out)), duration, (smooth, duration))


if __name__ == "__main__":
    unittest.main()
