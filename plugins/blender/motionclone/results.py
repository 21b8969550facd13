"""Folders of results: checked before the work, filled whole or not at all, and never over what is there.

Nothing here knows of Blender.
"""

import os
import shutil
import uuid
from pathlib import Path

# Room that is left on the disk besides a result's own size.
SPARE = 1 << 20


class ResultsError(OSError):
    """A folder that cannot take a result, in a sentence for the user."""


def check(folder, size=0):
    """Raises `ResultsError` where a folder cannot take `size` bytes. Tried, not asked: permissions say nothing of a disk
    that is read-only, or of a network drive. Leaves nothing behind, the folder itself included."""
    folder = Path(folder)
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise ResultsError(f"The results folder {folder} cannot be made: {existing} is no folder.")
    try:
        _unfinished(existing).rmdir()
        free = shutil.disk_usage(existing).free
    except OSError as error:
        raise ResultsError(f"The results folder {folder} cannot be written to: {reason(error)}.") from error
    if free < size + SPARE:
        raise ResultsError(
            f"The results folder {folder} has room for {free / 1e6:.0f} MB, and the result takes up to "
            f"{(size + SPARE) / 1e6:.0f} MB: make room, or choose another folder."
        )


def write(folder, name, parts):
    """Writes `parts`, pairs of a file's name and a function that writes a path, into a folder of their own in `folder`;
    gives the files."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(folder)
    try:
        names = []
        for part, save in parts:
            save(unfinished / part)
            names.append(part)
        made = claim(folder, name, unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return [made / part for part in names]


def claim(parent, name, unfinished):
    """Renames a finished folder to `name`, with a number behind it that no other file or folder has."""
    for number in range(1, 10000):
        folder = parent / f"{name}-{number:03}"
        try:
            # Reserves the name, which a rename alone would take from an empty folder of somebody else.
            folder.mkdir()
        except FileExistsError:
            continue
        try:
            if os.name == "nt":
                folder.rmdir()  # There a rename takes no name that is in use.
            os.rename(unfinished, folder)
        except BaseException:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
            raise
        return folder
    raise ResultsError(f"{parent} has too many results of the name {name}: choose another folder.")


def reason(error):
    """The system's message of an error, without its number and path."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error).rstrip(".")


def _unfinished(folder):
    made = folder / f".unfinished-{uuid.uuid4().hex}"
    made.mkdir()
    return made
