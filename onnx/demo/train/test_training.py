"""What training rests on: `python -m unittest` in this folder. Needs `requirements.txt`, but neither a GPU nor a network."""

import unittest

import numpy as np
import torch

import footage
import model
import paint
import pool
import things
import train
import world
from tokens import Tokenizer

CLIPS = 16
NOISE = torch.full((CLIPS // 2,), 400)


def maps(code):
    """Attention maps of 20 positions and 8 heads for each clip, from what they are to say."""
    return [(3 * code).softmax(-1).flatten(0, 1)]


class Unlikeness(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def code(self, count):
        return torch.randn(count, 20, 8, 16, 16)

    def test_attention_that_says_the_motion_alone(self):
        self.assertLess(train.unlikeness(maps(self.code(CLIPS // 2).repeat_interleave(2, 0)), CLIPS, NOISE).item(), 0.01)

    def test_attention_that_says_nothing_of_it(self):
        groups = CLIPS // (2 * train.GROUP)
        silent = {
            "unrelated": self.code(CLIPS),
            "even": torch.zeros(CLIPS, 20, 8, 16, 16),
            "the timestep": self.code(groups).repeat_interleave(2 * train.GROUP, 0),
        }
        for name, code in silent.items():
            with self.subTest(name):
                self.assertAlmostEqual(train.unlikeness(maps(code), CLIPS, NOISE).item(), 1.0, delta=0.02)

    def test_pairs_of_a_group_share_their_timesteps(self):
        t = train.timesteps(CLIPS, torch.device("cpu")).view(-1, train.GROUP, 2)
        self.assertTrue((t == t[:, :1]).all())


class Recording(unittest.TestCase):
    def test_recorded_attention_is_that_which_was_computed(self):
        torch.manual_seed(0)
        attention = model.TemporalAttention(32, 8)
        x = torch.randn(5, 16, 32)
        out, probabilities = attention(x, record=True)
        torch.testing.assert_close(out, attention(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(5, 8, 16))
        q, k, v = (torch.randn(5, 8, 16, 4) for _ in range(3))
        for a, b in zip(model.open_sums(q, k, v), model.attend_openly(q, k, v)):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


class Footage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        dice = np.random.default_rng(0)
        photos = [dice.integers(0, 255, (200, 260, 3), np.uint8) for _ in range(2)]
        emoji = dice.integers(0, 255, (len(things.EMOJI), 24, 24, 4), np.uint8)
        cls.studio = footage.Studio(photos, emoji, 1, torch.device("cpu"), scale=0.005)

    def test_pairs_move_alike_and_show_something_else(self):
        scenes = pool.paired(self.studio, 40, 3)
        for name, value in scenes.items():
            if name not in pool.CONTENT:
                self.assertTrue(torch.equal(value[::2], value[1::2]), name)
        self.assertFalse((scenes["kind"][::2] < 3).any())
        self.assertTrue((scenes["kind"][1::2] < 3).float().mean() > 0.4)

    def test_a_camera_pans_by_what_the_scene_says(self):
        scenes = footage.sample(self.studio, 1, 5)
        for name in ("camera_move", "camera_zoom", "camera_roll", "shake", "objects", "layered", "blurred", "grain", "pressed", "camera_ease", "turn"):
            scenes[name] = torch.zeros_like(scenes[name])
        scenes["camera"][:] = footage.CAMERAS.index("pan")
        scenes["camera_move"][:] = torch.tensor([30.0, 0.0])
        clip = footage.render(self.studio, scenes, world.frame_times(1))
        # Two pixels a frame: each frame is the one before, moved to the left.
        torch.testing.assert_close(clip[0, 1, :, :, :-2], clip[0, 0, :, :, 2:], rtol=0, atol=0.02)

    def test_captions_name_what_is_seen_and_only_known_words(self):
        scenes, known = footage.sample(self.studio, 60, 7), set(footage.words())
        tokenizer = Tokenizer()
        for n, texts in enumerate(footage.captions(self.studio, scenes, 3, 8)):
            for text in texts:
                words = text.replace(",", " ").split()
                self.assertLessEqual(set(words), known, text)
                for i in range(int(scenes["objects"][n])):
                    if not scenes["cut"][n, i]:
                        self.assertIn(footage.OBJECTS[scenes["thing"][n, i]], words)
                self.assertTrue(all(len(tokenizer.word(word)) == 1 for word in words), text)

    def test_every_place_and_colour_is_painted(self):
        seen = {label for kind, label in self.studio.labels if kind == "place"}
        self.assertEqual(seen, {(name, False) for name in things.PLACES} | {(name, True) for name in things.BY_NIGHT})
        colours = {label[0] for kind, label in self.studio.labels if kind == "colour"}
        self.assertEqual(colours, {*things.COLOURS, *world.TINTS})
        self.assertEqual(self.studio.backgrounds.shape[1:], (3, paint.SIDE, paint.SIDE))

    def test_compression_changes_little_and_more_where_stronger(self):
        picture = self.studio.backgrounds[:2, None, :, :128, :128].float() / 255
        gentle, strong = (footage.pressed(picture, torch.full((2,), s)) for s in (0.5, 3.0))
        error = lambda p: (p - picture).square().mean().sqrt().item()
        self.assertLess(error(gentle), error(strong))
        self.assertLess(error(strong), 0.15)


if __name__ == "__main__":
    unittest.main()
