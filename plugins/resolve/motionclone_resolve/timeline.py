"""The part of Resolve's scripting interface that is used here, with its traps.

- Methods are looked up with `dir()`: `hasattr` is true for every name on Resolve's objects.
- `GetCurrentVideoItem` answers None for a while after an edit, so it is asked several times.
- `AppendToTimeline` drops a clip that would overlap another without saying so, and counts `endFrame` in or out
  depending on the version, so where and how long the clip lies is read back.
- `recordFrame` and `GetStart` both count from the timeline's start frame (90000 for 01:00:00:00 at 25 frames a second).
- `GetLeftOffset`, `GetDuration` and `GetStart` count frames of the timeline, whatever the rate of the media;
  `GetSourceStartFrame` counts those of the file, which is the only one to know of subclips (`source`).

All calls must come from the thread that Resolve started the script on.
"""

import time
from dataclasses import dataclass
from fractions import Fraction

from . import source
from .problem import Problem
from .rate import frame_rate
from .source import Source, offers

BIN = "Motion clones"
TRACK = "Motion clones"
VIDEO_ONLY = 1


@dataclass(frozen=True)
class Clip:
    """A video clip on the timeline, as it was when it was read."""

    item: object
    name: str
    start: int
    """Absolute timeline frame of its first frame."""
    duration: int
    """Its length in timeline frames."""
    timeline_rate: Fraction
    source: Source
    """The part of its media file that it shows."""

    @property
    def end(self):
        """Absolute timeline frame after its last."""
        return self.start + self.duration


class Timeline:
    """The timeline that was current when the script was started."""

    def __init__(self, resolve, attempts=25, wait=0.2):
        """Takes the current timeline; asks `attempts` times for the clip under the playhead, `wait` seconds apart."""
        manager = resolve.GetProjectManager() if resolve else None
        self._manager = manager
        self._project = manager.GetCurrentProject() if manager else None
        if not self._project:
            raise Problem("No project is open in Resolve; open one and start the script again.")
        self._timeline = self._project.GetCurrentTimeline()
        if not self._timeline:
            raise Problem("No timeline is open; open one, put the playhead on a clip and start the script again.")
        self._project_name = self._project.GetName()
        self._name = self._timeline.GetName()
        self._attempts, self._wait = attempts, wait
        self.rate = frame_rate(self._timeline.GetSetting("timelineFrameRate"))

    def current_clip(self):
        """The clip under the playhead."""
        for attempt in range(self._attempts):
            item = self._timeline.GetCurrentVideoItem()
            if item:
                return self._read(item)
            if attempt + 1 < self._attempts:
                time.sleep(self._wait)
        raise Problem("There is no video clip under the playhead; put it on a clip and start the script again.")

    def colour_of(self, clip):
        """The clip colour that the user gave a clip, empty when none."""
        return (clip.item.GetClipColor() or "") if offers(clip.item, "GetClipColor") else ""

    def clips_of_colour(self, colour):
        """All clips with a clip colour, in the order of the timeline, and a sentence for each that cannot be cloned."""
        clips, skipped = [], []
        for track in range(1, int(self._timeline.GetTrackCount("video")) + 1):
            for item in self._timeline.GetItemListInTrack("video", track) or []:
                if not offers(item, "GetClipColor") or item.GetClipColor() != colour:
                    continue
                try:
                    clips.append(self._read(item))
                except Problem as problem:
                    skipped.append(str(problem))
        return sorted(clips, key=lambda clip: clip.start), skipped

    def _read(self, item):
        name = item.GetName() or "clip"
        shown = source.read(item, name, self.rate)
        return Clip(item, name, int(item.GetStart()), int(item.GetDuration()), self.rate, shown)

    def add(self, clip, path):
        """Imports a file of exactly `clip.duration` timeline frames and puts it over the clip; the track's number.

        The timeline's other clips are not touched. When the file cannot be placed, it stays in the bin.
        """
        project = self._manager.GetCurrentProject()
        if not project or project.GetName() != self._project_name:
            raise Problem(f"Another project was opened meanwhile; the result is kept in {path}.")
        media = self._import(path)
        other = project.GetCurrentTimeline()
        switch = not other or other.GetName() != self._name
        if switch and not project.SetCurrentTimeline(self._timeline):
            raise Problem(f"The timeline {self._name!r} is gone; the result is in the bin {BIN!r}.")
        try:
            return self._place(clip, media)
        finally:
            if switch and other:
                project.SetCurrentTimeline(other)

    def _import(self, path):
        pool = self._project.GetMediaPool()
        before = pool.GetCurrentFolder()
        root = pool.GetRootFolder()
        folder = next((f for f in root.GetSubFolderList() or [] if f.GetName() == BIN), None)
        folder = folder or pool.AddSubFolder(root, BIN)
        if not folder or not pool.SetCurrentFolder(folder):
            raise Problem(f"Resolve did not make the bin {BIN!r}; the result is kept in {path}.")
        try:
            imported = pool.ImportMedia([path]) or []
        finally:
            if before:
                pool.SetCurrentFolder(before)
        if not imported or not imported[0]:
            raise Problem(f"Resolve did not import the result; it is kept in {path}.")
        return imported[0]

    def _place(self, clip, media):
        start, duration = int(clip.item.GetStart() or 0), int(clip.item.GetDuration() or 0)
        if duration != clip.duration:
            raise Problem(f"{clip.name!r} was trimmed or removed meanwhile; the result is in the bin {BIN!r}.")
        track, added = self._track(start, start + duration)
        # Whether endFrame is part of the clip differs between versions, so the length decides.
        length = 0
        for end in (duration - 1, duration):
            item = self._append(media, end, track, start)
            if item is None:
                continue
            length = int(item.GetDuration())
            if length == duration and int(item.GetStart()) == start:
                return track
            self._timeline.DeleteClips([item])
        if added and offers(self._timeline, "DeleteTrack"):
            self._timeline.DeleteTrack("video", track)
        why = f"it came out {length} instead of {duration} frames long" if length else "Resolve dropped it"
        raise Problem(f"The result for {clip.name!r} could not be placed: {why}; it is in the bin {BIN!r}.")

    def _append(self, media, end, track, start):
        self._project.GetMediaPool().AppendToTimeline([{
            "mediaPoolItem": media,
            "startFrame": 0,
            "endFrame": end,
            "mediaType": VIDEO_ONLY,
            "trackIndex": track,
            "recordFrame": start,
        }])
        # What lies on the track decides, not what the call answers: it answers a list for dropped clips too.
        items = self._timeline.GetItemListInTrack("video", track) or []
        return next((item for item in items if int(item.GetStart()) == start), None)

    def _track(self, start, end):
        """The topmost track if it is one for results and free from `start` to `end`, else a new one on top."""
        count = int(self._timeline.GetTrackCount("video"))
        if count and self._timeline.GetTrackName("video", count) == TRACK:
            items = self._timeline.GetItemListInTrack("video", count) or []
            if all(item.GetEnd() <= start or item.GetStart() >= end for item in items):
                return count, False
        if not self._timeline.AddTrack("video") or int(self._timeline.GetTrackCount("video")) != count + 1:
            raise Problem(f"Resolve did not add a video track; the result is in the bin {BIN!r}.")
        self._timeline.SetTrackName("video", count + 1, TRACK)
        return count + 1, True
