"""Strips of the sequencer: taking frames from one, adding one. Only for Blender's main thread.

Names that differ between Blender 4.2 and 5 are looked up with hasattr, never by truth: an empty collection is false.
Modules that take long to import are imported where they are used: Blender's start does not wait for them.
"""

import os
from contextlib import contextmanager
from pathlib import Path

import bpy

CHANNELS = 128
SILENT = ("SOUND",)


class StripError(Exception):
    """An error of a strip, in a sentence for the user."""


def sequencer_scene(context):
    """The scene that the sequencer shows."""
    if hasattr(context, "sequencer_scene"):
        return context.sequencer_scene
    return context.scene


def collection(editor):
    """The top level of strips of a sequence editor."""
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def collection_name(editor):
    return "strips" if hasattr(editor, "strips") else "sequences"


def start(strip):
    """The first frame that a strip shows."""
    return strip.left_handle if hasattr(strip, "left_handle") else strip.frame_final_start


def end(strip):
    """The frame behind the last one that a strip shows."""
    return strip.right_handle if hasattr(strip, "right_handle") else strip.frame_final_end


def length(strip):
    return end(strip) - start(strip)


def find(scene, name):
    """The strip of a name, or None."""
    return collection(scene.sequence_editor).get(name) if scene and scene.sequence_editor else None


def named(scene, name):
    """The strip of a name, which must have a picture."""
    strip = find(scene, name)
    if strip is None:
        raise StripError(f"There is no strip named {name}.")
    if strip.type in SILENT:
        raise StripError(f"{strip.name} is a sound: select a strip with a picture.")
    return strip


def reference(scene, name):
    """The strip that is picked by name, else the active one; it must have a picture, and frames."""
    if not scene or not scene.sequence_editor:
        raise StripError("The sequencer has no strips yet: add a movie or images first.")
    strip = named(scene, name) if name else scene.sequence_editor.active_strip
    if strip is None:
        raise StripError("Select the strip whose motion is to be cloned.")
    if collection(scene.sequence_editor).get(strip.name) != strip:
        raise StripError(f"{strip.name} lies inside a meta strip: select the meta strip, or take it out.")
    if strip.type in SILENT:
        raise StripError(f"{strip.name} is a sound: select a strip with a picture.")
    if length(strip) < 2:
        raise StripError(f"{strip.name} is one frame long, and motion needs at least two.")
    if scene.library:
        raise StripError(f"The scene {scene.name} is linked from another file, so it takes no new strips.")
    return strip


def spread(first, last, count):
    """`count` frames, evenly from the first to the last: those that the library takes of a clip."""
    if count == 1:
        return [first]
    # As the library counts: numpy's linspace, cut off to whole numbers, with the last one exact.
    step = (last - first) / (count - 1)
    return [first + int(index * step) for index in range(count - 1)] + [last]


def check_media(scene, strip, numbers, decode=False):
    """Complains of media that a strip shows at one of those frames of the timeline and that are missing or broken, which
    Blender draws as if nothing were wrong. Pictures are only looked into with `decode`."""
    path = lambda text: bpy.path.abspath(text, library=scene.library)
    if strip.type == "MOVIE":
        _check_file(strip, path(strip.filepath), strip.reload_if_needed)
    elif strip.type == "IMAGE":
        shown = (strip.strip_elem_from_frame(number) for number in numbers)
        for name in dict.fromkeys(element.filename for element in shown if element):
            file = os.path.join(path(strip.directory), name)
            _check_file(strip, file, lambda: not decode or _is_image(file))
    elif strip.type == "MOVIECLIP" and strip.clip and strip.clip.source == "MOVIE":
        _check_file(strip, path(strip.clip.filepath), lambda: True)
    inputs = [getattr(strip, name, None) for name in ("input_1", "input_2")]
    if strip.type == "META":
        inputs = collection(strip)
    for below in filter(None, inputs):
        covered = [number for number in numbers if start(below) <= number < end(below)]
        if covered and below.type not in SILENT:
            check_media(scene, below, covered, decode)


