import json
import os
import shutil
import subprocess
import threading
import time
import unittest
import unittest.mock
from fractions import Fraction

import paths  # noqa: F401
from programs import WithPrograms
from motionclone_resolve import clone, job, programs, results
from motionclone_resolve.problem import Cancelled, Problem
from motionclone_resolve.source import Source
from motionclone_resolve.timeline import Clip


def a_clip(path, **changes):
    values = {
        "item": None, "name": "shot", "start": 90100, "duration": 75, "timeline_rate": Fraction(25),
        "source": Source(path, Fraction(50), 60, 150),
    }  # fmt: skip
    return Clip(**{**values, **changes})


def report_once(report):
    """A report that is only called while a program runs."""
    return lambda what, part: report(what, part) if part else None


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
        self.assertIn(("making the clip, 8 s left", 0.5), heard)
        self.assertIn(("fitting the length", 1.0), heard)

    def test_nothing_is_overwritten(self):
        first, _ = self.make()
        with open(first, "w") as file:
            file.write("mine")
        second, _ = self.make()
        self.assertEqual(os.path.basename(second), "relics-on-the-sea-bed-002.mov")
        with open(first) as file:
            self.assertEqual(file.read(), "mine")

    def test_exactly_the_shown_frames_are_read(self):
        words = clone.clone_command(self.clip, self.settings(), "frames")
        self.assertIn("--start=1.200000", words)
        self.assertIn("--end=4.190000", words)

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
        words = clone.clone_command(self.clip, self.settings(prompt="--out=x", negative="-n"), "frames")
        self.assertIn("--prompt=--out=x", words)
        self.assertIn("--negative=-n", words)

    def test_what_is_left_empty_is_left_to_the_program(self):
        choices = {"program": self.program, "folder": self.results, "prompt": "a fish", "quality": "standard"}
        settings = job.settings_from({**choices, **dict.fromkeys(("bundle", "size", "frames", "strength"), "")})
        names = [word.split("=")[0] for word in clone.clone_command(self.clip, settings, "frames")[2:]]
        known = ["--reference", "--prompt", "--start", "--end", "--quality", "--seed", "--progress", "--out"]
        self.assertEqual(names, known)
        settings = job.settings_from({**choices, "size": "256x128", "frames": "8", "strength": "0", "quality": "best"})
        for option in ("--size=256x128", "--frames=8", "--strength=0", "--quality=best"):
            self.assertIn(option, settings.options)

    def test_the_programs_error_is_shown_in_one_sentence(self):
        with self.assertRaises(Problem) as caught:
            self.make(prompt="fail")
        self.assertEqual(str(caught.exception), "motionclone failed: the bundle is broken.")
        self.assertEqual(os.listdir(self.results), [])
        with self.assertRaisesRegex(Problem, "motionclone failed: unexpected argument '--new' found"):
            self.make(prompt="usage")

    def test_finished_frames_are_kept_when_the_last_step_fails(self):
        open(self.at("ffmpeg.fails"), "w").close()
        with self.assertRaises(Problem) as caught:
            self.make()
        (kept,) = os.listdir(self.results)
        self.assertEqual(len(os.listdir(os.path.join(self.results, kept))), 4)
        self.assertIn("No space left", str(caught.exception))
        self.assertIn(os.path.join(self.results, kept), str(caught.exception))

    def test_a_folder_that_cannot_be_written_or_has_no_room_is_found_first(self):
        open(self.at("file"), "w").close()
        with self.assertRaisesRegex(Problem, "results folder cannot be written"):
            self.make(folder=self.at("file/results"))
        before = shutil.disk_usage
        results.shutil.disk_usage = lambda _: shutil._ntuple_diskusage(9, 0, 9)
        try:
            with self.assertRaisesRegex(Problem, "has room for 0 MB, and the work takes up to 1 MB"):
                self.make()
        finally:
            results.shutil.disk_usage = before
        self.assertEqual(os.listdir(self.results), [])
        self.assertFalse(os.path.exists(self.program + ".words"))
        own = {"defaults": {"width": 512, "height": 256, "frames": 16}}
        with open(os.path.join(self.bundle, "manifest.json"), "w") as file:
            json.dump(own, file)
        self.assertEqual(clone._size(self.clip, self.settings(options=())), 512 * 256 * (16 * 3 + 75))
        self.assertEqual(clone._size(self.clip, self.settings(options=("--size=64x64",))), 64 * 64 * (16 * 3 + 75))
        self.assertEqual(clone._size(self.clip, self.settings(bundle="", options=("--frames=8",))), 128 * 128 * (24 + 75))

    def test_an_ffmpeg_without_the_encoder_is_found_first(self):
        os.environ["MOTIONCLONE_FFMPEG"] = self._script("poor", "print('ffv1')")
        with self.assertRaisesRegex(Problem, "no encoder prores_ks"):
            self.make()
        os.environ["MOTIONCLONE_FFMPEG"] = self._script("broken", "raise SystemExit(1)")
        with self.assertRaisesRegex(Problem, "does not run"):
            self.make()
        self.assertFalse(os.path.exists(self.results))

    def test_a_console_that_fails_ends_nothing(self):
        class Closed:
            def write(self, _):
                raise BrokenPipeError

            flush = write

        with unittest.mock.patch("sys.stdout", Closed()):
            clone.say("a line")
            path, _ = self.make()
        self.assertTrue(os.path.isfile(path))

        def broken(*_):
            raise KeyError("report")

        self.assertTrue(os.path.isfile(clone.clone(self.clip, self.settings(), report_once(broken), threading.Event())))

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
        self.assertEqual(programs.find_ffmpeg(self.program), os.environ.pop("MOTIONCLONE_FFMPEG"))
        self.assertEqual(programs.find_ffmpeg(self.program), self.at("ffmpeg"))
        os.environ["PATH"] = self.at("nowhere")
        with self.assertRaisesRegex(Problem, "ffmpeg was not found"):
            programs.find_ffmpeg(self.at("elsewhere/motionclone"))

    def test_resolves_libraries_are_kept_from_other_programs(self):
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(["/opt/resolve/libs", "/usr/local/cuda/lib64"])
        self.assertEqual(programs.environment()["LD_LIBRARY_PATH"], "/usr/local/cuda/lib64")
        os.environ["LD_LIBRARY_PATH"] = "/opt/resolve/libs"
        self.assertNotIn("LD_LIBRARY_PATH", programs.environment())


