"""The binding, without Blender.

Wrong libraries are compiled here with `cc`. The right one is taken from MOTIONCLONE_LIBRARY, a small bundle from
MOTIONCLONE_BUNDLE; tests that need what is not there say so and are skipped.
"""

import ctypes
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import types
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The extension as a package without its own start, which needs Blender.
package = types.ModuleType("motionclone")
package.__path__ = [str(HERE.parent / "motionclone")]
sys.modules["motionclone"] = package
library = importlib.import_module("motionclone.library")

FILE, BUNDLE = os.environ.get("MOTIONCLONE_LIBRARY"), os.environ.get("MOTIONCLONE_BUNDLE")
SMALL = {"width": 64, "height": 64, "frames": 4, "steps": 2, "guidance_steps": 1, "warm_up": 0, "cool_up": 0}


def stripes(count=6, width=96, height=64):
    data = bytearray()
    for t in range(count):
        for y in range(height):
            data += bytes(v for x in range(width) for v in ((x - 3 * t) % 32 * 8, y * 4 % 256, (x + t) % 256))
    return library.Clip(data, count, width, height)


class WrongLibraries(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def compile(self, text):
        if not shutil.which("cc"):
            self.skipTest("there is no C compiler")
        source, out = self.folder / "wrong.c", self.folder / library.FILE_NAME
        source.write_text(text)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", out, source], check=True)
        return out

    def refused(self, call, *words):
        with self.assertRaises(library.LibraryError) as caught:
            call()
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_missing(self):
        before = os.environ.pop(library.ENVIRONMENT, None)
        try:
            self.refused(lambda: library.find("", self.folder), library.FILE_NAME, str(self.folder), "preferences")
            self.refused(lambda: library.find(str(self.folder / "no.so")), "no.so", "preferences")
            os.environ[library.ENVIRONMENT] = str(self.folder / "other.so")
            self.refused(lambda: library.find("", self.folder), "other.so", library.ENVIRONMENT)
        finally:
            os.environ.pop(library.ENVIRONMENT, None)
            if before:
                os.environ[library.ENVIRONMENT] = before

    def test_found_in_the_extension(self):
        file = self.folder / "lib" / library.FILE_NAME
        file.parent.mkdir()
        file.write_bytes(b"")
        before = os.environ.pop(library.ENVIRONMENT, None)
        try:
            self.assertEqual(library.find("", self.folder), file)
        finally:
            if before:
                os.environ[library.ENVIRONMENT] = before
        self.assertEqual(library.find(str(file.parent)), file)

    def test_no_library(self):
        file = self.folder / library.FILE_NAME
        file.write_text("text")
        self.refused(lambda: library.Library(file), str(file), "cannot be loaded")

    def test_another_library(self):
        file = self.compile("int x(void) { return 1; }")
        self.refused(lambda: library.Library(file), str(file), "not the motionclone library")

    def test_another_version(self):
        file = self.compile(
            'const char *motionclone_version(void) { return "9.1.2"; }\n'
            "unsigned motionclone_abi_version(void) { return 77; }"
        )
        self.refused(lambda: library.Library(file), "9.1.2", "77", f"needs {library.ABI_VERSION}")

    def test_incomplete(self):
        file = self.compile(
            'const char *motionclone_version(void) { return "0.1.0"; }\n'
            f"unsigned motionclone_abi_version(void) {{ return {library.ABI_VERSION}; }}"
        )
        self.refused(lambda: library.Library(file), "incomplete", "motionclone_")


@unittest.skipUnless(FILE and BUNDLE, "MOTIONCLONE_LIBRARY and MOTIONCLONE_BUNDLE are not set")
class Work(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.library = library.Library(library.find(FILE))
        cls.said = []
        cls.engine = library.Engine(cls.library, BUNDLE, "CPU", log=lambda *message: cls.said.append(message))

    @classmethod
    def tearDownClass(cls):
        cls.engine.close()

    def test_devices(self):
        self.assertTrue(self.library.devices()[0].startswith("CPU"))
        self.assertTrue(self.engine.device())

    def test_bad_bundle(self):
        with self.assertRaises(library.LibraryError) as caught:
            library.Engine(self.library, "/nowhere/at all", "CPU")
        self.assertIn("/nowhere/at all", str(caught.exception))

    def test_defaults_keep_reserved_fields_out(self):
        defaults = self.engine.defaults()
        self.assertEqual(defaults["seed"], 2025)
        self.assertGreater(defaults["steps"], 0)

    def test_refused_settings(self):
        with self.assertRaises(library.LibraryError) as caught:
            self.engine.clone(stripes(), {**SMALL, "width": 63})
        self.assertIn("63", str(caught.exception))
        with self.assertRaises(ValueError):
            self.engine.clone(library.Clip(bytearray(5), 1, 4, 4), SMALL)

    def test_clone_repeats_and_obeys_prompt_and_row_order(self):
        def clone(prompt, order="TOP_DOWN"):
            job = self.engine.clone(stripes(), {**SMALL, "prompt": prompt, "seed": 7})
            self.assertTrue(job.wait())
            clip, progress = job.frames(row_order=order), job.progress()
            self.assertEqual(progress.state, "DONE")
            preview = job.preview()
            if preview:
                self.assertEqual((preview.width, preview.height), (8, 8))
            job.close()
            return clip

        first = clone("a fish")
        self.assertEqual((first.count, first.width, first.height), (4, 64, 64))
        self.assertEqual(first.data, clone("a fish").data)
        self.assertNotEqual(first.data, clone("a bird").data)
        flipped = clone("a fish", "BOTTOM_UP").frame(0)
        rows = [flipped[y * 192 : y * 192 + 192] for y in range(64)]
        self.assertEqual(first.frame(0), b"".join(reversed(rows)))

    def test_images_are_heard(self):
        def clone(images):
            job = self.engine.clone(stripes(), {**SMALL, "seed": 7}, images)
            self.assertTrue(job.wait())
            return job.frames().data

        plain = clone(None)
        for kind in ("PICTURE", "SKETCH"):
            images = library.Images(kind, 1.0, [(stripes(1), 0)])
            self.assertNotEqual(plain, clone(images), kind)

    def test_motion(self):
        job = self.engine.extract(stripes(), SMALL)
        self.assertTrue(job.wait())
        motion = job.motion()
        job.close()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "ways.safetensors"
            motion.save(file)
            motion.close()
            motion = self.library.load_motion(file)
        self.assertEqual((motion.info()["width"], motion.info()["frames"]), (64, 4))
        self.assertIsInstance(motion.describe(), dict)
        job = self.engine.clone(motion, {**SMALL, "prompt": "a fish"})
        motion.close()
        self.assertTrue(job.wait())
        self.assertEqual(job.frames().count, 4)

    def test_cancel(self):
        job = self.engine.clone(stripes(), {**SMALL, "steps": 200})
        job.cancel()
        with self.assertRaises(library.LibraryError) as caught:
            job.wait()
        self.assertEqual(caught.exception.status, library.CANCELLED)
        self.assertEqual(job.progress().state, "CANCELLED")
        job.close()
        with self.assertRaises(library.LibraryError):
            job.progress()


if __name__ == "__main__":
    unittest.main()
