"""The C library, through ctypes.

Everything of motionclone.h that the extension needs, as Python classes. Nothing here knows of Blender; all of it may be
used from any thread.
"""

import atexit
import ctypes as c
import json
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from . import abi
from .abi import ABI_VERSION

OK, TIMEOUT, NOT_READY, CANCELLED = abi.Status.OK, abi.Status.TIMEOUT, abi.Status.NOT_READY, abi.Status.CANCELLED
# The samples of a pixel.
SAMPLES = {"RGB": 3, "RGBA": 4}
# Stages as people read them.
STAGES = {
    abi.JobStage.LOAD: "Loading networks",
    abi.JobStage.ENCODE: "Encoding",
    abi.JobStage.EXTRACT: "Reading the motion",
    abi.JobStage.DENOISE: "Making the clip",
    abi.JobStage.DECODE: "Decoding",
}

# The library's name on this system.
FILE_NAME = {"win32": "motionclone.dll", "darwin": "libmotionclone.dylib"}.get(sys.platform, "libmotionclone.so")
# Names the library's file or its folder.
ENVIRONMENT = "MOTIONCLONE_LIBRARY"


def name_of(kind, number):
    """The name of an enumeration's number; the number itself where a later library has more."""
    return kind(number).name if number in list(kind) else str(number)


class LibraryError(RuntimeError):
    """An error of the library, or its absence, in a sentence for the user."""

    def __init__(self, message, status=None):
        super().__init__(message)
        self.status = status


@dataclass
class Clip:
    """Frames of 8-bit sRGB samples without gaps: one buffer, `count` × `height` × `width` × samples of a pixel."""

    data: object
    count: int
    width: int
    height: int
    channels: str = "RGB"
    row_order: str = "TOP_DOWN"

    def frame(self, index):
        """The bytes of one frame."""
        size = self.width * self.height * SAMPLES[self.channels]
        return bytes(memoryview(self.data)[index * size : (index + 1) * size])


def join(clips):
    """Clips of one frame each, of the same size and layout, as one."""
    first = clips[0]
    data = bytearray().join(clip.data for clip in clips)
    return Clip(data, len(clips), first.width, first.height, first.channels, first.row_order)


@dataclass
class Progress:
    state: str
    stage: str
    step: int
    total: int
    previews: int
    loss: float | None
    seconds_left: float | None


@dataclass
class Images:
    """Pictures or sketches: each a clip of one frame, and the frame of the new clip that it stands at."""

    kind: str
    scale: float = 1.0
    items: list = field(default_factory=list)


def find(chosen="", extension=None):
    """The library's file: the one that is chosen (a file or its folder), else the one that the environment variable
    MOTIONCLONE_LIBRARY names, else the one in the folder `lib` of the extension."""
    for source, path in (("the preferences", chosen), (ENVIRONMENT, os.environ.get(ENVIRONMENT, ""))):
        if path:
            file = Path(path)
            if file.is_dir():
                file = file / FILE_NAME
            if not file.is_file():
                raise LibraryError(f"There is no motionclone library at {file}, which {source} name.")
            return file.absolute()
    folder = Path(extension or Path(__file__).parent) / "lib"
    file = folder / FILE_NAME
    if not file.is_file():
        raise LibraryError(
            f"The motionclone library ({FILE_NAME}) is missing: it is neither in {folder}, nor chosen in the "
            "extension's preferences. Install the extension's zip for this system, or choose the file."
        )
    return file.absolute()


