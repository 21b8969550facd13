"""The extension in Blender itself, as a module, without windows.

    MOTIONCLONE_LIBRARY_FOLDER=LIB MOTIONCLONE_BUNDLE=BUNDLE MOTIONCLONE_PROGRAM=PROGRAM python test_blender.py

LIB is a folder with the motionclone library and ONNX Runtime under the names that a release has, BUNDLE a small bundle,
PROGRAM the command line. ffmpeg is the one of MOTIONCLONE_FFMPEG, or an installed one. The zip is built and installed
into a Blender with a user folder of its own. Where one of these or `bpy` is missing, it says so and nothing is tested.
"""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEEDED = ("MOTIONCLONE_LIBRARY_FOLDER", "MOTIONCLONE_BUNDLE", "MOTIONCLONE_PROGRAM")
FOLDER, BUNDLE, PROGRAM = map(os.environ.get, NEEDED)
if not (FOLDER and BUNDLE and PROGRAM):
    print(f"skipped: {', '.join(NEEDED)} are not all set")
    sys.exit(0)
FFMPEG = os.environ.get("MOTIONCLONE_FFMPEG", "ffmpeg")
if importlib.util.find_spec("bpy") is None:
    print("skipped: this Python has no module bpy (it is on PyPI)")
    sys.exit(0)

TEMPORARY = Path(tempfile.mkdtemp(prefix="motionclone-blender-"))
os.environ["BLENDER_USER_RESOURCES"] = str(TEMPORARY / "user")
os.environ.pop("MOTIONCLONE_LIBRARY", None)
os.environ.pop("MOTIONCLONE_ONNXRUNTIME", None)
# Every Python function that another thread runs, by its file, and every access to bpy from there.
elsewhere, strayed = set(), []
threading.setprofile(lambda frame, event, _: event == "call" and elsewhere.add(frame.f_code.co_filename))

import bpy  # noqa: E402
import addon_utils  # noqa: E402, I001 -- bpy brings it
import numpy as np  # noqa: E402

SYSTEM = {"Linux": "linux", "Windows": "windows", "Darwin": "macos"}[platform.system()]
PLATFORM = f"{SYSTEM}-{'arm64' if platform.machine() in ('arm64', 'aarch64') else 'x64'}"
MODULE = "bl_ext.user_default.motionclone"


def install():
    """Builds the zip, and installs and enables it."""
    file = str(TEMPORARY / "motionclone.zip")
    command = [sys.executable, HERE.parent / "package.py", "--libraries", FOLDER, "--platform", PLATFORM]
    subprocess.run([*command, "--bundle", BUNDLE, "--out", file], check=True)
    addon_utils.enable("bl_pkg", default_set=True)
    bpy.ops.extensions.package_install_files(repo="user_default", filepath=file, enable_on_install=True)
    return sys.modules[MODULE]


extension = install()
from bl_ext.user_default.motionclone import (  # noqa: E402
    gather, icons, jobs, library, operators, panel, png, preferences, properties, references, results, session, strips,
    worker,
)  # fmt: skip


class Guarded:
    """bpy, which notes who comes from another thread."""

    def __getattr__(self, name):
        if threading.current_thread() is not threading.main_thread():
            strayed.append(name)
        return getattr(bpy, name)


for module in (extension, gather, jobs, operators, panel, preferences, properties, references, strips):
    module.bpy = Guarded()


