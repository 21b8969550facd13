import os
import subprocess
import threading
import unittest
from fractions import Fraction

import paths  # noqa: F401
from programs import WithPrograms
from motionclone_resolve import clone
from motionclone_resolve.timeline import Clip


class EndToEnd(WithPrograms):
    """The real programs and a real bundle make a result of the clip's length."""

    def setUp(self):
        program, self.real_bundle = (os.environ.get(n) for n in ("MOTIONCLONE_PROGRAM", "MOTIONCLONE_TEST_BUNDLE"))
        if not program or not self.real_bundle:
            print("skipped: MOTIONCLONE_PROGRAM and MOTIONCLONE_TEST_BUNDLE name no program and bundle to test with")
            self.skipTest("no program and bundle")
        super().setUp()
        os.environ.pop("MOTIONCLONE_FFMPEG")
        os.environ["MOTIONCLONE_CACHE"] = self.at("cache")
        self.real_program = program

    def test_a_clip_becomes_a_result(self):
        source = self.at("source.mkv")
        ffmpeg = clone.find_ffmpeg(self.real_program)
        subprocess.run([ffmpeg, "-v", "error", "-f", "lavfi", "-i", "testsrc=s=96x64:r=25:d=2", source], check=True)
        clip = Clip(None, "shot", source, 90000, 30, 10, Fraction(25), Fraction(25))
        words = "--size=64x64 --frames=4 --steps=2 --guidance-steps=1 --warm-up=0 --cool-up=0 --threads=1".split()
        settings = clone.Settings(self.real_program, self.real_bundle, self.results, "a fish", options=tuple(words))
        heard = []
        path = clone.clone(clip, settings, lambda *news: heard.append(news[0]), threading.Event())
        shown = subprocess.run([ffmpeg, "-v", "error", "-i", path, "-vf", "scale=1:1,format=gray", "-f", "rawvideo", "-"],
                               capture_output=True, check=True).stdout  # fmt: skip
        self.assertEqual(len(shown), 30)
        self.assertEqual(os.listdir(self.results), ["a-fish-001.mov"])
        self.assertTrue(any(stage.startswith("denoising") for stage in heard), heard)


if __name__ == "__main__":
    unittest.main()