class WithFfmpeg(WithPrograms):
    """The real ffmpeg fits as said."""

    def setUp(self):
        super().setUp()
        os.environ.pop("MOTIONCLONE_FFMPEG")
        os.remove(self.at("ffmpeg"))
        if not shutil.which("ffmpeg"):
            print("skipped: there is no ffmpeg on PATH")
            self.skipTest("there is no ffmpeg on PATH")

    def frames(self, path):
        """The frames of a video as grey 2x2 pictures, and its rate."""
        out = subprocess.run(
            ["ffmpeg", "-v", "error", "-i", path, "-vf", "scale=2:2:flags=area,format=gray", "-f", "rawvideo", "-"],
            capture_output=True, check=True,
        ).stdout  # fmt: skip
        return [out[i] for i in range(0, len(out), 4)]

    def run_ffmpeg(self, command):
        programs.run(command, lambda _: None, threading.Event())

    def test_colours_are_those_of_the_frames_and_the_file_says_how(self):
        colours = [(220, 30, 30), (30, 220, 30), (30, 30, 220), (230, 230, 30)]
        folder = self.at("colours")
        os.mkdir(folder)
        for number, colour in enumerate(colours * 2):
            self.run_ffmpeg(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=c=#%02x%02x%02x:s=64x64" % colour,
                             "-frames:v", "1", os.path.join(folder, f"frame_{number:04}.png")])  # fmt: skip
        clip = a_clip("x", duration=8, timeline_rate=Fraction(25))
        for smooth in (False, True):
            out = self.at(f"colours-{smooth}.mov")
            settings = clone.Settings(self.program, "", "", "x", smooth=smooth)
            self.run_ffmpeg(clone.fit_command(clip, settings, folder, 8, out))
            said = subprocess.run(["ffmpeg", "-hide_banner", "-i", out], capture_output=True, text=True).stderr
            self.assertRegex(said, r"prores.*yuv422p10le\((tv, )?bt709")
            # Read as BT.709, whatever the file says.
            read = subprocess.run(
                ["ffmpeg", "-v", "error", "-i", out, "-vf", "scale=1:1:in_color_matrix=bt709:in_range=tv,format=rgb24",
                 "-f", "rawvideo", "-"], capture_output=True, check=True,
            ).stdout  # fmt: skip
            for number, colour in enumerate(colours):
                for got, given in zip(read[3 * number :], colour):
                    self.assertAlmostEqual(got, given, delta=3, msg=(smooth, number))

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
