"""The folder of the results: checked before the work, and never written over."""

import os
import re
import shutil
import tempfile

from .problem import Problem

SPARE = 1 << 20
"""Bytes that must be free besides a result's own size."""


def prepare(folder, size):
    """Makes the folder and a folder inside for the work, which lies beside the result so that moving it there needs
    neither time nor room; raises `Problem` where it cannot be written or has no room for `size` bytes."""
    try:
        os.makedirs(folder, exist_ok=True)
        work = tempfile.mkdtemp(prefix=".motionclone-", dir=folder)
    except OSError as error:
        raise Problem(f"The results folder cannot be written to: {error}.") from None
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        os.rmdir(work)
        raise Problem(
            f"The results folder {folder} has room for {free / 1e6:.0f} MB, and the work takes up to "
            f"{(size + SPARE) / 1e6:.0f} MB; make room or choose another folder."
        )
    return work


def keep(path, folder, prompt):
    """Moves a file or folder under a new name in the folder that says what it shows, never over another; its path."""
    words = "-".join(re.findall(r"\w+", prompt.lower())[:6])[:48] or "clone"
    is_folder = os.path.isdir(path)
    ending = "" if is_folder else os.path.splitext(path)[1]
    number = 1
    while True:
        name = os.path.join(folder, f"{words}-{number:03}{ending}")
        try:
            # Reserves the name: unlike a rename, this fails where something is.
            os.mkdir(name) if is_folder else os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            number += 1
            continue
        try:
            if is_folder and os.name == "nt":
                os.rmdir(name)  # There a folder is not moved over an empty one.
            os.replace(path, name)
        except OSError:
            if os.path.lexists(name):
                (os.rmdir if is_folder else os.remove)(name)
            raise
        return name
