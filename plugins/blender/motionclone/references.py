"""References to strips that last while the user goes on working: through Save As, renaming, undo and redo.

A scene is known by Blender's number for it in this session, a strip by a mark that it carries as a custom property.
Neither changes with names or file paths. Only for Blender's main thread.
"""

import uuid

import bpy

from . import strips

# The custom property of a strip that holds its mark.
MARK = "motionclone_id"


class Gone(strips.StripError):
    """The scene or strip is not there any more."""


class StripReference:
    """A strip of a scene's top level."""

    def __init__(self, scene, strip):
        self._scene = scene.session_uid
        self._names, self._source = [strip.name], _source(strip)
        if strip.get(MARK):
            # A copy of a strip has its mark, too.
            for other in strips.collection(scene.sequence_editor):
                if other != strip and other.get(MARK) == strip[MARK]:
                    del other[MARK]
        else:
            strip[MARK] = uuid.uuid4().hex
        self.mark = strip[MARK]

    @property
    def name(self):
        """The name that the strip had last."""
        return self._names[-1]

    def scene(self):
        """The scene, or None."""
        return next((scene for scene in bpy.data.scenes if scene.session_uid == self._scene), None)

    def find(self):
        """The strip, or None. Called now and then, it notices new names."""
        scene = self.scene()
        if scene is None or scene.sequence_editor is None:
            return None
        top = strips.collection(scene.sequence_editor)
        marked = [strip for strip in top if strip.get(MARK) == self.mark]
        found = next((strip for strip in marked if strip.name == self.name), marked[0] if marked else None)
        for copy in marked:
            if copy != found:
                del copy[MARK]
        if found is None:
            # An undo may have taken the mark away.
            named = (top.get(name) for name in reversed(self._names))
            found = next((s for s in named if s and not s.get(MARK) and _source(s) == self._source), None)
            if found is not None:
                found[MARK] = self.mark
        if found is not None and found.name != self.name:
            self._names.append(found.name)
        return found

    def get(self):
        """The scene and the strip; raises `Gone` where one is missing."""
        scene, strip = self.scene(), self.find()
        if scene is None:
            raise Gone("The scene is gone: another file is open now, or it was removed.")
        if strip is None:
            raise Gone(f"The strip {self.name} was removed, or moved into a meta strip.")
        return scene, strip


def marked(scene, mark, name):
    """The strip with a mark, else the one of a name, or None."""
    if scene is None or scene.sequence_editor is None:
        return None
    top = strips.collection(scene.sequence_editor)
    found = [strip for strip in top if mark and strip.get(MARK) == mark]
    return next((strip for strip in found if strip.name == name), found[0] if found else top.get(name))


def _source(strip):
    """The kind of a strip and what it shows, to tell it from another one of its name."""
    path = getattr(strip, "filepath", "") or getattr(strip, "directory", "")
    return strip.type, path, strip.elements[0].filename if strip.type == "IMAGE" and len(strip.elements) else ""
