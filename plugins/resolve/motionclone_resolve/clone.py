"""From a clip's file to a result of the clip's length: ffmpeg cuts, `motionclone` clones, ffmpeg makes it fit."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

from .problem import Cancelled, Problem

# Frames with a shorter side beyond this are scaled down: the model sees far less.
LARGEST_SIDE = 1080
PROGRESS = re.compile(r"^(?P<stage>[a-z ]+): (?:step|frame) (?P<step>\d+) of (?P<total>\d+)(?:, (?P<details>.*))?$")
PATIENCE = 20
"""Seconds a cancelled program has to end by itself."""


@dataclass(frozen=True)
class Settings:
    """What the user chose."""

    program: str
    bundle: str
    """Empty for the small model that comes with the program."""
    folder: str
    prompt: str
    negative: str = ""
    options: tuple = ()
    """Further words for `motionclone clone`."""
    smooth: bool = True
    """Whether frames between those of the model are interpolated along the motion."""


def find_ffmpeg(program=None):
    """ffmpeg where `motionclone` looks for it: MOTIONCLONE_FFMPEG, beside the program, PATH."""
    named = os.environ.get("MOTIONCLONE_FFMPEG")
    if named:
        if not shutil.which(named):
            raise Problem(f"MOTIONCLONE_FFMPEG names no program: {named}.")
        return named
    beside = os.path.join(os.path.dirname(program or ""), "ffmpeg.exe" if os.name == "nt" else "ffmpeg")
    found = beside if program and os.path.isfile(beside) else shutil.which("ffmpeg")
    if not found:
        raise Problem("ffmpeg was not found; install it, put it beside motionclone, or set MOTIONCLONE_FFMPEG.")
    return found


def find_program(chosen=""):
    """The `motionclone` program: the chosen one, MOTIONCLONE_PROGRAM, PATH; empty when there is none."""
    return chosen or os.environ.get("MOTIONCLONE_PROGRAM") or shutil.which("motionclone") or ""


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
    find_ffmpeg(settings.program)


def cut_command(clip, settings, out):
    """Cuts exactly the frames that the timeline shows, without loss."""
    # Half a frame early, so that rounding of timestamps never skips the first frame.
    seconds = max(Fraction(0), (clip.source_start - Fraction(1, 2)) / clip.source_rate)
    side = f"min(1,{LARGEST_SIDE}/min(iw,ih))"
    return [
        find_ffmpeg(settings.program), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "error",
        "-progress", "pipe:1", "-ss", f"{float(seconds):.6f}", "-i", "file:" + clip.path,
        "-map", "0:v:0", "-frames:v", str(clip.source_frames), "-vf", f"scale='trunc(iw*{side}/2)*2':'trunc(ih*{side}/2)*2'",
        "-c:v", "ffv1", "-fflags", "+bitexact", "-n", "file:" + out,
    ]  # fmt: skip


def clone_command(settings, reference, out):
    """Clones the motion of the cut into a folder of PNG files."""
    words = [settings.program, "clone", f"--reference={reference}", f"--prompt={settings.prompt}"]
    words += [f"--bundle={settings.bundle}"] if settings.bundle else []
    words += [f"--negative={settings.negative}"] if settings.negative else []
    return words + list(settings.options) + [f"--out={out}"]


def fit_command(clip, settings, frames, count, out):
    """Spreads `count` frames over exactly the clip's length at the timeline's rate.

    The timeline's rate keeps Resolve from rounding the length; ProRes is read by it on every system, free edition too.
    """
    rate = clip.timeline_rate
    shown = f"{rate.numerator}/{rate.denominator}"
    spread = count * rate / clip.duration
    between = f"minterpolate=fps={shown}:mi_mode=mci" if settings.smooth and spread < rate else f"fps={shown}"
    return [
        find_ffmpeg(settings.program), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "error",
        "-progress", "pipe:1", "-framerate", f"{spread.numerator}/{spread.denominator}",
        "-i", "file:" + os.path.join(frames.replace("%", "%%"), "frame_%04d.png"),
        # Frames that interpolation leaves out at the end repeat the last one.
        "-vf", f"{between},tpad=stop_mode=clone:stop={clip.duration}", "-frames:v", str(clip.duration),
        "-r", shown, "-c:v", "prores_ks", "-profile:v", "3", "-pix_fmt", "yuv422p10le", "-n", "-f", "mov", "file:" + out,
    ]  # fmt: skip


def clone(clip, settings, report, cancelled):
    """Makes the result and returns its path.

    `report(what, done)` hears the stage and its part done, 0 to 1; `cancelled` is an event that ends the work. Nothing
    but a whole result is left behind.
    """
    check(settings)
    try:
        os.makedirs(settings.folder, exist_ok=True)
        # Beside the result, so that the rename at the end stays on one disk.
        work = tempfile.mkdtemp(prefix=".motionclone-", dir=settings.folder)
    except OSError as error:
        raise Problem(f"The results folder cannot be written to: {error}.") from None
    try:
        cut, frames, fitted = (os.path.join(work, name) for name in ("cut.mkv", "frames", "fitted.mov"))
        _run(cut_command(clip, settings, cut), "cutting the clip", clip.source_frames, report, cancelled)
        _run(clone_command(settings, cut, frames), "starting", 0, report, cancelled)
        count = len([name for name in os.listdir(frames) if name.startswith("frame_")]) if os.path.isdir(frames) else 0
        if not count:
            raise Problem("motionclone ended without a result.")
        _run(fit_command(clip, settings, frames, count, fitted), "fitting the length", clip.duration, report, cancelled)
        if cancelled.is_set():
            raise Cancelled
        return _keep(fitted, settings.folder, settings.prompt)
    except OSError as error:
        raise Problem(f"The result could not be written: {error}.") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _keep(path, folder, prompt):
    """Moves a file under a new name in the folder that says what it shows; never over another."""
    words = "-".join(re.findall(r"\w+", prompt.lower())[:6])[:48] or "clone"
    number = 1
    while True:
        name = os.path.join(folder, f"{words}-{number:03}.mov")
        try:
            # Reserves the name: unlike a rename, this fails where a file is.
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            number += 1
            continue
        try:
            os.replace(path, name)
        except OSError:
            os.remove(name)
            raise
        return name


def environment():
    """The environment for other programs: Resolve's own libraries, which break them, are taken out."""
    result = dict(os.environ)
    for variable in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"):
        if variable in result:
            parts = [part for part in result[variable].split(os.pathsep) if part and "resolve" not in part.lower()]
            result[variable] = os.pathsep.join(parts)
            if not parts:
                del result[variable]
    return result


