"""The frames of a request: taken from strips by Blender, one each time that its timer comes by.

Between two frames the user may do anything, so nothing of Blender's is kept meanwhile: strips are found again each time.
"""

import bpy

from . import results, strips

# Frames of an image strip that are looked at for missing files when a job is queued.
LOOKED_AT = 64


def check_media(scene, strip):
    """Complains of a strip whose media are offline."""
    count = min(strips.length(strip), LOOKED_AT)
    strips.check_media(scene, strip, strips.spread(strips.start(strip), strips.end(strip) - 1, count))


def size_of(values, defaults, rectangle):
    """Width, height and frames of a clip: about as many pixels as the model's own clip or as the chosen square, in the
    aspect of the reference."""
    if values["size"] == "CUSTOM":
        side, frames = values["side"], values["frames"]
    else:
        side, frames = (defaults["width"] * defaults["height"]) ** 0.5, defaults["frames"]
    return (*strips.fitting_size(rectangle[0], rectangle[1], side), frames)


def take_frame(session):
    """Takes a frame for the first job that wants some; says whether there may be more to take."""
    job = next((job for job in session.jobs if job.wants_frames and not job.cancelled.is_set()), None)
    if job is None or _is_busy():
        return False
    job.gathering = job.gathering or _gather(job)
    try:
        next(job.gathering)
    except StopIteration:
        session.begin(job)
    except (strips.StripError, OSError, RuntimeError, ImportError) as error:
        job.fail(error)
    return True


def windows():
    """All windows of Blender."""
    return [window for manager in bpy.data.window_managers for window in manager.windows]


def _gather(job):
    """Completes a job's request, with one frame taken each time that it is asked on."""
    from .library import join

    request, info = job.request, job.request.info
    scene, strip = info["reference"].get()
    info["place"] = strips.rectangle(scene, strip)
    width, height, count = size_of(info["values"], job.defaults, info["place"])
    if request.kind == "CLONE":
        results.check(request.folder, width * height * 3 * count)
    request.values.update(width=width, height=height, frames=count)
    takes = []
    if not request.motion:
        info["start"], info["length"] = strips.start(strip), strips.length(strip)
        takes = [(info["reference"], index) for index in strips.spread(0, info["length"] - 1, count)]
    if info["image"]:
        takes.append((info["image"], None))
    clips = []
    for reference, index in takes:
        scene, strip = reference.get()
        if index is not None and strips.length(strip) != info["length"]:
            raise strips.StripError(f"{strip.name} was cut while its frames were taken: start again.")
        # It may have been moved.
        number = info["values"]["image_frame"] if index is None else strips.start(strip) + index
        number = min(max(number, strips.start(strip)), strips.end(strip) - 1)
        strips.check_media(scene, strip, [number], decode=True)
        clips.append(strips.frame(scene, strip, number, (width, height)))
        job.message, job.step, job.total = "Taking frames", len(clips), len(takes)
        yield
    if info["image"]:
        request.images.items.append((clips.pop(), 0))
    if clips:
        request.reference = join(clips)
        if request.kind == "EXTRACT":
            request.thumbnail = strips.thumbnail(clips[0])


def _is_busy():
    """True while Blender renders or the user drags something: then frames are taken later."""
    if bpy.app.is_job_running("RENDER"):
        return True
    modal = (operator for window in windows() for operator in getattr(window, "modal_operators", ()))
    return any(operator.bl_idname.startswith(("TRANSFORM_OT_", "SEQUENCER_OT_")) for operator in modal)
