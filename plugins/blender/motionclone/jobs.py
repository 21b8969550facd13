"""From strips to jobs and back: requests are made here, and `tick` turns what the library has done into strips.

Only for Blender's main thread; what works elsewhere is in `session`.
"""

import json
import re
from pathlib import Path

import bpy
import bpy.utils.previews

from . import properties, strips
from .library import Images
from .session import Request, Session

INTERVAL = 0.25
# What is kept of a job's settings at a strip, besides the size and the reference.
KEPT = (
    "prompt", "negative_prompt", "mode", "image_strip", "image_scale", "seed", "strength", "quality", "steps", "frames",
    "timing",
)  # fmt: skip

session = None
icons = None
test_lines = []


def open_session():
    """The session, and the timer that looks after it."""
    global session
    if session is None:
        session = Session()
    if not bpy.app.timers.is_registered(tick):
        bpy.app.timers.register(tick, first_interval=INTERVAL, persistent=True)
    return session


def close_session():
    """Ends everything, waiting no longer than a step."""
    global session, icons
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)
    if session is not None:
        session.close()
        session = None
    if icons is not None:
        bpy.utils.previews.remove(icons)
        icons = None
    test_lines.clear()


def values_of(settings):
    """The panel's settings as plain values, which a strip can keep."""
    values = {name: getattr(settings, name) for name in KEPT}
    if settings.prompt_text:
        values["prompt"] = " ".join(settings.prompt_text.as_string().split())
    values["image"] = settings.image.name if settings.image else ""
    values["side"] = settings.side
    return values


def results_folder(settings):
    if settings.folder:
        if settings.folder.startswith("//") and not bpy.data.filepath:
            raise strips.StripError("Save the file first: the results' folder lies beside it.")
        return Path(bpy.path.abspath(settings.folder))
    if not bpy.data.filepath:
        raise strips.StripError("Save the file first, or choose a folder for the results: they go beside the file.")
    return Path(bpy.data.filepath).parent / "motionclone"


def _condition(scene, values, size):
    """The picture or sketch of a job, at its first frame."""
    if values["mode"] == "TEXT":
        return None
    what = values["mode"].lower()
    if values["image_strip"]:
        strip = strips.find(scene, values["image_strip"])
        if strip is None:
            raise strips.StripError(f"There is no strip named {values['image_strip']} for the {what}.")
        number = min(max(scene.frame_current, strips.start(strip)), strips.end(strip) - 1)
        clip = strips.frames(scene, strip, [number], size)
    else:
        image = bpy.data.images.get(values["image"]) if values["image"] else None
        if image is None:
            raise strips.StripError(f"Choose an image or a strip for the {what}.")
        clip = strips.image_clip(image)
    return Images(values["mode"], values["image_scale"], [(clip, 0)])


def _library_values(values, size):
    chosen = {name: values[name] for name in ("prompt", "seed", "strength", "frames")}
    chosen["width"], chosen["height"] = size
    if values["negative_prompt"]:
        chosen["negative_prompt"] = values["negative_prompt"]
    if values["quality"] == "CUSTOM":
        chosen["steps"] = values["steps"]
    return chosen


def _file_name(text):
    return re.sub(r"[^\w-]+", "-", text).strip("-")[:40] or "clone"


def clone(context, strip, values, step=lambda done: None, motion=""):
    """Queues a clone of a strip's motion, or of a motion from the library at a strip's place."""
    scene = strips.sequencer_scene(context)
    folder = results_folder(scene.motionclone)
    place = strips.rectangle(scene, strip)
    size = strips.fitting_size(place[0], place[1], values["side"])
    first, behind = strips.start(strip), strips.end(strip)
    clip = None
    if not motion:
        clip = strips.frames(scene, strip, strips.spread(first, behind - 1, values["frames"]), size, step)
    info = {
        "file": bpy.data.filepath, "scene": scene.name, "reference": strip.name, "start": first,
        "length": behind - first, "channel": strip.channel, "place": place, "values": dict(values), "motion": motion,
    }  # fmt: skip
    title = values["prompt"] or strip.name
    request = Request(
        "CLONE", title, _library_values(values, size), values["quality"], clip, motion,
        _condition(scene, values, size), folder, _file_name(f"{strip.name}-{values['seed']}"), info,
    )  # fmt: skip
    return open_session().add(request, properties.place(context))


