"""A stand-in for DaVinci Resolve's scripting objects that behaves as they are known to, traps included."""

import json
import math
import os
from fractions import Fraction


class Proxy:
    """Answers `hasattr` with true for every name and gives None for unknown ones; `dir` lists the real methods."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return None

    def __dir__(self):
        return [name for name in type(self).__dict__ if name[0].isupper()]


class Media(Proxy):
    """A clip of the media pool; a subclip's `Start` is a frame of its file."""

    def __init__(self, path, fps, frames=0, **properties):
        self.path, self.fps, self.frames, self.properties = path, fps, frames, properties

    def GetClipProperty(self):
        return {"File Path": self.path, "FPS": self.fps, **self.properties}


class Item(Proxy):
    """A clip on a timeline as versions before 19 have it."""

    def __init__(self, name, media, start, duration, left_offset=0, colour=""):
        self.name, self.media, self.start, self.duration = name, media, start, duration
        self.left_offset, self.colour = left_offset, colour

    def GetName(self):
        return self.name

    def GetMediaPoolItem(self):
        return self.media

    def GetStart(self):
        return self.start

    def GetEnd(self):
        return self.start + self.duration

    def GetDuration(self):
        return self.duration

    def GetLeftOffset(self):
        return self.left_offset

    def GetClipColor(self):
        return self.colour


class NewItem(Item):
    """A clip of a version that tells frames of the file: the first, and the last, which counts or does not."""

    def __init__(self, *arguments, first=0, last=0, **named):
        super().__init__(*arguments, **named)
        self.first, self.last = first, last

    def __dir__(self):
        return [*super().__dir__(), *(name for name in Item.__dict__ if name[0].isupper())]

    def GetSourceStartFrame(self):
        return self.first

    def GetSourceEndFrame(self):
        return self.last


class Timeline(Proxy):
    def __init__(self, name="Edit", rate="25", start=90000):
        self.name, self.rate, self.start = name, rate, start
        self.tracks = [("Video 1", [])]
        self.current = None
        self.none_answers = 0
        """How many times GetCurrentVideoItem answers None, as after an edit."""
        self.deleted = []

    def GetName(self):
        return self.name

    def GetSetting(self, key):
        return {"timelineFrameRate": self.rate}.get(key, "")

    def GetStartFrame(self):
        return self.start

    def GetCurrentVideoItem(self):
        if self.none_answers > 0:
            self.none_answers -= 1
            return None
        return self.current

    def GetTrackCount(self, kind):
        return len(self.tracks) if kind == "video" else 1

    def GetTrackName(self, kind, index):
        return self.tracks[index - 1][0]

    def SetTrackName(self, kind, index, name):
        self.tracks[index - 1] = (name, self.tracks[index - 1][1])
        return True

    def AddTrack(self, kind):
        self.tracks.append((f"Video {len(self.tracks) + 1}", []))
        return True

    def DeleteTrack(self, kind, index):
        del self.tracks[index - 1]
        return True

    def GetItemListInTrack(self, kind, index):
        return list(self.tracks[index - 1][1])

    def DeleteClips(self, items):
        for _, track in self.tracks:
            for item in items:
                if item in track:
                    track.remove(item)
                    self.deleted.append(item)
        return True


class Folder(Proxy):
    def __init__(self, name):
        self.name, self.folders, self.clips = name, [], []

    def GetName(self):
        return self.name

    def GetSubFolderList(self):
        return list(self.folders)


class MediaPool(Proxy):
    def __init__(self, project):
        self.project = project
        self.root = Folder("Master")
        self.current = self.root
        self.end_is_included = True
        self.refuses_import = False

    def GetRootFolder(self):
        return self.root

    def GetCurrentFolder(self):
        return self.current

    def SetCurrentFolder(self, folder):
        self.current = folder
        return True

    def AddSubFolder(self, folder, name):
        made = Folder(name)
        folder.folders.append(made)
        return made

    def ImportMedia(self, paths):
        if self.refuses_import:
            return []
        with open(paths[0], encoding="utf-8") as file:
            made = json.load(file)
        media = Media(os.path.abspath(paths[0]), float(Fraction(made["rate"])), made["frames"])
        self.current.clips.append(media)
        return [media]

    def AppendToTimeline(self, infos):
        """Drops what would overlap or lies before the timeline, in silence; floors lengths between rates."""
        timeline = self.project.current
        items = []
        for info in infos:
            media = info["mediaPoolItem"]
            frames = info["endFrame"] - info["startFrame"] + (1 if self.end_is_included else 0)
            frames = min(frames, media.frames - info["startFrame"])
            ratio = float(timeline.rate.split()[0]) / media.fps
            # Within a thousandth the rates are the same one, shown rounded.
            duration = frames if abs(ratio - 1) < 1e-3 else math.floor(frames * ratio)
            item = Item(os.path.basename(media.path), media, info["recordFrame"], duration)
            track = timeline.tracks[info["trackIndex"] - 1][1]
            free = all(other.GetEnd() <= item.start or other.start >= item.GetEnd() for other in track)
            if free and item.start >= timeline.start and duration > 0:
                track.append(item)
            items.append(item)
        return items


class Project(Proxy):
    def __init__(self, timeline, name="Film"):
        self.name, self.current = name, timeline
        self.pool = MediaPool(self)

    def GetName(self):
        return self.name

    def GetCurrentTimeline(self):
        return self.current

    def SetCurrentTimeline(self, timeline):
        self.current = timeline
        return True

    def GetMediaPool(self):
        return self.pool


class ProjectManager(Proxy):
    def __init__(self, project):
        self.project = project

    def GetCurrentProject(self):
        return self.project


class Resolve(Proxy):
    def __init__(self, timeline=None, project=None):
        self.manager = ProjectManager(project or Project(timeline))

    def GetProjectManager(self):
        return self.manager