def _run(command, stage, total, report, cancelled):
    """Runs a program to its end, telling its progress; ends it when cancelled."""
    if cancelled.is_set():
        raise Cancelled
    report(stage, 0.0)
    hidden = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {}
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            encoding="utf-8", errors="replace", env=environment(), **hidden,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise Problem(f"{os.path.basename(command[0])} does not start: {error}.") from None
    errors = deque(maxlen=40)

    def read_frames():
        for line in child.stdout:
            key, _, value = line.strip().partition("=")
            if key == "frame" and value.strip().isdigit() and total:
                report(stage, min(1.0, int(value) / total))

    def read_errors():
        for line in child.stderr:
            line = line.strip()
            found = PROGRESS.match(line)
            if found:
                what = found["stage"] + (f", {found['details']}" if found["details"] else "")
                report(what, min(1.0, int(found["step"]) / max(1, int(found["total"]))))
            elif line:
                errors.append(line)

    readers = [threading.Thread(target=read, daemon=True) for read in (read_frames, read_errors)]
    for reader in readers:
        reader.start()
    try:
        while child.poll() is None:
            if cancelled.wait(0.1):
                _end(child)
                raise Cancelled
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        for reader in readers:
            reader.join(5)
        child.stdout.close()
        child.stderr.close()
    if child.returncode != 0:
        raise Problem(_reason(command[0], errors, child.returncode))


def _end(child):
    """Asks a program to end as Ctrl-C would, and makes it end if it does not."""
    if sys.platform == "win32":
        child.terminate()
    else:
        child.send_signal(signal.SIGINT)
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _reason(program, errors, code):
    """One sentence from what a program wrote before it failed."""
    said = next((line for line in reversed(errors) if line.lower().startswith("error")), None)
    said = said or (errors[-1] if errors else f"exit code {code}")
    said = re.sub(r"^error:\s*", "", said, flags=re.IGNORECASE).rstrip(".")
    return f"{os.path.splitext(os.path.basename(program))[0]} failed: {said}."