def picture(t, width=96, height=64):
    """A picture with no symmetry: frame t of a clip in which a bar moves."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width) * 2
    pixels[..., 1] = np.arange(height)[:, None] * 3
    pixels[10:50, 8 + 6 * t : 20 + 6 * t, 2] = 255
    return pixels


class Case(unittest.TestCase):
    def setUp(self):
        bpy.ops.wm.read_homefile(use_empty=True)
        self.folder = Path(tempfile.mkdtemp(dir=TEMPORARY))
        bpy.ops.wm.save_as_mainfile(filepath=str(self.folder / "film.blend"))
        self.preferences = bpy.context.preferences.addons[MODULE].preferences
        self.preferences.bundle, self.preferences.device = BUNDLE, "CPU"
        self.preferences.library = ""
        self.preferences.motions = str(self.folder / "motions")
        self.scene = bpy.context.scene
        if hasattr(bpy.context, "workspace") and hasattr(bpy.context.workspace, "sequencer_scene"):
            bpy.context.workspace.sequencer_scene = self.scene
        self.scene.render.resolution_x, self.scene.render.resolution_y = 192, 108
        self.top = strips.collection(self.scene.sequence_editor_create())
        self.settings = self.scene.motionclone
        self.set(size="CUSTOM", side=64, frames=4, quality="CUSTOM", steps=2, prompt="a fish")

    def tearDown(self):
        # The engine stays for the next test, which saves it the time to load networks.
        if jobs.session is not None:
            for job in jobs.session.jobs:
                job.cancel()
            self.work()
            jobs.session.clear()

    def set(self, **values):
        for name, value in values.items():
            setattr(self.settings, name, value)

    def images(self, name="bar", channel=1, at=10, count=8):
        for t in range(count):
            (self.folder / f"{t:04}.png").write_bytes(png.encode(picture(t).tobytes(), 96, 64))
        first = str(self.folder / "0000.png")
        strip = self.top.new_image(name=name, filepath=first, channel=channel, frame_start=at)
        for t in range(1, count):
            strip.elements.append(f"{t:04}.png")
        self.scene.sequence_editor.active_strip = strip
        return strip

    def movie(self, name="film", channel=1, at=5):
        self.images("gone", 9)
        self.top.remove(self.top["gone"])
        file = self.folder / "film.mkv"
        command = [FFMPEG, "-v", "error", "-framerate", "24", "-i", self.folder / "%04d.png", "-c:v", "ffv1"]
        subprocess.run([*command, "-pix_fmt", "bgr0", file], check=True)
        strip = self.top.new_movie(name=name, filepath=str(file), channel=channel, frame_start=at)
        self.scene.sequence_editor.active_strip = strip
        return strip

    def effect(self, name, kind, channel, below):
        strip = strips_new_effect(self.top, name, kind, channel, below)
        self.scene.sequence_editor.active_strip = strip
        return strip

    def work(self, limit=120):
        """Ticks until nothing is to be done; gives the jobs."""
        before = time.monotonic()
        while jobs.tick() is not None:
            self.assertLess(time.monotonic() - before, limit, "a job does not end")
            time.sleep(0.02)
        return jobs.session.jobs

    def running(self):
        """Ticks until the library works on the first job, and gives it."""
        job = jobs.session.jobs[0]
        while job.state != "RUNNING":
            self.assertFalse(job.ended, job.message)
            jobs.tick()
        return job

    def clone(self):
        self.assertEqual(bpy.ops.motionclone.clone(), {"FINISHED"})
        return self.done(self.work()[-1])

    def found(self):
        """What the Test button shows."""
        self.assertEqual(bpy.ops.motionclone.test(), {"FINISHED"})
        self.work()
        return "\n".join(jobs.session.found)

    def done(self, job):
        self.assertEqual((job.state, job.message[:5]), ("DONE", "Done:"), job.message)
        return job

    def refused(self, operator, *words, **arguments):
        with self.assertRaises(RuntimeError) as caught:
            operator(**arguments)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def failed(self, *words):
        self.assertEqual(bpy.ops.motionclone.clone(), {"FINISHED"})
        job = self.work()[-1]
        self.assertEqual(job.state, "FAILED")
        for word in words:
            self.assertIn(word, job.message)

    def shown(self, strip, number):
        """What is taken of a strip at a frame, as rows from the top."""
        clip = strips.frame(self.scene, strip, number, (512, 512))
        return np.frombuffer(clip.data, np.uint8).reshape(clip.height, clip.width, 3)


def strips_new_effect(top, name, kind, channel, below):
    ends = {"frame_start": strips.start(below)}
    if "length" in top.bl_rna.functions["new_effect"].parameters:
        return top.new_effect(name=name, type=kind, channel=channel, length=strips.length(below), input1=below, **ends)
    return top.new_effect(name=name, type=kind, channel=channel, frame_end=strips.end(below), seq1=below, **ends)


def length_of(top, length):
    """The argument of new_effect that says how long it is."""
    if "length" in top.bl_rna.functions["new_effect"].parameters:
        return {"length": length}
    return {"frame_end": 1 + length}


class Frames(Case):
    """Frames are what the sequencer shows."""

    def test_image_strip(self):
        strip = self.images()
        for t in (0, 3, 7):
            np.testing.assert_array_equal(self.shown(strip, 10 + t), picture(t))

    def test_movie_strip(self):
        strip = self.movie()
        self.assertEqual((strips.start(strip), strips.length(strip)), (5, 8))
        for t in (0, 7):
            difference = np.abs(self.shown(strip, 5 + t).astype(int) - picture(t))
            self.assertLessEqual(difference.max(), 2)

    def test_crop_place_and_scale(self):
        strip = self.images()
        strip.crop.min_x, strip.crop.max_x, strip.crop.min_y, strip.crop.max_y = 5, 21, 4, 8
        strip.transform.offset_x, strip.transform.offset_y = 31, -12
        expected = picture(2)[8:60, 5:75]
        np.testing.assert_array_equal(self.shown(strip, 12), expected)
        strip.transform.scale_x = strip.transform.scale_y = 1.5
        got = self.shown(strip, 12)
        self.assertEqual(got.shape, expected.shape)
        strip.transform.scale_x = strip.transform.scale_y = 1
        strip.crop.max_x, strip.crop.max_y = 20, 7
        got, odd = self.shown(strip, 12), picture(2)[7:60, 5:76]
        windows = [odd[y : y + 52, x : x + 70] for y in (0, 1) for x in (0, 1)]
        self.assertTrue(any(np.array_equal(got, window) for window in windows))

    def test_nothing_else_is_seen(self):
        strip = self.images()
        other = self.images("above", 2)
        other.transform.offset_x = 4
        strip.mute, strip.blend_type = True, "MULTIPLY"
        np.testing.assert_array_equal(self.shown(strip, 11), picture(1))
        self.assertTrue(strip.mute)
        self.assertFalse(other.mute)

    def test_effect_strip(self):
        strip = self.images()
        strip.transform.scale_x, strip.transform.scale_y = 2, 108 / 64
        effect = self.effect("speed", "SPEED", 2, strip)
        effect.speed_control, effect.speed_factor = "MULTIPLY", 2.0
        self.assertEqual(self.shown(effect, 10).shape, (108, 192, 3))
        bar = [int(np.median(np.nonzero(self.shown(effect, n)[54, :, 2] > 128)[0])) for n in (10, 11, 12)]
        self.assertEqual([round((b - bar[0]) / 12) for b in bar], [0, 2, 4])

    def test_cropped_movie_of_another_speed(self):
        strip = self.movie()
        strip.crop.max_x = 16
        window = bpy.data.window_managers[0].windows[0]
        area = window.screen.areas[0]
        area.type, strip.select = "SEQUENCE_EDITOR", True
        with bpy.context.temp_override(window=window, area=area, region=area.regions[-1], scene=self.scene):
            bpy.ops.sequencer.retiming_show()
            bpy.ops.sequencer.retiming_segment_speed_set(speed=50)
        self.assertGreaterEqual(strips.length(strip), 15)
        for number in (0, 6, 14):
            got = self.shown(strip, 5 + number).astype(int)
            differences = [np.abs(got - picture(t)[:, :80]).max() for t in range(8)]
            self.assertLessEqual(min(differences), 2)
            # Blender rounds in one way or another.
            self.assertAlmostEqual(int(np.argmin(differences)), number / 2, delta=1)

    def test_keyframed_place_takes_the_whole_frame(self):
        strip = self.images()
        for number, offset in ((10, 0), (17, 35)):
            strip.transform.offset_x = offset
            strip.transform.keyframe_insert("offset_x", frame=number)
        self.assertEqual(strips.rectangle(self.scene, strip), (192, 108, 0, 0))
        got = self.shown(strip, 17)
        self.assertEqual(got.shape, (108, 192, 3))
        np.testing.assert_array_equal(got[22:86, 83:179], picture(7))

    def test_scenes_and_images_are_as_before(self):
        strip = self.images()
        # Blender keeps what it rendered last as an image of its own, made by the first render.
        self.shown(strip, 10)
        before = [len(data) for data in (bpy.data.scenes, bpy.data.images)]
        self.shown(strip, 11)
        self.assertEqual(before, [len(data) for data in (bpy.data.scenes, bpy.data.images)])

    def test_sizes(self):
        self.assertEqual(strips.fitting_size(100, 100, 512), (512, 512))
        width, height = strips.fitting_size(1920, 1080, 512)
        self.assertEqual((width, height), (680, 384))
        self.assertEqual(strips.spread(10, 25, 4), [10, 15, 20, 25])
        self.assertEqual(strips.spread(10, 25, 1), [10])


class Clones(Case):
    def test_result_strip(self):
        reference = self.images()
        reference.transform.offset_x = 20
        self.images("in the way", 2, at=17)
        self.scene.sequence_editor.active_strip = reference
        job = self.clone()
        strip = self.top["bar clone"]
        self.assertEqual((strip.type, strip.channel, strips.start(strip), strips.length(strip)), ("IMAGE", 3, 10, 8))
        self.assertEqual([e.filename[-8:-4] for e in strip.elements], [f"{i // 2:04}" for i in range(8)])
        kept = strip["motionclone"].to_dict()
        self.assertEqual((kept["prompt"], kept["seed"], kept["reference"]), ("a fish", 2025, "bar"))
        self.assertEqual((kept["width"], kept["height"], kept["steps"]), (80, 64, 2))
        self.assertTrue(strip.directory.startswith("//motionclone"), strip.directory)
        # It lies where the reference lies.
        for got, expected in zip(strips.rectangle(self.scene, strip), (96, 64, 20, 0)):
            self.assertAlmostEqual(got, expected, 3)
        texts = png.texts(job.files[0].read_bytes())
        self.assertEqual(texts["Description"], "a fish")
        self.assertIn('"seed": 2025', texts["motionclone"])

    def same_as_the_command_line(self, count, *options):
        """Clones the motion of so many frames here and there, and compares the results."""
        self.images(count=count)
        job = self.clone()
        frames = self.folder / "reference"
        frames.mkdir()
        for t in range(count):
            (frames / f"{t:02}.png").write_bytes(png.encode(picture(t).tobytes(), 96, 64))
        command = [PROGRAM, "clone", "--bundle", BUNDLE, "--reference", frames, "--no-cache", "--device", "cpu"]
        command += ["--prompt", "a fish", "--size", "80x64", "--out", self.folder / "expected", *options]
        environment = {**os.environ, "MOTIONCLONE_ONNXRUNTIME": str(next(Path(FOLDER).glob("*onnxruntime.*")))}
        subprocess.run(command, check=True, env=environment, capture_output=True)
        expected = [bpy.data.images.load(str(file)) for file in sorted((self.folder / "expected").glob("*.png"))]
        self.assertEqual(len(expected), len(job.files))
        for image, file in zip(expected, job.files):
            got = bpy.data.images.load(str(file))
            self.assertEqual(tuple(got.size), (80, 64))
            self.assertEqual(strips.image_clip(image).data, strips.image_clip(got).data)

    def test_same_frames_as_the_command_line(self):
        # Frames that are spread evenly and rounded would be others than 0 1 3 4 6 7 9 11.
        self.set(frames=8)
        self.same_as_the_command_line(12, "--frames=8", "--steps=2")

    def test_same_qualities_and_strength_as_the_command_line(self):
        self.set(quality="DRAFT", strength=2)
        self.same_as_the_command_line(6, "--frames=4", "--quality=draft", "--strength=2")

    def test_properties_are_those_of_the_table_of_settings(self):
        self.images()
        said = subprocess.run([PROGRAM, "settings", "--json", "--bundle", BUNDLE], check=True, capture_output=True)
        known = {setting["name"]: setting for setting in json.loads(said.stdout)}
        ours = type(self.settings).bl_rna.properties
        qualities = [item.identifier.lower() for item in ours["quality"].enum_items]
        self.assertEqual(qualities, [*known["quality"]["choices"], "custom"])
        self.assertEqual(ours["quality"].default.lower(), known["quality"]["default"])
        self.clone()
        (engine,) = jobs.session._engines.values()
        self.assertEqual([setting["name"] for setting in engine.describe()], list(known))
        for own, name in {"seed": "seed", "strength": "strength", "image_scale": "control_scale"}.items():
            self.assertEqual(ours[own].default, known[name]["default"], name)
        names = {"strength": "strength", "image_scale": "control_scale", "steps": "steps", "side": "width"}
        for own, name in names.items():
            self.assertGreaterEqual(ours[own].hard_min, known[name]["least"], name)
            self.assertLessEqual(ours[own].hard_max, known[name].get("most", float("inf")), name)

    def test_movie_and_timing(self):
        self.movie()
        self.set(timing="FRAMES")
        self.clone()
        strip = self.top["film clone"]
        self.assertEqual((strip.channel, strips.start(strip), strips.length(strip)), (2, 5, 4))

    def test_two_do_not_collide_and_queue(self):
        self.images()
        for _ in range(2):
            bpy.ops.motionclone.clone()
        self.assertEqual([job.ended for job in jobs.session.jobs], [False, False])
        first, second = [self.done(job) for job in self.work()]
        self.assertNotEqual(first.files, second.files)
        self.assertEqual([file.read_bytes() for file in first.files], [file.read_bytes() for file in second.files])
        self.assertEqual(sorted(s.channel for s in self.top), [1, 2, 3])
        self.assertEqual(bpy.ops.motionclone.clear(), {"FINISHED"})
        self.assertEqual(jobs.session.jobs, [])

    def test_batch(self):
        self.images("one")
        self.images("two", at=40)
        for strip in self.top:
            strip.select = True
        bpy.ops.motionclone.batch()
        for job in self.work():
            self.done(job)
        self.assertEqual(strips.start(self.top["one clone"]), 10)
        self.assertEqual(strips.start(self.top["two clone"]), 40)

    def test_regenerate(self):
        self.images()
        first = self.clone()
        self.scene.sequence_editor.active_strip = self.top["bar clone"]
        self.set(prompt="something else")
        bpy.ops.motionclone.regenerate(new_seed=False)
        again = self.done(self.work()[-1])
        self.assertEqual(first.files[0].read_bytes(), again.files[0].read_bytes())
        bpy.ops.motionclone.regenerate(new_seed=True)
        other = self.done(self.work()[-1])
        self.assertNotEqual(first.files[0].read_bytes(), other.files[0].read_bytes())
        self.assertEqual(other.used["prompt"], "a fish")

    def test_picture_and_sketch(self):
        self.images()
        plain = self.clone().files[0].read_bytes()
        self.images("sketch", 5)
        self.set(reference="bar")
        image = bpy.data.images.load(str(self.folder / "0003.png"))
        for mode in ("PICTURE", "SKETCH"):
            self.set(mode=mode, image_strip="", image=None)
            self.refused(bpy.ops.motionclone.clone, "Choose an image", mode.lower())
            self.scene.frame_set(13)
            self.set(image_strip="sketch")
            from_strip = [file.read_bytes() for file in self.clone().files]
            self.set(image_strip="", image=image)
            from_image = [file.read_bytes() for file in self.clone().files]
            self.assertEqual(from_strip, from_image, mode)
            self.assertNotEqual(plain, from_image[0], mode)

    def test_motion_library(self):
        self.images()
        bpy.ops.motionclone.extract(title="Way: of the bar")
        job = self.work()[-1]
        self.assertEqual(job.state, "DONE", job.message)
        ((folder, text),) = jobs.motions(bpy.context)
        self.assertIn("Way: of the bar", text)
        self.assertEqual(folder.name, "Way-of-the-bar-001")
        self.assertTrue((folder / "thumbnail.png").read_bytes().startswith(png.SIGNATURE))
        icons.motion_icon(folder)
        self.assertIn(str(folder / "thumbnail.png"), icons.icons)
        bpy.ops.motionclone.apply(folder=str(folder))
        job = self.done(self.work()[-1])
        self.assertEqual(self.top["bar clone"]["motionclone"]["motion"], str(folder / "motion.safetensors"))
        self.set(mode="PICTURE")
        self.refused(bpy.ops.motionclone.apply, "Text", folder=str(folder))

    def test_text_block_and_preview(self):
        self.images()
        text = bpy.data.texts.new("prompt")
        text.write("two\nlines")
        self.set(prompt_text=text)
        bpy.ops.motionclone.clone()
        job = self.running()
        while not job.previews:
            self.assertFalse(job.ended, job.message)
            jobs.tick()
        self.assertEqual((job.preview.width, job.preview.height), (10, 8))
        self.done(self.work()[-1])
        self.assertEqual(job.used["prompt"], "two lines")
        # In the end the clip itself is shown.
        self.assertEqual((job.preview.width, job.preview.height), (80, 64))
        # Without windows Blender numbers no icons, and keeps their pixels all the same.
        icons.preview_icon(job)
        icon = icons.icons[f"job {job.number}"]
        self.assertEqual(tuple(icon.image_size), (80, 64))

    def test_a_preview_of_a_large_clip_is_small(self):
        pixels = np.arange(300 * 200 * 3, dtype=np.uint32).astype(np.uint8).reshape(200, 300, 3)
        preview = session.small(library.Clip(bytearray(pixels.tobytes()), 1, 300, 200))
        self.assertEqual((preview.width, preview.height), (100, 67))
        np.testing.assert_array_equal(np.frombuffer(preview.data, np.uint8).reshape(67, 100, 3), pixels[::3, ::3])

    def test_save_and_reopen(self):
        self.images()
        self.clone()
        bpy.ops.wm.save_mainfile()
        bpy.ops.wm.open_mainfile(filepath=str(self.folder / "film.blend"))
        scene = bpy.context.scene
        strip = strips.find(scene, "bar clone")
        self.assertEqual(strip["motionclone"]["prompt"], "a fish")
        self.assertEqual(scene.motionclone.prompt, "a fish")
        self.assertTrue(Path(bpy.path.abspath(strip.directory), strip.elements[0].filename).is_file())

    def test_undo_and_redo(self):
        self.images()
        bpy.ops.ed.undo_push(message="before")
        self.clone()
        self.clone()
        names = lambda: sorted(strip.name for strip in strips.collection(bpy.context.scene.sequence_editor))
        self.assertEqual(names(), ["bar", "bar clone", "bar clone.001"])
        bpy.ops.ed.undo()
        self.assertEqual(names(), ["bar", "bar clone"])
        bpy.ops.ed.undo()
        self.assertEqual(names(), ["bar"])
        bpy.ops.ed.redo()
        self.assertEqual(names(), ["bar", "bar clone"])
        strip = strips.find(bpy.context.scene, "bar clone")
        self.assertEqual(strip["motionclone"]["prompt"], "a fish")

    def test_undo_while_a_job_runs(self):
        self.images()
        bpy.ops.ed.undo_push(message="before")
        self.scene.motionclone.prompt = "a bird"
        bpy.ops.ed.undo_push(message="prompt")
        bpy.ops.motionclone.clone()
        bpy.ops.ed.undo()
        self.done(self.work()[-1])
        scene = bpy.context.scene
        self.assertEqual(scene.motionclone.prompt, "a fish")
        self.assertEqual(strips.find(scene, "bar clone")["motionclone"]["prompt"], "a bird")

    def test_another_file_is_left_alone(self):
        self.images()
        bpy.ops.motionclone.clone()
        job = self.running()
        bpy.ops.wm.read_homefile(use_empty=True)
        self.work()
        self.assertEqual(job.state, "FAILED")
        self.assertIn("Another file", job.message)
        self.assertTrue(job.files[0].is_file())
        self.assertIn(str(job.files[0].parent), job.message)


class Changes(Case):
    """What the user does while a job is on its way."""

    def gathering(self, steps=2, taken=1):
        """A job that has taken some of its frames."""
        self.set(steps=steps)
        bpy.ops.motionclone.clone()
        job = jobs.session.jobs[-1]
        while job.step < taken or job.message != "Taking frames":
            self.assertFalse(job.ended, job.message)
            jobs.tick()
        return job

    def added(self):
        """The strips that were added, whose files are there."""
        top = strips.collection(bpy.context.scene.sequence_editor)
        return [s.name for s in top if "motionclone" in s and Path(bpy.path.abspath(s.directory), s.elements[0].filename).is_file()]

    def test_save_as(self):
        self.images()
        for begin in (lambda: self.gathering(), lambda: (bpy.ops.motionclone.clone(), self.running())):
            for strip in [strip for strip in self.top if "motionclone" in strip]:
                self.top.remove(strip)
            begin()
            (self.folder / "versions").mkdir(exist_ok=True)
            bpy.ops.wm.save_as_mainfile(filepath=str(self.folder / "versions" / "film_v002.blend"))
            self.done(self.work()[-1])
            self.assertEqual(self.added(), ["bar clone"])
            jobs.session.clear()

    def test_scene_and_strip_are_renamed_and_moved(self):
        strip = self.images()
        expected = [file.read_bytes() for file in self.clone().files]
        self.top.remove(self.top["bar clone"])
        other = bpy.data.scenes.new("other")
        job = self.gathering(steps=2)
        self.scene.name, strip.name, strip.frame_start = "renamed", "hero", 30
        other.name = "Scene"
        self.images("bar", 5)  # Another strip, now of the old name.
        self.assertEqual(self.top["hero"], strip)
        for t in range(8):
            # What the new strip would show.
            self.assertTrue((self.folder / f"{t:04}.png").is_file())
        self.done(self.work()[-1])
        self.assertEqual([file.read_bytes() for file in job.files], expected)
        added = self.top["hero clone"]
        self.assertEqual((strips.start(added), added.channel), (30, 2))
        self.assertIsNone(other.sequence_editor)

    def test_a_copy_is_not_taken_for_the_strip(self):
        strip = self.images()
        self.gathering()
        copy = self.images("copy", 4, at=50)
        copy[references.MARK] = strip[references.MARK]  # As Shift-D leaves it.
        strip.name = "hero"
        self.done(self.work()[-1])
        self.assertEqual(strips.start(self.top["hero clone"]), 10)
        self.assertNotIn(references.MARK, copy)

    def test_undo_while_frames_are_taken(self):
        self.images()
        bpy.ops.ed.undo_push(message="before")
        self.scene.motionclone.prompt = "a bird"
        bpy.ops.ed.undo_push(message="prompt")
        self.gathering()
        bpy.ops.ed.undo()
        self.done(self.work()[-1])
        self.assertEqual(self.added(), ["bar clone"])

    def test_another_strip_of_the_name_is_not_taken(self):
        self.images()
        job = self.gathering()
        self.top.remove(self.top["bar"])
        other = self.top.new_effect(name="bar", type="COLOR", channel=3, frame_start=1, **length_of(self.top, 20))
        self.work()
        self.assertEqual((job.state, other.name), ("FAILED", "bar"))
        self.assertIn("was removed", job.message)

    def test_strip_is_removed_while_the_library_works(self):
        self.images()
        bpy.ops.motionclone.clone()
        self.running()
        self.top.remove(self.top["bar"])
        self.done(self.work()[-1])
        added = self.top["bar clone"]
        self.assertEqual((strips.start(added), added.channel), (10, 2))

    def test_strip_is_cut_while_frames_are_taken(self):
        strip = self.images()
        job = self.gathering()
        strip.frame_final_duration = 5
        self.work()
        self.assertEqual(job.state, "FAILED")
        self.assertIn("was cut", job.message)

    def test_scene_is_removed(self):
        self.images()
        bpy.ops.motionclone.clone()
        job = self.running()
        bpy.data.scenes.new("other")
        bpy.data.scenes.remove(self.scene)
        self.work()
        self.assertEqual(job.state, "FAILED")
        self.assertTrue(job.files[0].is_file())
        self.assertIn(str(job.files[0].parent), job.message)

    def test_regenerate_after_renaming(self):
        strip = self.images()
        self.clone()
        strip.name = "hero"
        self.scene.sequence_editor.active_strip = self.top["bar clone"]
        bpy.ops.motionclone.regenerate(new_seed=False)
        self.done(self.work()[-1])
        self.assertIn("hero clone", self.top)


class Media(Case):
    def test_offline_media_are_refused(self):
        self.images()
        (self.folder / "0007.png").unlink()
        self.refused(bpy.ops.motionclone.clone, "bar is offline", "0007.png")
        meta = self.top.new_meta(name="meta", channel=2, frame_start=10)
        meta.frame_final_duration = 8
        self.top["bar"].move_to_meta(meta)
        self.set(reference="meta")
        self.refused(bpy.ops.motionclone.clone, "bar is offline", "0007.png")

    def test_an_offline_movie_is_refused(self):
        below = self.movie()
        above = self.effect("blur", "GAUSSIAN_BLUR", 2, below)
        (self.folder / "film.mkv").unlink()
        for strip in (below, above):
            self.scene.sequence_editor.active_strip = strip
            self.refused(bpy.ops.motionclone.clone, "film is offline", "film.mkv")

    def test_broken_media_are_refused(self):
        (self.folder / "broken.mkv").write_bytes(b"no movie" * 100)
        self.movie().filepath = str(self.folder / "broken.mkv")
        self.refused(bpy.ops.motionclone.clone, "film cannot be read", "broken.mkv")
        self.images()
        (self.folder / "0007.png").write_bytes(b"no picture")
        self.failed("bar cannot be read", "0007.png")

    def test_media_that_go_offline_meanwhile(self):
        self.images()
        bpy.ops.motionclone.clone()
        job = jobs.session.jobs[-1]
        while job.message != "Taking frames":
            jobs.tick()
        for t in range(8):
            (self.folder / f"{t:04}.png").unlink()
        self.work()
        self.assertEqual(job.state, "FAILED")
        self.assertIn("offline", job.message)

    def test_hidden_colour_of_an_image_counts_for_nothing(self):
        image = bpy.data.images.new("half", 8, 4, alpha=True)
        pixels = np.zeros((4, 8, 4), np.float32)
        pixels[..., 0], pixels[:, 4:, 3] = 1, 0.5
        image.pixels.foreach_set(pixels.ravel())
        clip = np.frombuffer(strips.image_clip(image).data, np.uint8).reshape(4, 8, 3)
        self.assertEqual(clip[0, 0].tolist(), [0, 0, 0])
        self.assertIn(clip[0, 7, 0], (127, 128))


class Folders(Case):
    """Results are never lost and never overwrite."""

    def unwritable(self):
        """A path that nobody can make a folder at, root included."""
        (self.folder / "file").write_text("")
        return str(self.folder / "file" / "results")

    def test_a_folder_that_cannot_be_written_is_found_before_the_work(self):
        self.images()
        self.set(folder=self.unwritable())
        self.refused(bpy.ops.motionclone.clone, "results folder", self.unwritable())
        self.assertFalse(jobs.session and jobs.session.busy)

    def test_a_disk_without_room_is_found_before_the_work(self):
        self.images()
        before = shutil.disk_usage
        self.set(folder=str(self.folder / "results"))
        bpy.ops.motionclone.clone()
        results.shutil.disk_usage = lambda _: shutil._ntuple_diskusage(10, 10, results.SPARE)
        try:
            (job,) = self.work()
        finally:
            results.shutil.disk_usage = before
        self.assertEqual(job.state, "FAILED")
        self.assertIn("room", job.message)
        self.assertEqual(job.used, {})

    def test_a_folder_that_fails_in_the_end(self):
        self.images()
        kept = self.folder / "kept"
        bpy.ops.motionclone.clone()
        job = self.running()
        job.request.folder, job.request.fallbacks = Path(self.unwritable()), (kept,)
        self.done(self.work()[-1])
        self.assertEqual(job.files[0].parent.parent, kept)
        self.assertIn(str(kept), job.message)
        self.assertIn(self.unwritable(), job.message)
        self.assertIn("bar clone", self.top)

    def test_a_result_that_finds_no_place_is_kept_until_saved(self):
        self.images()
        bpy.ops.motionclone.clone()
        job = self.running()
        job.request.folder, job.request.fallbacks = Path(self.unwritable()), ()
        self.work()
        self.assertEqual((job.state, job.unsaved), ("FAILED", True))
        self.assertIn("press Save", job.message)
        self.assertEqual(bpy.ops.motionclone.save(index=0), {"FINISHED"})
        self.done(self.work()[-1])
        self.assertTrue(job.files[0].is_file())
        self.assertIn("bar clone", self.top)

    def test_names_in_use_are_left_alone(self):
        taken = self.folder / "results"
        taken.mkdir()
        (taken / "clip-001").mkdir()
        (taken / "clip-002").write_text("mine")
        (taken / "clip-003").symlink_to("nowhere")
        (file,) = results.write(taken, "clip", [("a.png", lambda path: path.write_bytes(b"a"))])
        self.assertEqual(file, taken / "clip-004" / "a.png")
        self.assertEqual(list((taken / "clip-001").iterdir()), [])
        self.assertEqual((taken / "clip-002").read_text(), "mine")
        self.assertEqual(sorted(p.name for p in taken.iterdir())[0], "clip-001")


class Quitting(Case):
    """Blender's end with a job running: a process of its own each time."""

    SCRIPT = """
import os, sys, threading, time
import bpy, addon_utils
addon_utils.enable('bl_pkg', default_set=True)
addon_utils.enable({module!r}, default_set=True)
bpy.ops.wm.open_mainfile(filepath={file!r})
from bl_ext.user_default.motionclone import jobs, library, session
bpy.context.preferences.addons[{module!r}].preferences.bundle = {bundle!r}
bpy.context.preferences.addons[{module!r}].preferences.device = 'CPU'
if {stuck}:
    stuck = threading.Event()
    session.Place.engine = lambda *_: (stuck.set(), time.sleep(300))
bpy.ops.motionclone.clone()
job = jobs.session.jobs[0]
while not (stuck.is_set() if {stuck} else job.state == 'RUNNING' and job.step > 1):
    assert not job.ended, job.message
    jobs.tick()
    time.sleep(0.01)
print('QUITS', flush=True)
{quit}
"""

    def quit(self, stuck, quit):
        self.images()
        self.set(steps=1000, side=256, frames=16)
        bpy.ops.wm.save_mainfile()
        script = self.SCRIPT.format(
            module=MODULE, file=str(self.folder / "film.blend"), bundle=BUNDLE, stuck=stuck, quit=quit
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if line.strip() == "QUITS":
                    break
            begun = time.monotonic()
            said += process.communicate(timeout=60)[0].splitlines(keepends=True)
        finally:
            process.kill()
            process.wait()
        said = "".join(said)
        self.assertIn("QUITS", said)
        self.assertEqual(process.returncode, 0, said[-2000:])
        self.assertNotIn("onnxruntime", said.split("QUITS")[1])
        self.assertLess(time.monotonic() - begun, session.CLOSING_LIMIT + 10)

    def test_with_a_job_running(self):
        self.quit(False, "")

    def test_with_a_job_running_and_the_extension_disabled(self):
        self.quit(False, f"addon_utils.disable({MODULE!r})")

    def test_with_a_worker_that_does_not_end(self):
        # The module bpy, unlike Blender, crashes at its end while any daemon thread lives.
        self.quit(True, f"addon_utils.disable({MODULE!r}); os._exit(0)")

    def test_python_does_not_wait_for_the_worker(self):
        script = """
import atexit, sys, threading, time, types
package = types.ModuleType('motionclone')
package.__path__ = [sys.argv[1]]
sys.modules['motionclone'] = package
from motionclone import session
begun, stuck = threading.Event(), session.Session()
atexit.register(stuck.close, 1)
stuck._worker.submit(lambda: (begun.set(), time.sleep(300)))
begun.wait()
"""
        before = time.monotonic()
        subprocess.run([sys.executable, "-c", script, HERE.parent / "motionclone"], check=True, timeout=60)
        self.assertLess(time.monotonic() - before, 20)


class Ends(Case):
    def test_cancel(self):
        self.images()
        self.set(steps=500)
        for _ in range(2):
            bpy.ops.motionclone.clone()
        self.running()
        self.assertEqual([job.ended for job in jobs.session.jobs], [False, False])
        bpy.ops.motionclone.cancel(index=1)
        bpy.ops.motionclone.cancel()
        self.assertEqual([job.state for job in self.work(20)], ["CANCELLED"] * 2)
        self.assertEqual(len(self.top), 1)
        results = self.folder / "motionclone"
        self.assertEqual(list(results.iterdir()) if results.exists() else [], [])
        self.set(steps=2)
        self.clone()

    def test_cancel_while_frames_are_taken(self):
        self.images()
        bpy.ops.motionclone.clone()
        (job,) = jobs.session.jobs
        while job.message != "Taking frames":
            jobs.tick()
        bpy.ops.motionclone.cancel(index=0)
        self.work()
        self.assertEqual((job.state, job.used), ("CANCELLED", {}))

    def test_strip_is_gone_before_its_frames_are_taken(self):
        self.images()
        bpy.ops.motionclone.clone()
        self.top.remove(self.top["bar"])
        (job,) = self.work()
        self.assertEqual((job.state, job.message), ("FAILED", "The strip bar was removed, or moved into a meta strip."))

    def test_unregister_with_a_job_running(self):
        self.images()
        self.set(steps=500)
        bpy.ops.motionclone.clone()
        self.running()
        self.assertTrue(bpy.app.timers.is_registered(jobs.tick))
        tick = jobs.tick
        addon_utils.disable(MODULE)
        try:
            self.assertIsNone(jobs.session)
            self.assertFalse(bpy.app.timers.is_registered(tick))
            self.assertFalse(hasattr(bpy.types.Scene, "motionclone"))
            self.assertFalse([t for t in threading.enumerate() if t.name.startswith("motionclone")])
        finally:
            addon_utils.enable(MODULE)
        # The settings are still there, as others than before to Python.
        self.assertEqual((self.scene.motionclone.steps, self.scene.motionclone.prompt), (500, "a fish"))


class Errors(Case):
    def test_no_bundle(self):
        self.images()
        self.preferences.bundle = ""
        embedded = session.EMBEDDED
        session.EMBEDDED = self.folder / "nothing here"
        try:
            self.refused(bpy.ops.motionclone.clone, "No bundle is chosen", "preferences")
        finally:
            session.EMBEDDED = embedded
        self.preferences.bundle = str(self.folder / "nothing here")
        self.failed("nothing here")
        self.assertIn("nothing here", self.found())

    def test_library_missing(self):
        self.images()
        self.preferences.library = str(self.folder / "gone.so")
        self.refused(bpy.ops.motionclone.clone, "gone.so", "preferences")
        self.assertIn("gone.so", self.found())

    def test_wrong_library_version(self):
        if not shutil.which("cc"):
            self.skipTest("there is no C compiler")
        source, file = self.folder / "wrong.c", self.folder / library.FILE_NAME
        source.write_text(
            'const char *motionclone_version(void) { return "9.1.2"; }\n'
            "unsigned motionclone_abi_version(void) { return 77; }"
        )
        subprocess.run(["cc", "-shared", "-fPIC", "-o", file, source], check=True)
        self.images()
        self.preferences.library = str(file)
        self.failed("9.1.2", "77")

    def test_strips_that_do_not_do(self):
        self.refused(bpy.ops.motionclone.clone, "Select the strip")
        self.images(count=1)
        self.refused(bpy.ops.motionclone.clone, "one frame")
        self.set(reference="nobody")
        self.refused(bpy.ops.motionclone.clone, "nobody")

    def test_file_that_was_never_saved(self):
        bpy.ops.wm.read_homefile(use_empty=True)
        scene = bpy.context.scene
        if hasattr(bpy.context.workspace, "sequencer_scene"):
            bpy.context.workspace.sequencer_scene = scene
        self.scene, self.top = scene, strips.collection(scene.sequence_editor_create())
        self.images()
        self.refused(bpy.ops.motionclone.clone, "Save the file first")

    def test_refused_by_the_library(self):
        self.images()
        self.set(frames=64)
        self.failed("64")

    def test_the_test_button(self):
        expected = r"(?s)Library \d.*Device CPU.*{} works on.*Model's own: \d+x\d+, 16 frames"
        self.assertRegex(self.found(), expected.format(Path(BUNDLE).name))
        self.preferences.bundle = ""
        self.assertRegex(self.found(), expected.format("The small model of the extension"))


class ZThreads(Case):
    """Last: what ran on other threads in all the tests above."""

    def test_blender_is_left_alone_by_other_threads(self):
        ours = {Path(file).name for file in elsewhere if MODULE.split(".")[-1] in Path(file).parts}
        self.assertIn("session.py", ours)
        self.assertLessEqual(ours, {"session.py", "library.py", "abi.py", "png.py", "results.py", "worker.py"})
        self.assertEqual(strayed, [])
        for module in (session, library, png, results, worker):
            self.assertNotIn("import bpy", Path(module.__file__).read_text())


class Start(unittest.TestCase):
    def test_blender_starts_as_fast_as_before(self):
        script = (
            "import addon_utils, time\n"
            "addon_utils.enable('bl_pkg', default_set=True)\n"
            "before = time.perf_counter()\n"
            f"addon_utils.enable('{MODULE}')\n"
            "print('took', time.perf_counter() - before)\n"
        )
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        command, times = [sys.executable, "-c", f"import bpy\n{script}"], []
        # The first one compiles what it imports.
        for _ in range(4):
            said = subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout
            times.append(float(said.split("took")[1].split()[0]))
        print(f"the extension takes {1000 * min(times):.0f} ms of Blender's start")
        self.assertLess(min(times), 0.05)


if __name__ == "__main__":
    print("Blender", bpy.app.version_string)
    try:
        unittest.main()
    finally:
        shutil.rmtree(TEMPORARY, ignore_errors=True)
