"""From a clip's file to a result of the clip's length: `motionclone` reads and clones, ffmpeg makes it fit."""

import json
import os
import shutil
from dataclasses import dataclass

from . import programs, results
from .console import say
from .problem import Cancelled, Problem

ENCODER = "prores_ks"
STAGES = {
    "load": "loading networks",
    "encode": "encoding",
    "extract": "reading the motion",
    "denoise": "making the clip",
    "decode": "decoding",
    "write": "writing frames",
}
"""The stages of `motionclone`, as the page shows them."""
FRAME, PRORES = 3, 1
"""Bytes of a pixel at most, of a frame as PNG and as ProRes."""
SIZE, FRAMES = "128x128", 16
"""The clip of the small model, where nothing is chosen."""


@dataclass(frozen=True)
class Settings:
    """Settings of a clone, as the user chose them."""

    program: str
    bundle: str
    """Empty for the small model that comes with the program."""
    folder: str
    prompt: str
    negative: str = ""
    options: tuple = ()
    """Further words for `motionclone clone`."""
    smooth: bool = True
    """True to interpolate frames between those of the model along the motion."""


def check(settings):
    """Complains about settings that cannot work, before anything is begun."""
    if not settings.prompt.strip():
        raise Problem("Say in the prompt what the new clip shows.")
    if not shutil.which(settings.program or ""):
        raise Problem(f"The motionclone program was not found at {settings.program or '(nothing chosen)'}.")
    if settings.bundle and not os.path.isfile(os.path.join(settings.bundle, "manifest.json")):
        raise Problem(f"The model bundle {settings.bundle} is no folder made by motionclone import.")
    if not settings.folder or not os.path.isabs(settings.folder):
        raise Problem(f"The results folder must be a full path; it is {settings.folder or 'empty'}.")
    programs.check_encoder(programs.find_ffmpeg(settings.program), ENCODER)


def clone_command(clip, settings, out):
    """Clones the motion of what the clip shows of its file into a folder of PNG files."""
    source = clip.source
    words = [settings.program, "clone", f"--reference={source.path}", f"--prompt={settings.prompt}"]
    words += [f"--start={float(source.start):.6f}", f"--end={float(source.end):.6f}"]
    words += [f"--bundle={settings.bundle}"] if settings.bundle else []
    words += [f"--negative={settings.negative}"] if settings.negative else []
    return words + list(settings.options) + ["--progress=json", f"--out={out}"]


def fit_command(clip, settings, frames, count, out):
    """Spreads `count` frames over exactly the clip's length at the timeline's rate.

    The timeline's rate keeps Resolve from rounding the length; ProRes is read by it on every system, free edition too.
    Colours are converted for BT.709 and the file says so: what says nothing is read as BT.709, and ffmpeg converts for
    BT.601 unless asked.
    """
    rate = clip.timeline_rate
    shown = f"{rate.numerator}/{rate.denominator}"
    spread = count * rate / clip.duration
    filters = ["scale=flags=accurate_rnd+full_chroma_int:in_range=pc:out_color_matrix=bt709:out_range=tv"]
    if settings.smooth and spread < rate:
        filters += ["format=yuv444p", f"minterpolate=fps={shown}:mi_mode=mci"]
    else:
        filters += ["format=yuv422p10le", f"fps={shown}"]
    # Frames that interpolation leaves out at the end repeat the last one.
    filters.append(f"tpad=stop_mode=clone:stop={clip.duration}")
    filters.append("setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv")
    return [
        programs.find_ffmpeg(settings.program), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "error",
        "-progress", "pipe:1", "-framerate", f"{spread.numerator}/{spread.denominator}",
        "-i", "file:" + os.path.join(frames.replace("%", "%%"), "frame_%04d.png"),
        "-vf", ",".join(filters), "-frames:v", str(clip.duration),
        "-r", shown, "-c:v", ENCODER, "-profile:v", "3", "-pix_fmt", "yuv422p10le",
        "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv",
        "-n", "-f", "mov", "file:" + out,
    ]  # fmt: skip