class Library:
    """A loaded library of the right version."""

    def __init__(self, file):
        self.file = Path(file)
        try:
            self._c = c.CDLL(str(file))
        except OSError as error:
            raise LibraryError(f"{file} cannot be loaded: {error}.") from error
        try:
            self._c.motionclone_version.restype = c.c_char_p
            self._c.motionclone_abi_version.restype = c.c_uint32
            self.version = self._c.motionclone_version().decode()
            version = self._c.motionclone_abi_version()
        except AttributeError as error:
            raise LibraryError(f"{file} is not the motionclone library: it has no function of its name.") from error
        if version != ABI_VERSION:
            raise LibraryError(
                f"{file} (motionclone {self.version}) has interface version {version}, and this extension needs "
                f"{ABI_VERSION}. Use the library that came with the extension."
            )
        try:
            abi.bind(self._c)
            # Before Python ends: afterwards no thread of the library may call a log function.
            atexit.register(self._c.motionclone_shutdown)
        except AttributeError as error:
            raise LibraryError(f"{file} (motionclone {self.version}) is damaged or incomplete: {error}.") from error

    def call(self, name, *arguments, allowed=(OK,)):
        """The status of a call; one that is not allowed becomes an error with the library's own sentence."""
        status = getattr(self._c, f"motionclone_{name}")(*arguments)
        if status not in allowed:
            raise LibraryError(self._c.motionclone_last_error().decode(errors="replace"), status)
        return status

    def count(self, name):
        """What a function that only counts answers."""
        return getattr(self._c, f"motionclone_{name}")()

    def make(self, kind, *arguments):
        """A structure of the binding, set up by its own function."""
        value, name = kind(), "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__)
        self.call(f"{name[1:]}_init", c.byref(value), c.sizeof(value), *arguments)
        return value

    def frames(self, clip):
        """A clip's memory as the library reads or writes it; the clip must be kept as long."""
        samples = SAMPLES[clip.channels]
        view = memoryview(clip.data).cast("B")
        needed = clip.count * clip.height * clip.width * samples
        if view.nbytes != needed or view.readonly:
            raise ValueError(f"a clip needs {needed} writable bytes, and has {view.nbytes}")
        frames = self.make(abi.Frames)
        frames.data = c.addressof(c.c_char.from_buffer(view))
        frames.count, frames.width, frames.height = clip.count, clip.width, clip.height
        frames.channels, frames.row_order = abi.Channels[clip.channels], abi.RowOrder[clip.row_order]
        return frames

    def text(self, name, handle):
        """A text that the library copies out."""
        needed = c.c_size_t()
        self.call(name, handle, None, 0, c.byref(needed))
        buffer = c.create_string_buffer(needed.value)
        self.call(name, handle, buffer, needed.value, c.byref(needed))
        return buffer.value.decode(errors="replace")

    def devices(self, onnxruntime=""):
        """Names of the devices there are: the CPU, then every CUDA device that works."""
        runtime, count = onnxruntime.encode() or None, c.c_size_t()
        self.call("devices", runtime, None, 0, c.byref(count))
        devices = (abi.Device * count.value)(*(self.make(abi.Device) for _ in range(count.value)))
        self.call("devices", runtime, devices, len(devices), c.byref(count))
        return [
            f"{name_of(abi.DeviceKind, d.kind)} {d.number}: {d.name.decode(errors='replace')}"
            for d in devices[: count.value]
        ]

    def load_motion(self, file):
        """A motion from a file."""
        handle = abi.Motion()
        self.call("motion_load", str(file).encode(), c.byref(handle))
        return Motion(self, handle)


def _plain(structure):
    """The numbers and texts of a structure."""
    fields = ((name, getattr(structure, name)) for name, kind in structure._fields_ if name != "struct_size")
    plain = {n: v.decode(errors="replace") if isinstance(v, bytes) else v for n, v in fields}
    return {n: v for n, v in plain.items() if v is None or isinstance(v, (str, int, float))}


class Engine:
    """A model on a device. Making one waits: not on a thread that draws."""

    def __init__(self, library, bundle, device="AUTO", number=0, onnxruntime="", threads=0, log=None):
        self.library, self._handle = library, abi.Engine()
        options = library.make(abi.EngineOptions)
        options.device_kind, options.device_number, options.threads = abi.DeviceKind[device], number, threads
        options.onnxruntime = onnxruntime.encode() or None
        if log:
            # Kept as long as the engine, which calls it.
            self._log = abi.Log(
                lambda level, message, _: log(
                    name_of(abi.LogLevel, level), message.decode(errors="replace")
                )
            )
            options.log = self._log
        library.call("engine_create", str(bundle).encode(), c.byref(options), c.byref(self._handle))

    def device(self):
        """The name of the device that it computes on."""
        device = self.library.make(abi.Device)
        self.library.call("engine_device", self._handle, c.byref(device))
        return device.name.decode(errors="replace")

    def defaults(self):
        """The model's own settings."""
        return self.settings({})

    def describe(self):
        """The settings that there are, in the order in which they are applied, with their ranges and defaults in this
        model: dictionaries of the fields of motionclone_setting_info."""
        described = []
        for index in range(self.library.count("setting_count")):
            info = self.library.make(abi.SettingInfo)
            self.library.call("setting_describe", index, self._handle, c.byref(info))
            described.append(_plain(info))
        return described

    def settings(self, values):
        """All settings but images, with `values` by their names and with what follows from them: a quality or a number
        of steps sets those that are guided, too."""
        settings, _kept = self._settings(values, None)
        # Texts that are not set are the model's own.
        return {name: value for name, value in _plain(settings).items() if value is not None}

    def _settings(self, values, images):
        """Settings for a job, and what must be kept until it is started."""
        settings, kept = self.library.make(abi.Settings, self._handle), []
        # Those that set others come first in the library's own order.
        order = {setting["name"]: index for index, setting in enumerate(self.describe())}
        for name in sorted(values, key=lambda name: order.get(name, -1)):
            text = str(values[name])
            if "\0" in text:
                raise LibraryError(f"the {name.replace('_', ' ')} has a character that no text may have (zero)")
            kept.append(c.create_string_buffer(text.encode()))
            self.library.call("settings_set_text", c.byref(settings), self._handle, name.encode(), kept[-1])
        if images and images.items:
            array = (abi.Image * len(images.items))(*(self.library.make(abi.Image) for _ in images.items))
            for image, (clip, frame) in zip(array, images.items):
                frames = self.library.frames(clip)
                kept.append(frames)
                image.pixels, image.frame = c.pointer(frames), frame
            settings.images, settings.image_count = array, len(array)
            settings.image_kind, settings.image_scale = abi.ImageKind[images.kind], images.scale
            kept.append(array)
        return settings, kept

    def clone(self, reference, values, images=None):
        """Starts a job that makes a clip which moves like `reference`: a Clip, or a Motion that was read before."""
        handle, (settings, _kept) = abi.Job(), self._settings(values, images)
        if isinstance(reference, Motion):
            name, source = "job_clone_motion", reference.handle
        else:
            name, source = "job_clone", c.byref(self.library.frames(reference))
        self.library.call(name, self._handle, source, c.byref(settings), c.byref(handle))
        return Job(self.library, handle)

    def extract(self, reference, values, images=None):
        """Starts a job that reads the motion of a clip."""
        handle, (settings, _kept) = abi.Job(), self._settings(values, images)
        frames = self.library.frames(reference)
        self.library.call("job_extract", self._handle, c.byref(frames), c.byref(settings), c.byref(handle))
        return Job(self.library, handle)

    def close(self):
        """Cancels the engine's jobs and waits until its thread has ended, no longer than a step."""
        if self._handle:
            self.library.call("engine_destroy", c.byref(self._handle))


