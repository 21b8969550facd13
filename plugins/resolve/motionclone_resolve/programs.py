"""Other programs: finding ffmpeg and `motionclone`, and running them with progress until they end or are cancelled."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque

from .console import trace
from .problem import Cancelled, Problem

PATIENCE = 20
"""Seconds a cancelled program has to end by itself."""
HIDDEN = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {}


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


def check_encoder(ffmpeg, encoder):
    """Complains of an ffmpeg that does not run, or that was built without an encoder."""
    try:
        answer = subprocess.run(
            [ffmpeg, "-hide_banner", "-encoders"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            encoding="utf-8", errors="replace", env=environment(), timeout=60, check=True, **HIDDEN,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it did not list its encoders"
        raise Problem(f"ffmpeg at {ffmpeg} does not run: {reason}.") from None
    if encoder not in answer.stdout.split():
        raise Problem(f"ffmpeg at {ffmpeg} has no encoder {encoder}; install a complete ffmpeg.")


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


def run(command, read_line, cancelled):
    """Runs a program to its end; ends it when cancelled. `read_line` is called, on another thread, with each line of its
    output; what it answers is taken as the reason, should the program fail."""
    if cancelled.is_set():
        raise Cancelled
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            encoding="utf-8", errors="replace", env=environment(), **HIDDEN,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise Problem(f"{os.path.basename(command[0])} does not start: {error}.") from None
    errors, reasons = deque(maxlen=40), deque(maxlen=1)

    def read_output():
        for line in child.stdout:
            try:
                reason = read_line(line.strip())
            except Exception:  # Progress is advisory, and a program whose output nobody reads would stand still.
                trace()
                continue
            if reason:
                reasons.append(reason)

    def read_errors():
        errors.extend(line.strip() for line in child.stderr if line.strip())

    readers = [threading.Thread(target=read, daemon=True) for read in (read_output, read_errors)]
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
        raise Problem(_sentence(command[0], reasons or errors, child.returncode))


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


def _sentence(program, lines, code):
    """One sentence from what a program wrote before it failed."""
    said = next((line for line in reversed(lines) if line.lower().startswith("error")), None)
    said = said or (lines[-1] if lines else f"exit code {code}")
    said = re.sub(r"^error:\s*", "", said, flags=re.IGNORECASE).rstrip(".")
    return f"{os.path.splitext(os.path.basename(program))[0]} failed: {said}."