def _check_file(strip, file, is_sound):
    if not os.path.isfile(file):
        raise StripError(f"{strip.name} is offline: there is no file {file}.")
    if not is_sound():
        raise StripError(f"{strip.name} cannot be read: Blender finds no picture in {file}.")


def _is_image(file):
    """True for a picture that Blender can read."""
    image = bpy.data.images.load(file)
    try:
        return image.size[0] > 0
    finally:
        bpy.data.images.remove(image)


def _animated(scene, strip):
    """True where keyframes may move the strip's picture."""
    action = scene.animation_data.action if scene.animation_data else None
    if action is None:
        return False
    if not hasattr(action, "fcurves"):
        return True
    path = strip.path_from_id()
    return any(curve.data_path.startswith((f"{path}.transform", f"{path}.crop")) for curve in action.fcurves)


def rectangle(scene, strip):
    """The part of the scene's frame that a strip's picture fills: width, height and its centre from the frame's, in
    pixels of the scene. That is the cropped, scaled picture of a movie or of images, and the whole frame otherwise."""
    whole = (scene.render.resolution_x, scene.render.resolution_y, 0.0, 0.0)
    if strip.type not in ("MOVIE", "IMAGE") or not len(strip.elements) or _animated(scene, strip):
        return whole
    element, crop, transform = strip.elements[0], strip.crop, strip.transform
    width = element.orig_width - crop.min_x - crop.max_x
    height = element.orig_height - crop.min_y - crop.max_y
    if element.orig_width < 1 or width < 1 or height < 1 or transform.rotation or min(transform.origin) != 0.5:
        return whole
    if max(transform.origin) != 0.5 or min(transform.scale_x, transform.scale_y) <= 0:
        return whole
    return (
        width * transform.scale_x,
        height * transform.scale_y,
        transform.offset_x + (crop.min_x - crop.max_x) / 2 * transform.scale_x,
        transform.offset_y + (crop.min_y - crop.max_y) / 2 * transform.scale_y,
    )


def fitting_size(width, height, side):
    """The allowed size (multiples of 8) of about side × side pixels that is nearest to an aspect."""
    root = (width / height) ** 0.5
    return tuple(min(2048, max(64, round(side * ratio / 8) * 8)) for ratio in (root, 1 / root))


