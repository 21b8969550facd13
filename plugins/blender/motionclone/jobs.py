"""From strips to jobs and back: requests are made here, and `tick` takes frames and turns what the library has done into
strips.

Only for Blender's main thread; what works elsewhere is in `session`. That and ctypes behind it are imported when they
are first needed: Blender's start does not wait for them.
"""

import re
from pathlib import Path

import bpy

from . import properties, strips

INTERVAL = 0.25
# What is kept of a job's settings at a strip, besides the image and the reference.
KEPT = (
    "prompt", "negative_prompt", "mode", "image_strip", "image_scale", "seed", "strength", "quality", "steps", "size",
    "side", "frames", "timing",
)  # fmt: skip

session = None
icons = None


def open_session():
    """The session, and the timer that looks after it."""
    global session
    if session is None:
        from .session import Session

        session = Session()
    if not bpy.app.timers.is_registered(tick):
        bpy.app.timers.register(tick, first_interval=0, persistent=True)
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
        from bpy.utils import previews

        previews.remove(icons)
        icons = None


def values_of(scene):
    """The panel's settings as plain values, which a strip can keep."""
    settings = scene.motionclone
    values = {name: getattr(settings, name) for name in KEPT}
    for name in ("prompt", "negative_prompt"):
        text = getattr(settings, f"{name}_text")
        if text:
            values[name] = " ".join(text.as_string().split())
    values["image"] = settings.image.name if settings.image else ""
    # The frame of the condition's strip.
    values["image_frame"] = scene.frame_current
    return values


def results_folder(settings):
    if settings.folder:
        if settings.folder.startswith("//") and not bpy.data.filepath:
            raise strips.StripError("Save the file first: the results' folder lies beside it.")
        return Path(bpy.path.abspath(settings.folder))
    if not bpy.data.filepath:
        raise strips.StripError("Save the file first, or choose a folder for the results: they go beside the file.")
    return Path(bpy.data.filepath).parent / "motionclone"


def _condition(scene, values):
    """The picture or sketch of a job, at its first frame: what it is taken of, and the images that get it."""
    from .library import Images

    if values["mode"] == "TEXT":
        return "", None
    what = values["mode"].lower()
    images = Images(values["mode"], values["image_scale"])
    if values["image_strip"]:
        strips.named(scene, values["image_strip"])
        return values["image_strip"], images
    image = bpy.data.images.get(values["image"]) if values["image"] else None
    if image is None:
        raise strips.StripError(f"Choose an image or a strip for the {what}.")
    images.items.append((strips.image_clip(image), 0))
    return "", images


def _file_name(text):
    return re.sub(r"[^\w-]+", "-", text).strip("-")[:40] or "clone"


def clone(context, strip, values, motion=""):
    """Queues a clone of a strip's motion, or of a motion from the library at a strip's place."""
    scene = strips.sequencer_scene(context)
    title = values["prompt"] or strip.name
    name = _file_name(f"{strip.name}-{values['seed']}")
    return _add(context, "CLONE", title, strip, values, motion, results_folder(scene.motionclone), name)


def extract(context, strip, values, title):
    """Queues reading a strip's motion into the motion library."""
    values = {**values, "mode": "TEXT"}
    return _add(context, "EXTRACT", title, strip, values, "", properties.motions_folder(context), _file_name(title))


def _add(context, kind, title, strip, values, motion, folder, name):
    from .session import Request

    place = properties.place(context)
    place.check()
    scene = strips.sequencer_scene(context)
    image_strip, images = _condition(scene, values)
    info = {
        "file": bpy.data.filepath, "scene": scene.name, "reference": strip.name, "start": strips.start(strip),
        "length": strips.length(strip), "channel": strip.channel, "values": dict(values), "image_strip": image_strip,
        "motion": motion,
    }  # fmt: skip
    chosen = {name: values[name] for name in ("prompt", "seed", "strength")}
    if values["negative_prompt"]:
        chosen["negative_prompt"] = values["negative_prompt"]
    if values["quality"] == "CUSTOM":
        chosen["steps"] = values["steps"]
    request = Request(kind, title, chosen, values["quality"], None, motion, images, folder, name, info=info)
    return open_session().add(request, place)