class Job:
    """An extraction or a clone."""

    def __init__(self, library, handle):
        self.library, self._handle = library, handle

    def progress(self):
        value = self.library.make(abi.Progress)
        self.library.call("job_progress", self._handle, c.byref(value))
        return Progress(
            name_of(abi.JobState, value.state),
            STAGES.get(value.stage, "Working"),
            value.step,
            value.total,
            value.previews,
            None if math.isnan(value.loss) else value.loss,
            None if math.isnan(value.seconds_left) else value.seconds_left,
        )

    def wait(self, milliseconds=-1):
        """True when the job ended well in time, False when it has not ended; raises the error that it failed of."""
        return self.library.call("job_wait", self._handle, milliseconds, allowed=(OK, TIMEOUT)) == OK

    def cancel(self):
        self.library.call("job_cancel", self._handle)

    def error(self):
        """The error that the job failed of, or an empty text."""
        return self.library.text("job_error", self._handle)

    def frames(self, channels="RGB", row_order="TOP_DOWN"):
        """The new clip."""
        return self._take("job_frames", channels, row_order)

    def preview(self, channels="RGB", row_order="TOP_DOWN"):
        """The new clip so far at an eighth of its size, or None where there is none yet."""
        try:
            return self._take("job_preview", channels, row_order)
        except LibraryError as error:
            if error.status == NOT_READY:
                return None
            raise

    def motion(self):
        """The motion that was read."""
        handle = abi.Motion()
        self.library.call("job_motion", self._handle, c.byref(handle))
        return Motion(self.library, handle)

    def close(self):
        """Cancels it where it has not ended, and lets go of it."""
        if self._handle:
            self.library.call("job_destroy", c.byref(self._handle))

    def _take(self, name, channels, row_order):
        size = self.library.make(abi.Frames)
        self.library.call(name, self._handle, c.byref(size))
        count, width, height = size.count, size.width, size.height
        data = bytearray(count * height * width * SAMPLES[channels])
        clip = Clip(data, count, width, height, channels, row_order)
        self.library.call(name, self._handle, c.byref(self.library.frames(clip)))
        return clip


class Motion:
    """The motion of a clip."""

    def __init__(self, library, handle):
        self.library, self.handle = library, handle

    def info(self):
        value = self.library.make(abi.MotionInfo)
        self.library.call("motion_info_get", self.handle, c.byref(value))
        return {name: getattr(value, name) for name, _ in abi.MotionInfo._fields_ if name != "struct_size"}

    def describe(self):
        """All that is known of it."""
        return json.loads(self.library.text("motion_describe", self.handle))

    def save(self, file):
        """Writes it as .safetensors, whole or not at all."""
        self.library.call("motion_save", self.handle, str(file).encode())

    def close(self):
        if self.handle:
            self.library.call("motion_destroy", c.byref(self.handle))
