"""Quick programs in place of `motionclone` and `ffmpeg`, and clips for them."""

import os
import stat
import sys
import tempfile
import textwrap
import unittest

MOTIONCLONE = """
    import json, os, signal, sys, time
    # A shell's background command has it ignored, which Python would keep; the real program listens in any case.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    words = dict(w[2:].split("=", 1) for w in sys.argv[2:])
    open(sys.argv[0] + ".words", "a").write(repr(sys.argv[1:]) + "\\n")
    def say(event, **fields):
        print(json.dumps({"event": event, **fields}), flush=True)
    assert words["progress"] == "json"
    assert os.path.exists(words["reference"]) and float(words["start"]) < float(words["end"])
    say("started", command="clone", version="9")
    say("notice", message="computing on CPU")
    if words["prompt"] == "fail":
        say("warning", message="beside the point")
        say("error", **{"class": "input", "message": "the bundle is broken"})
        sys.exit(2)
    if words["prompt"] == "usage":
        sys.exit("error: unexpected argument '--new' found\\n\\nUsage: motionclone clone")
    say("of a later version", stage=[1])
    print("[]")
    say("progress", stage="extract", unit="step", step=1, total=1)
    say("progress", stage="denoise", unit="step", step=5, total=10, loss=43.0, seconds_left=8.2)
    try:
        if words["prompt"] == "wait":
            open(sys.argv[0] + ".waiting", "w").close()
            time.sleep(60)
    except KeyboardInterrupt:
        open(sys.argv[0] + ".interrupted", "w").close()
        sys.exit(130)
    os.mkdir(words["out"])
    for n in range(int(words.get("frames", 16))):
        open(os.path.join(words["out"], f"frame_{n:04}.png"), "w").close()
"""
FFMPEG = """
    import json, os, sys
    words = sys.argv[1:]
    if "-encoders" in words:
        print(" V....D ffv1\\n VFS... prores_ks   Apple ProRes")
        sys.exit()
    if os.path.exists(sys.argv[0] + ".fails"):
        sys.exit("Error: No space left on device")
    source = words[words.index("-i") + 1][len("file:"):]
    assert os.path.exists(source.replace("%04d", "0000")), source
    frames = int(words[words.index("-frames:v") + 1])
    rate = words[words.index("-r") + 1] if "-r" in words else "25/1"
    print(f"frame={frames}\\nprogress=end")
    with open(words[-1][len("file:"):], "x") as out:
        json.dump({"frames": frames, "rate": rate, "words": words}, out)
"""


@unittest.skipIf(os.name == "nt", "the programs of these tests start with a #! line")
class WithPrograms(unittest.TestCase):
    """A temporary folder with the programs, a bundle, a clip's file, and preferences kept apart."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.realpath(folder.name)
        self.program = self._script("motionclone", MOTIONCLONE)
        self.bundle = self.at("bundle")
        os.mkdir(self.bundle)
        for path in (os.path.join(self.bundle, "manifest.json"), self.at("shot.mp4")):
            open(path, "w").close()
        self.results = self.at("results")
        before = dict(os.environ)
        self.addCleanup(lambda: (os.environ.clear(), os.environ.update(before)))
        os.environ.update(
            HOME=self.folder, XDG_DATA_HOME=self.at("data"), APPDATA=self.at("data"),
            MOTIONCLONE_FFMPEG=self._script("ffmpeg", FFMPEG),
        )  # fmt: skip
        os.environ.pop("MOTIONCLONE_PROGRAM", None)

    def at(self, name):
        return os.path.join(self.folder, name)

    def _script(self, name, text):
        path = self.at(name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!{sys.executable} -S\n" + textwrap.dedent(text))
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
        return path

    def fields(self, **changes):
        """What the page would send."""
        fields = {
            "prompt": "Relics on the seabed", "negative": "", "quality": "draft", "strength": "1.5", "seed": "7",
            "size": "64x64", "frames": "4", "smooth": True, "bundle": self.bundle, "folder": self.results,
            "program": self.program, "scope": "clip", "action": "clone",
        }  # fmt: skip
        return {**fields, **changes}
