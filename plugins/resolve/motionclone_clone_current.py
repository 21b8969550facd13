"""Clone motion of current clip: the entry for Workspace > Scripts in DaVinci Resolve."""

import os
import sys

# The installer writes the installed folder here, because Resolve does not tell a script where it lies.
MODULES = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, MODULES)

from motionclone_resolve.menu import main  # noqa: E402


def find_resolve():
    """Resolve's scripting object: given to scripts from its menu, else asked for (Studio only); None without."""
    given = globals().get("resolve")
    if given:
        return given
    try:
        import DaVinciResolveScript
    except ImportError:
        return None
    return DaVinciResolveScript.scriptapp("Resolve")


if __name__ in ("__main__", "__builtin__", "builtins"):
    main(find_resolve(), dry_run="--dry-run" in getattr(sys, "argv", []))