@contextmanager
def _alone(scene, strip, size):
    """A copy of the scene that shows nothing but the strip's picture."""
    x, y, centre_x, centre_y = rectangle(scene, strip)
    whole = (x, y, centre_x, centre_y) == (scene.render.resolution_x, scene.render.resolution_y, 0.0, 0.0)
    copy = scene.copy()
    try:
        for other in collection(copy.sequence_editor):
            other.mute = other.name != strip.name
        shown = find(copy, strip.name)
        shown.blend_type = "REPLACE"
        if hasattr(copy.sequence_editor, "channels"):
            copy.sequence_editor.channels[shown.channel].mute = False
        render = copy.render
        render.resolution_percentage = 100
        # Twice the size that the model gets is as sharp as can be made use of.
        if whole:
            factor = min(1.0, max(2 * size[0] / x, 2 * size[1] / y))
            render.resolution_percentage = max(1, min(100, round(100 * factor)))
        else:
            transform = shown.transform
            factor = 1 / max(transform.scale_x, transform.scale_y)
            factor *= min(1.0, max(2 * size[0] / (x * factor), 2 * size[1] / (y * factor)))
            # Even sizes and whole offsets, so that pixels stay where pixels are; an odd row or column is left out.
            render.resolution_x = max(4, round(x * factor) // 2 * 2)
            render.resolution_y = max(4, round(y * factor) // 2 * 2)
            transform.offset_x = round((transform.offset_x - centre_x) * factor)
            transform.offset_y = round((transform.offset_y - centre_y) * factor)
            transform.scale_x *= factor
            transform.scale_y *= factor
        render.use_sequencer, render.use_compositing = True, False
        render.use_stamp = render.use_multiview = render.use_border = False
        render.dither_intensity = 0.0
        # Frames as they are in the file, so that the result looks alike in the same sequencer.
        view = copy.view_settings
        view.view_transform, view.look, view.exposure, view.gamma = "Standard", "None", 0.0, 1.0
        view.use_curve_mapping = False
        image = render.image_settings
        if hasattr(image, "media_type"):
            image.media_type = "IMAGE"
        image.file_format, image.color_mode, image.color_depth, image.compression = "PNG", "RGB", "8", 0
        image.color_management = "FOLLOW_SCENE"
        render.use_file_extension = True
        yield copy
    finally:
        bpy.data.scenes.remove(copy)


def frame(scene, strip, number, size):
    """The strip's picture at a frame of the timeline, as the sequencer shows it, about as large as `size` needs: a clip
    of one frame."""
    import tempfile

    name = strip.name
    with _alone(scene, strip, size) as copy, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frame.png"
        copy.frame_set(number)
        copy.render.filepath = str(file)
        # With `scene=` Blender would take the frame of the scene at hand.
        with bpy.context.temp_override(scene=copy):
            bpy.ops.render.render(write_still=True)
        if not file.is_file():
            raise StripError(f"Blender could not render frame {number} of {name}.")
        image = bpy.data.images.load(str(file))
        try:
            return image_clip(image)
        finally:
            bpy.data.images.remove(image)


def image_clip(image):
    """An image of Blender as a clip of one frame."""
    import numpy as np

    from .library import Clip

    width, height = image.size
    if not width or not height or image.channels != 4:
        raise StripError(f"The image {image.name} has no pixels of colour: choose another one.")
    pixels = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(pixels)
    pixels = pixels.reshape(height, width, 4)[::-1]
    colour = pixels[..., :3].clip(0, 1)
    if image.alpha_mode == "STRAIGHT" and not image.is_float:
        # Over black, as in the sequencer, so that hidden colour does not count. Float images are premultiplied.
        colour = colour * pixels[..., 3:].clip(0, 1)
    if image.is_float:
        # Float images are in linear light.
        colour = np.where(colour <= 0.0031308, colour * 12.92, 1.055 * colour ** (1 / 2.4) - 0.055)
    return Clip(bytearray((colour * 255 + 0.5).astype(np.uint8).tobytes()), 1, width, height)


def thumbnail(clip, side=128):
    """The first frame of a clip, made small."""
    import numpy as np

    from .library import Clip

    pixels = np.frombuffer(clip.frame(0), np.uint8).reshape(clip.height, clip.width, 3)
    stride = max(1, -(-max(pixels.shape[:2]) // side))
    small = np.ascontiguousarray(pixels[::stride, ::stride])
    return Clip(bytearray(small.tobytes()), 1, small.shape[1], small.shape[0])


def free_channel(scene, above, first, behind):
    """The lowest channel above a channel that is free from the frame `first` to the one before `behind`."""
    taken = {s.channel for s in collection(scene.sequence_editor) if start(s) < behind and end(s) > first}
    for channel in range(above + 1, CHANNELS + 1):
        if channel not in taken:
            return channel
    return None


def add_frames(scene, name, files, at, above, duration, place, properties):
    """Adds files as a strip of `duration` frames, each shown as long as the others, with custom properties."""
    channel = free_channel(scene, above, at, at + duration)
    if channel is None:
        raise StripError(f"No channel is free above channel {above}. The new clip is in {files[0].parent}.")
    folder = str(files[0].parent)
    if bpy.data.filepath:
        try:
            folder = bpy.path.relpath(folder)
        except ValueError:
            pass  # On another drive there is no relative path.
    path = f"{folder}/{files[0].name}"
    strip = collection(scene.sequence_editor).new_image(name=name, filepath=path, channel=channel, frame_start=at)
    for index in range(1, duration):
        strip.elements.append(files[index * len(files) // duration].name)
    width, height, centre_x, centre_y = place
    size = (properties["width"], properties["height"])
    strip.transform.scale_x, strip.transform.scale_y = width / size[0], height / size[1]
    strip.transform.offset_x, strip.transform.offset_y = centre_x, centre_y
    strip["motionclone"] = properties
    return strip