def size_of(values, defaults, rectangle):
    """Width, height and frames of a clip: about as many pixels as the model's own clip or as the chosen square, in the
    aspect of the reference."""
    if values["size"] == "CUSTOM":
        side, frames = values["side"], values["frames"]
    else:
        side, frames = (defaults["width"] * defaults["height"]) ** 0.5, defaults["frames"]
    return (*strips.fitting_size(rectangle[0], rectangle[1], side), frames)


def _gather(job):
    """Completes a job's request, with one frame taken each time that it is asked on. Nothing of Blender is kept
    meanwhile: between two frames the user may do anything."""
    from .library import join

    request, info = job.request, job.request.info
    scene, strip = _strip(info, info["reference"])
    info["place"] = strips.rectangle(scene, strip)
    width, height, count = size_of(info["values"], job.defaults, info["place"])
    request.values.update(width=width, height=height, frames=count)
    takes = []
    if not request.motion:
        last = info["start"] + info["length"] - 1
        takes = [(info["reference"], number) for number in strips.spread(info["start"], last, count)]
    if info["image_strip"]:
        takes.append((info["image_strip"], info["values"]["image_frame"]))
    clips = []
    for name, number in takes:
        scene, strip = _strip(info, name)
        number = min(max(number, strips.start(strip)), strips.end(strip) - 1)
        clips.append(strips.frame(scene, strip, number, (width, height)))
        job.message, job.step, job.total = "Taking frames", len(clips), len(takes)
        yield
    if info["image_strip"]:
        request.images.items.append((clips.pop(), 0))
    if clips:
        request.reference = join(clips)
        if request.kind == "EXTRACT":
            request.thumbnail = strips.thumbnail(clips[0])


def _strip(info, name):
    """The scene of a job, and a strip in it."""
    scene = bpy.data.scenes.get(info["scene"])
    if bpy.data.filepath != info["file"] or scene is None:
        raise strips.StripError("Another file is open now.")
    return scene, strips.named(scene, name)


def _take_frame():
    """Takes a frame for the first job that wants some; says whether there may be more to take."""
    job = next((job for job in session.jobs if job.wants_frames and not job.cancelled.is_set()), None)
    if job is None or _hands_off():
        return False
    job.gathering = job.gathering or _gather(job)
    try:
        next(job.gathering)
    except StopIteration:
        session.begin(job)
    except (strips.StripError, OSError, RuntimeError, ImportError) as error:
        job.fail(error)
    return True


def _hands_off():
    """Whether Blender renders, or the user is dragging something: then frames are taken later."""
    if bpy.app.is_job_running("RENDER"):
        return True
    modal = (operator for window in _windows() for operator in getattr(window, "modal_operators", ()))
    return any(operator.bl_idname.startswith(("TRANSFORM_OT_", "SEQUENCER_OT_")) for operator in modal)


def motions(context):
    """The motions of the library: folder, and what its about.json says."""
    import json

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
    taking = _take_frame()
    for job in session.poll():
        if job.state == "DONE" and job.request.kind == "CLONE":
            try:
                _add_strip(job)
            except (strips.StripError, RuntimeError) as error:
                job.state, job.message = "FAILED", str(error)
    _redraw()
    if not session.busy:
        return None
    return 0.0 if taking else INTERVAL


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
    clip = job.preview
    if clip is None:
        return 0
    key = f"job {job.number}"
    icon = _icons().get(key) or _icons().new(key)
    # Drawn again only when the library has a new one.
    if job.drawn != job.previews:
        job.drawn = job.previews
        rgb = clip.frame(clip.count // 2)
        icon.image_size = (clip.width, clip.height)
        row = clip.width * 3
        icon.image_pixels_float = [
            value
            for y in reversed(range(clip.height))
            for x in range(0, row, 3)
            for value in (*(sample / 255 for sample in rgb[y * row + x : y * row + x + 3]), 1.0)
        ]
    return icon.icon_id


def motion_icon(folder):
    """The icon of a motion's thumbnail, or 0."""
    file = folder / "thumbnail.png"
    if not file.is_file():
        return 0
    key = str(file)
    return (_icons().get(key) or _icons().load(key, key, "IMAGE")).icon_id


def _icons():
    global icons
    if icons is None:
        from bpy.utils import previews

        icons = previews.new()
    return icons


def _windows():
    return [window for manager in bpy.data.window_managers for window in manager.windows]


def _redraw():
    for window in _windows():
        for area in window.screen.areas:
            if area.type in ("SEQUENCE_EDITOR", "PREFERENCES"):
                area.tag_redraw()
