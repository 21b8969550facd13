"""One run of the script: which clips, what would happen, and doing it."""

import os
import random
import re

from . import clone
from .console import trace
from .problem import Cancelled, Problem
from .timeline import BIN

QUALITIES = ("draft", "standard", "best")
"""Those of the engine, from the fastest to the best."""


def settings_from(choices):
    """Settings from what the form sends; raises [`Problem`] for what cannot be."""
    quality = choices.get("quality")
    if quality not in QUALITIES:
        raise Problem(f"The quality {quality!r} is unknown; choose one of {', '.join(QUALITIES)}.")
    given = lambda key: str(choices.get(key) or "").strip()
    # What is left empty is the model's own. Which values the model takes, the program says before its work.
    options = {"quality": quality, "seed": random.SystemRandom().randrange(2**31)}
    if given("strength"):
        options["strength"] = f"{_number(choices, 'strength', 'motion strength', 0, 1000, float):g}"
    if given("frames"):
        options["frames"] = _number(choices, "frames", "number of frames", 2, 1000, int)
    if given("seed"):
        options["seed"] = _number(choices, "seed", "seed", 0, 2**64 - 1, int)
    if size := given("size").lower():
        if not re.fullmatch(r"\d{2,4}x\d{2,4}", size):
            raise Problem(f"The size is {size!r}; it must be width x height in pixels, such as 512x512.")
        options["size"] = size
    return clone.Settings(
        program=_text(choices, "program"),
        bundle=_text(choices, "bundle"),
        folder=os.path.expanduser(_text(choices, "folder")),
        prompt=_text(choices, "prompt"),
        negative=_text(choices, "negative"),
        options=tuple(f"--{name}={value}" for name, value in options.items()),
        smooth=bool(choices.get("smooth")),
    )


def _text(choices, key):
    text = str(choices.get(key) or "").strip()
    if "\0" in text:
        raise Problem(f"The {key} holds a null character.")
    return text


def _number(choices, key, name, least, most, kind):
    text = str(choices.get(key, "")).strip()
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        raise Problem(f"The {name} is {text!r}; it must be a number from {least} to {most}.")
    return number


class Job:
    """The clips that the user can choose from."""

    def __init__(self, timeline):
        """Reads the clip under the playhead, and those of its colour where it has one."""
        self.timeline = timeline
        self.current = timeline.current_clip()
        self.colour = timeline.colour_of(self.current)
        self.coloured, self.skipped = timeline.clips_of_colour(self.colour) if self.colour else ([], [])

    def clips(self, scope):
        """The clips for a scope: `clip`, the one under the playhead, or `colour`, all of its colour."""
        if scope == "clip":
            return [self.current]
        if scope == "colour" and self.coloured:
            return self.coloured
        raise Problem("The clip under the playhead has no clip colour; give those to clone the same one.")

    def plan(self, scope, settings):
        """The steps of a run, a line each. Nothing is changed."""
        clone.check(settings)
        lines = []
        for clip in self.clips(scope):
            shown = clip.source
            lines += [
                f"{clip.name}: clone the motion of frames {shown.first} to {shown.first + shown.frames - 1} of {shown.path}",
                "    " + _shown(clone.clone_command(clip, settings, "frames")),
                f"{clip.name}: import the result, {clip.duration} frames long, into the bin {BIN!r}, and put it on a "
                f"video track above, at frame {clip.start}",
            ]
        return lines + ([f"left out: {why}" for why in self.skipped] if scope == "colour" else [])

    def run(self, scope, settings, report, cancelled):
        """Clones clip after clip; returns what was done, a sentence each, and the problems, a sentence each.

        One clip's problem does not keep the others from being cloned. Cancelling keeps what is already done.
        """
        clips = self.clips(scope)
        done, problems = [], list(self.skipped) if scope == "colour" else []
        for number, clip in enumerate(clips):
            def share(what, part, number=number, clip=clip):
                prefix = f"{clip.name} ({number + 1} of {len(clips)}): " if len(clips) > 1 else ""
                report(prefix + what, part)

            try:
                path = clone.clone(clip, settings, share, cancelled)
                done.append(f"{clip.name}: on video track {self._add(clip, path)}, kept as {path}")
            except Cancelled:
                raise Cancelled("; ".join(done)) from None
            except Problem as problem:
                problems.append(str(problem))
        return done, problems


    def _add(self, clip, path):
        try:
            return self.timeline.add(clip, path)
        except Problem:
            raise
        except Exception as error:  # Resolve's objects raise whatever they like.
            trace()
            raise Problem(
                f"The result for {clip.name!r} could not be placed: Resolve did not answer as expected ({error}); it is "
                f"kept in {path}."
            ) from None


def _shown(command):
    return " ".join(f'"{word}"' if " " in word or not word else word for word in command)