def clone(clip, settings, report, cancelled):
    """Makes the result and returns its path.

    `report(stage, done)` is called with the stage and the share of it that is done, 0 to 1; `cancelled` is an event that ends the work. Nothing
    but a whole result is left behind, or the frames of a clip that was finished and could not be made to fit.
    """
    check(settings)
    work = results.prepare(settings.folder, _size(clip, settings))
    try:
        frames, fitted = (os.path.join(work, name) for name in ("frames", "fitted.mov"))
        report("starting", 0.0)
        events = _Events(report)
        try:
            programs.run(clone_command(clip, settings, frames), events, cancelled)
        except Problem as problem:
            # The program saves what it could not write where it was asked to.
            if events.kept and os.path.exists(events.kept):
                raise _kept(events.kept, settings, problem) from None
            raise
        count = len([name for name in os.listdir(frames) if name.startswith("frame_")]) if os.path.isdir(frames) else 0
        if not count:
            raise Problem("motionclone ended without a result.")
        try:
            return _fit(clip, settings, frames, count, fitted, report, cancelled)
        except (Problem, OSError) as problem:
            raise _kept(frames, settings, problem) from None
    except OSError as error:
        raise Problem(f"The result could not be written: {error}.") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fit(clip, settings, frames, count, fitted, report, cancelled):
    stage = "fitting the length"

    def read_line(line):
        key, _, value = line.partition("=")
        if key == "frame" and value.strip().isdigit():
            report(stage, min(1.0, int(value) / clip.duration))

    report(stage, 0.0)
    programs.run(fit_command(clip, settings, frames, count, fitted), read_line, cancelled)
    if cancelled.is_set():
        raise Cancelled
    return results.keep(fitted, settings.folder, settings.prompt)


def _kept(frames, settings, problem):
    """A problem, with the place where the finished frames are: a move needs no room."""
    try:
        place = results.keep(frames, settings.folder, settings.prompt)
    except OSError as error:
        return Problem(f"{problem} Its frames could not be kept: {error}.")
    return Problem(f"{str(problem).rstrip('.')}; the frames of the new clip are kept in {place}.")


def _size(clip, settings):
    """Bytes that the work and the result take at most."""
    own = {"size": SIZE, "frames": FRAMES}
    try:
        if settings.bundle:
            with open(os.path.join(settings.bundle, "manifest.json"), encoding="utf-8") as file:
                defaults = json.load(file)["defaults"]
            own = {"size": "{width}x{height}".format(**defaults), "frames": defaults["frames"]}
        chosen = {**own, **dict(option[2:].split("=", 1) for option in settings.options if "=" in option)}
        width, _, height = chosen["size"].partition("x")
        return int(width) * int(height) * (int(chosen["frames"]) * FRAME + clip.duration * PRORES)
    except (OSError, ValueError, KeyError, TypeError):
        return 0  # The program refuses such a bundle or such a size.


class _Events:
    """Reads the events of `motionclone --progress json` and passes on how far it is."""

    def __init__(self, report):
        self._report = report
        self.kept = ""
        """The path of what the program saved although it failed."""

    def __call__(self, line):
        """Takes a line; gives the reason of a failure."""
        try:
            event = json.loads(line)
        except ValueError:
            return None
        # What is not known is passed over: later versions may have more.
        kind = event.get("event") if isinstance(event, dict) else None
        if kind == "progress":
            what = STAGES.get(event.get("stage"), "working")
            left = event.get("seconds_left")
            if isinstance(left, (int, float)):
                what += f", {left:.0f} s left"
            step, total = event.get("step"), event.get("total")
            if isinstance(step, int) and isinstance(total, int):
                self._report(what, min(1.0, step / max(1, total)))
        elif kind == "warning":
            say(f"motionclone: {event.get('message')}")
        elif kind == "kept":
            self.kept = str(event.get("path") or "")
        elif kind == "error":
            return str(event.get("message") or "") or None
        return None
