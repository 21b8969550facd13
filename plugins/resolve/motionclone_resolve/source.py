"""The part of a media file that a clip on the timeline shows."""

import os
from dataclasses import dataclass
from fractions import Fraction

from .problem import Problem
from .rate import frame_rate

STILLS = (".bmp", ".dng", ".dpx", ".exr", ".jpeg", ".jpg", ".png", ".psd", ".tga", ".tif", ".tiff", ".webp")
SLACK = 2
"""Frames by which lengths may differ by rounding, and by whether Resolve counts the last frame in."""


@dataclass(frozen=True)
class Source:
    """Frames of a media file, counted from its first one at the rate that Resolve plays it at."""

    path: str
    rate: Fraction
    first: int
    frames: int

    @property
    def start(self):
        """Seconds of the file at which the part begins."""
        return self.first / self.rate

    @property
    def end(self):
        """Seconds at which it ends: in the middle of the last frame, which rounding of timestamps cannot pass."""
        return (self.first + self.frames - Fraction(1, 2)) / self.rate


def offers(thing, method):
    """True where one of Resolve's objects has a method."""
    return method in dir(thing)


def read(item, name, timeline_rate):
    """The source of a clip on the timeline; raises `Problem` where there is no such part of one file."""
    media = item.GetMediaPoolItem()
    properties = (media.GetClipProperty() if media else None) or {}
    path = properties.get("File Path") or ""
    if not os.path.isfile(path):
        raise Problem(
            f"{name!r} is not a single media file on this computer; for titles, generators, compound clips, "
            "image sequences and offline media, use Render in Place first."
        )
    if properties.get("Type") == "Still" or path.lower().endswith(STILLS):
        raise Problem(f"{name!r} is a still picture, which has no motion to clone.")
    rate = frame_rate(properties["FPS"]) if properties.get("FPS") else timeline_rate
    duration = int(item.GetDuration())
    if duration < 1:
        raise Problem(f"{name!r} has no frames.")
    shown = max(1, round(duration * rate / timeline_rate))
    first = _number(item, "GetSourceStartFrame")
    if first is None:
        # A subclip's media pool item begins later in the file.
        first = _whole(properties.get("Start")) + round(max(0, int(item.GetLeftOffset())) * rate / timeline_rate)
    return Source(path, rate, max(0, first), _length(item, name, first, shown))


def _length(item, name, first, shown):
    """Frames of the file that a clip shows, which are fewer or more than `shown` where its speed was changed."""
    last = _number(item, "GetSourceEndFrame")
    if last is None:
        return shown
    if last < first - SLACK:
        raise Problem(f"{name!r} is played backwards; use Render in Place first.")
    length = last - first + 1
    if abs(length - shown) <= SLACK:
        return shown
    if length <= SLACK:
        raise Problem(f"{name!r} is a freeze frame, which has no motion to clone.")
    # The result is spread over the clip's own length, so it moves at the changed speed.
    return length


def _number(item, method):
    """The frame number that a method of newer versions gives, or None."""
    answer = getattr(item, method)() if offers(item, method) else None
    try:
        return None if answer is None else int(float(answer))
    except (TypeError, ValueError):
        return None


def _whole(text):
    """A frame number that Resolve gives as a text; 0 where it gives none."""
    try:
        return max(0, int(str(text)))
    except ValueError:
        return 0
