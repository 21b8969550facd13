import json
import os
import subprocess
import threading
import unittest
from fractions import Fraction

import paths  # noqa: F401
from programs import WithPrograms
from motionclone_resolve import clone, job, preferences, programs
from motionclone_resolve.source import Source
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

    def clone(self, source, words=(), smooth=True, **shown):
        """Clones the motion of a part of a file: the result's path, and what was reported."""
        shown = {"rate": Fraction(25), "first": 10, "frames": 30, **shown}
        clip = Clip(None, "shot", 90000, 30, Fraction(25), Source(source, **shown))
        options = "--size=64x64 --frames=4 --steps=2 --guidance-steps=1 --warm-up=0 --cool-up=0 --threads=1".split()
        settings = clone.Settings(
            self.real_program, self.real_bundle, self.results, "a fish", options=(*options, *words), smooth=smooth
        )
        heard = []
        return clone.clone(clip, settings, lambda *news: heard.append(news[0]), threading.Event()), heard

    def grey(self, path, *filters):
        """The mean grey of each frame, or of what the filters leave of it."""
        command = [programs.find_ffmpeg(self.real_program), "-v", "error", "-i", path]
        filters = ",".join([*filters, "scale=1:1:flags=area,format=gray"])
        return list(
            subprocess.run(
                [*command, "-vf", filters, "-f", "rawvideo", "-"], capture_output=True, check=True
            ).stdout
        )

    def make(self, name, *words):
        path = self.at(name)
        subprocess.run([programs.find_ffmpeg(self.real_program), "-v", "error", *words, path], check=True)
        return path

    def reference(self, sheet):
        """The greys of the four frames that were read, from a contact sheet."""
        # They are its upper row: 64 pixels each, 4 apart, 16 from the edge.
        seen = [self.grey(sheet, f"crop=64:64:{16 + 68 * column}:16")[0] for column in range(4)]
        os.remove(sheet)
        return seen

    def test_a_clip_becomes_a_result(self):
        source = self.make("source.mkv", "-f", "lavfi", "-i", "testsrc=s=96x64:r=25:d=2")
        path, heard = self.clone(source)
        self.assertEqual(len(self.grey(path)), 30)
        self.assertEqual(os.listdir(self.results), ["a-fish-001.mov"])
        self.assertTrue(any(stage.startswith("making the clip") for stage in heard), heard)

    def test_exactly_the_shown_frames_are_read(self):
        # Frame n has the grey level 2 n.
        counted = ["-f", "lavfi", "-i", "color=black:s=64x48:r=30000/1001:d=4,format=gray", "-vf", "geq=lum='2*N'"]
        for name in ("counted 100%.mkv", "counted.mov"):
            source = self.make(name, *counted, "-c:v", "ffv1" if name.endswith("mkv") else "qtrle")
            for first, frames in [(0, 4), (45, 40), (110, 10)]:
                sheet = self.at("sheet.png")
                self.clone(
                    source, [f"--contact-sheet={sheet}"], rate=Fraction(30000, 1001), first=first, frames=frames
                )
                seen = self.reference(sheet)
                wanted = [2 * (first + (frames - 1) * column // 3) for column in range(4)]
                for got, given in zip(seen, wanted):
                    self.assertAlmostEqual(got, given, delta=1, msg=(name, first, seen, wanted))

    def test_a_variable_frame_rate_is_read_evenly_in_time(self):
        # 50 frames in the first second, then one a second; the grey level is 25 times the seconds.
        filters = "format=gray,geq=lum='25*T',select='lt(t,1)+not(mod(n,50))'"
        source = self.make("varying.mkv", "-f", "lavfi", "-i", "color=black:s=64x48:r=50:d=10.5", "-vf", filters,
                           "-fps_mode", "passthrough", "-c:v", "ffv1")  # fmt: skip
        sheet = self.at("sheet.png")
        self.clone(source, [f"--contact-sheet={sheet}"], rate=Fraction(6), first=0, frames=63)
        for got, given in zip(self.reference(sheet), (0, 75, 150, 250)):
            self.assertAlmostEqual(got, given, delta=2)

    def test_qualities_are_those_of_the_program(self):
        said = subprocess.run(
            [self.real_program, "settings", "--json", f"--bundle={self.real_bundle}"], capture_output=True, check=True
        ).stdout
        (quality,) = [setting for setting in json.loads(said) if setting["name"] == "quality"]
        self.assertEqual(tuple(quality["choices"]), job.QUALITIES)
        self.assertEqual(quality["default"], preferences.DEFAULTS["quality"])


if __name__ == "__main__":
    unittest.main()
