"""From strips to jobs and back: requests are made here, and `tick` takes frames and turns what the library has done into
strips.

Only for Blender's main thread; what works elsewhere is in `session`. That and ctypes behind it are imported when they
are first needed: Blender's start does not wait for them.
"""

import atexit
import contextlib
import re
import tempfile
import traceback
from pathlib import Path

import bpy

from . import gather, icons, preferences, references, results, strips

INTERVAL = 0.25
# What is kept of a job's settings at a strip, besides the image and the reference.
KEPT = (
    "prompt", "negative_prompt", "mode", "image_strip", "image_scale", "seed", "strength", "quality", "steps", "size",
    "side", "frames", "timing",
)  # fmt: skip

session = None


def open_session():
    """The session, and the timer that looks after it."""
    global session
    if session is None:
        from .session import Session

        session = Session()
        # For a Python that ends without having disabled the extension.
        atexit.register(session.close)
    if not bpy.app.timers.is_registered(tick):
        bpy.app.timers.register(tick, first_interval=0, persistent=True)
    return session


def close_session():
    """Ends everything. Blender calls this at its end, too: it takes a few seconds at most, whatever is going on."""
    global session
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)
    if session is not None:
        atexit.unregister(session.close)
        session.close()
        session = None
    icons.close()


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


def clone(context, strip, values, motion=""):
    """Queues a clone of a strip's motion, or of a motion from the library at a strip's place."""
    scene = strips.sequencer_scene(context)
    title = values["prompt"] or strip.name
    name = _file_name(f"{strip.name}-{values['seed']}")
    return _add(context, "CLONE", title, strip, values, motion, results_folder(scene.motionclone), name)


def extract(context, strip, values, title):
    """Queues reading a strip's motion into the motion library."""
    values = {**values, "mode": "TEXT"}
    return _add(context, "EXTRACT", title, strip, values, "", preferences.motions_folder(context), _file_name(title))


def save(job, context):
    """Writes a finished result that found no place, into the folder that is chosen now."""
    if job.request.kind == "EXTRACT":
        folder = preferences.motions_folder(context)
    else:
        folder = results_folder(strips.sequencer_scene(context).motionclone)
    results.check(folder)
    open_session().save(job, folder)


def motions(context):
    """The motions of the library: folder, and what its about.json says."""
    import json

    found = []
    folder = preferences.motions_folder(context)
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
    for job in session.jobs:
        if not job.ended:
            # So that each change of the strip is noticed by itself, such as a new name.
            job.request.info["reference"].find()
    taking = gather.take_frame(session)
    for job in session.poll():
        if job.state == "DONE" and job.request.kind == "CLONE":
            _add_strip(job)
        elif job.state == "DONE" and job.note:
            job.message = f"Done: {job.note}"
    _redraw()
    if not session.busy:
        return None
    return 0.0 if taking else INTERVAL


def _file_name(text):
    return re.sub(r"[^\w-]+", "-", text).strip("-")[:40] or "clone"


def _condition(scene, values):
    """The picture or sketch of a job, at its first frame: what it is taken of, and the images that get it."""
    from .library import Images

    if values["mode"] == "TEXT":
        return None, None
    what = values["mode"].lower()
    images = Images(values["mode"], values["image_scale"])
    if values["image_strip"]:
        strip = strips.named(scene, values["image_strip"])
        gather.check_media(scene, strip)
        return references.StripReference(scene, strip), images
    image = bpy.data.images.get(values["image"]) if values["image"] else None
    if image is None:
        raise strips.StripError(f"Choose an image or a strip for the {what}.")
    images.items.append((strips.image_clip(image), 0))
    return None, images


def _add(context, kind, title, strip, values, motion, folder, name):
    from .session import Request

    place = preferences.place(context)
    place.check()
    results.check(folder)
    scene = strips.sequencer_scene(context)
    if not motion:
        gather.check_media(scene, strip)
    image, images = _condition(scene, values)
    info = {
        "reference": references.StripReference(scene, strip), "image": image, "start": strips.start(strip),
        "length": strips.length(strip), "channel": strip.channel, "values": dict(values), "motion": motion,
    }  # fmt: skip
    chosen = {name: values[name] for name in ("prompt", "seed", "strength")}
    if values["negative_prompt"]:
        chosen["negative_prompt"] = values["negative_prompt"]
    if values["quality"] == "CUSTOM":
        chosen["steps"] = values["steps"]
    else:
        chosen["quality"] = values["quality"].lower()
    fallbacks = (preferences.data_folder("results"), Path(tempfile.gettempdir()) / "motionclone")
    request = Request(
        kind, title, chosen, None, motion, images, folder, fallbacks, name, info=info
    )
    return open_session().add(request, place)


def _add_strip(job):
    """Puts a finished clip into the sequencer. Where that is not possible, its files are kept, and the job says where."""
    try:
        strip = _new_strip(job)
        message = f"Done: {strip.name} on channel {strip.channel}"
        job.message = f"{message}; {job.note}" if job.note else message
    except Exception as error:
        # Anything else would end the timer, and the other jobs with it.
        if not isinstance(error, (strips.StripError, RuntimeError)):
            with contextlib.suppress(OSError):  # The console may be closed.
                traceback.print_exc()
        said = str(error).rstrip(".")
        job.state, job.message = "FAILED", f"{said}; the new clip is in {job.files[0].parent}."


def _new_strip(job):
    info, used = job.request.info, job.used
    reference = info["reference"]
    scene, strip = reference.scene(), reference.find()
    if scene is None:
        raise references.Gone("Another file is open now, or the scene was removed")
    scene.sequence_editor_create()
    at, channel = info["start"], info["channel"]
    if strip is not None:
        at, channel = strips.start(strip), strip.channel
    values = info["values"]
    frames = len(job.files)
    duration = max(frames, info["length"]) if values["timing"] == "REFERENCE" else frames
    kept = {**values, "reference": reference.name, "reference_id": reference.mark, "motion": info["motion"]}
    kept.update({name: used[name] for name in ("width", "height", "frames", "steps", "motion_weight")})
    strip = strips.add_frames(scene, f"{reference.name} clone", job.files, at, channel, duration, info["place"], kept)
    if bpy.ops.ed.undo_push.poll():
        bpy.ops.ed.undo_push(message="Add motion clone")
    return strip


def _redraw():
    for window in gather.windows():
        for area in window.screen.areas:
            if area.type in ("SEQUENCE_EDITOR", "PREFERENCES"):
                area.tag_redraw()
