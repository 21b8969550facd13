"""Lines for Resolve's console."""

import sys
import traceback


def say(text):
    """Writes a line. The console is advisory: one that is closed, full or knows no such letters ends no work."""
    try:
        print(text, flush=True)
    except (OSError, ValueError):
        pass


def trace():
    """Writes the exception at hand, for whoever looks into it."""
    say("".join(traceback.format_exception(*sys.exc_info())))