def extract(context, strip, values, name, step=lambda done: None):
    """Queues reading a strip's motion into the motion library."""
    scene = strips.sequencer_scene(context)
    place = strips.rectangle(scene, strip)
    size = strips.fitting_size(place[0], place[1], values["side"])
    numbers = strips.spread(strips.start(strip), strips.end(strip) - 1, values["frames"])
    clip = strips.frames(scene, strip, numbers, size, step)
    request = Request(
        "EXTRACT", name, _library_values(values, size), values["quality"], clip, "", None,
        properties.motions_folder(context), _file_name(name), {"thumbnail": strips.thumbnail(clip)},
    )  # fmt: skip
    return open_session().add(request, properties.place(context))


def motions(context):
    """The motions of the library: folder, and what its about.json says."""
    found = []
    folder = properties.motions_folder(context)
    if folder.is_dir():
        for about in sorted(folder.glob("[!.]*/about.json")):
            try:
                known = json.loads(about.read_text(encoding="utf-8"))
                text = f"{known['name']} ({known['width']}x{known['height']}, {known['frames']} frames)"
            except (OSError, ValueError, KeyError, TypeError):
                continue  # Not one of ours.
            found.append((about.parent, text))
    return found


def tick():
    """Brings jobs, panel and strips up to date; Blender's timer calls it. Gives the seconds to the next call, or None
    when there is nothing to do."""
    if session is None:
        return None
    for job in session.poll():
        if job.state == "DONE" and job.request.kind == "CLONE":
            try:
                _add_strip(job)
            except (strips.StripError, RuntimeError) as error:
                job.state, job.message = "FAILED", str(error)
    _redraw()
    return INTERVAL if session.busy else None


def _add_strip(job):
    info, used = job.request.info, job.used
    scene = bpy.data.scenes.get(info["scene"])
    if bpy.data.filepath != info["file"] or scene is None:
        raise strips.StripError(f"Another file is open now; the new clip is in {job.files[0].parent}.")
    scene.sequence_editor_create()
    reference = strips.find(scene, info["reference"])
    at, channel = info["start"], info["channel"]
    if reference is not None:
        at, channel = strips.start(reference), reference.channel
    values = info["values"]
    frames = len(job.files)
    duration = max(frames, info["length"]) if values["timing"] == "REFERENCE" else frames
    kept = {**values, "reference": info["reference"], "motion": info["motion"]}
    kept.update({name: used[name] for name in ("width", "height", "frames", "steps", "motion_weight")})
    strip = strips.add_frames(
        scene, f"{info['reference']} clone", job.files, at, channel, duration, info["place"], kept
    )
    job.message = f"Done: {strip.name} on channel {strip.channel}"
    if bpy.ops.ed.undo_push.poll():
        bpy.ops.ed.undo_push(message="Add motion clone")


def preview_icon(job):
    """The icon of a job's live preview, or 0."""
    global icons
    clip = job.preview
    if clip is None:
        return 0
    if icons is None:
        icons = bpy.utils.previews.new()
    key = f"{id(job)}"
    icon = icons[key] if key in icons else icons.new(key)
    # Drawn again only when the library has a new one.
    if getattr(job, "drawn", 0) != job.previews:
        job.drawn = job.previews
        rgb = clip.frame(clip.count // 2)
        row = clip.width * 3
        rows = [rgb[y * row : y * row + row] for y in reversed(range(clip.height))]
        flat = b"".join(rows)
        icon.image_size = (clip.width, clip.height)
        icon.image_pixels_float = [
            v for i in range(0, len(flat), 3) for v in (flat[i] / 255, flat[i + 1] / 255, flat[i + 2] / 255, 1.0)
        ]
    return icon.icon_id


def motion_icon(folder):
    """The icon of a motion's thumbnail, or 0."""
    global icons
    file = folder / "thumbnail.png"
    if not file.is_file():
        return 0
    if icons is None:
        icons = bpy.utils.previews.new()
    key = str(file)
    return (icons[key] if key in icons else icons.load(key, key, "IMAGE")).icon_id


def _redraw():
    for manager in bpy.data.window_managers:
        for window in manager.windows:
            for area in window.screen.areas:
                if area.type in ("SEQUENCE_EDITOR", "PREFERENCES"):
                    area.tag_redraw()
