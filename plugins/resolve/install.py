#!/usr/bin/env python3
"""Puts the script into DaVinci Resolve's menu for the current user, on Linux, macOS and Windows, or takes it out."""

import argparse
import os
import re
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from motionclone_resolve.preferences import data_folder  # noqa: E402

PACKAGE = "motionclone_resolve"
MENU_ENTRY = "Clone motion of current clip.py"
LIST = "installed.txt"
"""The file that lists what `install` wrote beside it."""


def scripts_folder(system=sys.platform, variables=None, home=None):
    """Where Resolve looks for the user's scripts; `Utility` shows on every page."""
    variables = os.environ if variables is None else variables
    home = home or os.path.expanduser("~")
    if system == "win32":
        roaming = variables.get("APPDATA") or os.path.join(home, "AppData", "Roaming")
        parts = [roaming, "Blackmagic Design", "DaVinci Resolve", "Support", "Fusion"]
    elif system == "darwin":
        parts = [home, "Library", "Application Support", "Blackmagic Design", "DaVinci Resolve", "Fusion"]
    else:
        parts = [home, ".local", "share", "DaVinciResolve", "Fusion"]
    return os.path.join(*parts, "Scripts", "Utility")


def entry(modules):
    """The text of the menu entry, which knows where its modules are."""
    with open(os.path.join(HERE, "motionclone_clone_current.py"), encoding="utf-8") as file:
        text = file.read()
    text, count = re.subn(r"^MODULES = .*$", lambda _: f"MODULES = {modules!r}", text, flags=re.MULTILINE)
    if count != 1:
        raise SystemExit("motionclone_clone_current.py has no line MODULES = …; get the files anew.")
    return text


def install(scripts, modules, dry_run):
    """Copies the modules outside the menu's folder, where they would show as scripts, and writes the menu entry."""
    package, menu = os.path.join(modules, PACKAGE), os.path.join(scripts, MENU_ENTRY)
    text = entry(modules)
    if os.path.lexists(menu) and not is_ours(menu):
        raise SystemExit(f"error: {menu} is a file of somebody else's; move it away first.")
    source = os.path.join(HERE, PACKAGE)
    files = sorted(name for name in os.listdir(source) if name.endswith((".py", ".html")))
    foreign = [name for name in files if os.path.lexists(os.path.join(package, name)) and name not in installed(package)]
    if foreign:
        raise SystemExit(f"error: {package} has files that were not installed ({', '.join(foreign)}); move them away first.")
    print(f"{'would write' if dry_run else 'writing'} {package}")
    print(f"{'would write' if dry_run else 'writing'} {menu}")
    if dry_run:
        return
    remove(package)
    os.makedirs(scripts, exist_ok=True)
    os.makedirs(package, exist_ok=True)
    # First the list: what a copy that breaks off leaves behind is known, too.
    with open(os.path.join(package, LIST), "w", encoding="utf-8") as file:
        file.write("".join(f"{name}\n" for name in files))
    for name in files:
        shutil.copyfile(os.path.join(source, name), os.path.join(package, name))
    with open(menu, "w", encoding="utf-8") as file:
        file.write(text)
    print("In Resolve: Workspace > Scripts > Clone motion of current clip. Start Resolve anew if it is not there.")


def is_ours(menu):
    """True for a menu entry that was written by `install`."""
    try:
        with open(menu, encoding="utf-8") as file:
            return f"from {PACKAGE}.menu import main" in file.read()
    except (OSError, ValueError):
        return False


def installed(package):
    """Names of the files that `install` wrote into a folder."""
    try:
        with open(os.path.join(package, LIST), encoding="utf-8") as file:
            return [name for name in file.read().splitlines() if os.path.basename(name) == name]
    except (OSError, ValueError):
        return []


def remove(package):
    """Removes the files that `install` wrote, what Python made of them, and the folder where nothing else is in it."""
    names = installed(package)
    if not names:
        return
    shutil.rmtree(os.path.join(package, "__pycache__"), ignore_errors=True)
    for name in [*names, LIST]:
        if os.path.lexists(os.path.join(package, name)):
            os.remove(os.path.join(package, name))
    if not os.listdir(package):
        os.rmdir(package)


def uninstall(scripts, modules, dry_run):
    """Removes what `install` wrote; results and remembered choices stay."""
    package, menu = os.path.join(modules, PACKAGE), os.path.join(scripts, MENU_ENTRY)
    found = [path for path in (menu, package) if (is_ours(path) if path == menu else installed(path))]
    for path in found:
        print(f"{'would remove' if dry_run else 'removing'} {path}")
        if not dry_run:
            os.remove(path) if path == menu else remove(path)
    if not found:
        print("nothing is installed")


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uninstall", action="store_true", help="remove it")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
    arguments = parser.parse_args(words)
    modules = os.path.join(data_folder(), "resolve")
    (uninstall if arguments.uninstall else install)(scripts_folder(), modules, arguments.dry_run)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"error: {error}")
