"""Choices that are remembered between runs, and their file."""

import json
import os
import sys
import tempfile

from .console import say
from .job import QUALITIES
from .programs import find_program

DEFAULTS = {
    "program": "",
    "bundle": "",
    "folder": "",
    "prompt": "",
    "negative": "",
    "quality": "standard",
    "strength": "",
    "seed": "",
    "size": "",
    "frames": "",
    "smooth": True,
}


def data_folder(system=sys.platform, variables=None, home=None):
    """The user's folder for data of this program."""
    variables = os.environ if variables is None else variables
    home = home or os.path.expanduser("~")
    if system == "win32":
        base = variables.get("APPDATA") or os.path.join(home, "AppData", "Roaming")
    elif system == "darwin":
        base = os.path.join(home, "Library", "Application Support")
    else:
        base = variables.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    return os.path.join(base, "motionclone")


def _file():
    return os.path.join(data_folder(), "resolve.json")


def load():
    """The remembered choices over the defaults; anything unreadable counts as not remembered."""
    choices = dict(DEFAULTS)
    try:
        with open(_file(), encoding="utf-8") as file:
            kept = json.load(file)
    except (OSError, ValueError):
        kept = {}
    for key, default in DEFAULTS.items():
        if isinstance(kept, dict) and isinstance(kept.get(key), type(default)):
            choices[key] = kept[key]
    if choices["quality"] not in QUALITIES:
        choices["quality"] = DEFAULTS["quality"]
    choices["program"] = find_program(choices["program"])
    choices["folder"] = choices["folder"] or os.path.join(os.path.expanduser("~"), "Motion clones")
    return choices


def save(choices):
    """Remembers choices. A folder that cannot be written to is no reason to fail."""
    try:
        os.makedirs(data_folder(), exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=data_folder(), suffix=".json")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({key: choices[key] for key in DEFAULTS if key in choices}, file, indent=1)
        os.replace(temporary, _file())
    except OSError as error:
        say(f"motionclone: the choices are not remembered: {error}")
