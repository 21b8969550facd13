"""The C library, through ctypes.

Everything of motionclone.h that the extension needs, as Python classes. Nothing here knows of Blender; all of it may be
used from any thread.
"""

import ctypes as c
import json
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

# The MOTIONCLONE_ABI_VERSION of the header that this file was written after.
ABI_VERSION = 0

# motionclone_status
OK, TIMEOUT, NOT_READY, CANCELLED = 0, 7, 6, 8
# motionclone_device_kind
DEVICE_KINDS = {"AUTO": 0, "CPU": 1, "CUDA": 2}
# motionclone_image_kind
IMAGE_KINDS = {"PICTURE": 0, "SKETCH": 1}
# motionclone_channels, with the samples of a pixel
CHANNELS = {"RGB": (0, 3), "RGBA": (2, 4)}
# motionclone_row_order
ROW_ORDERS = {"TOP_DOWN": 0, "BOTTOM_UP": 1}
# motionclone_job_state
STATES = ("QUEUED", "RUNNING", "DONE", "FAILED", "CANCELLED")
# motionclone_job_stage, as people read it
STAGES = ("Loading networks", "Encoding", "Reading the motion", "Making the clip", "Decoding")
# motionclone_log_level
LOG_LEVELS = ("INFO", "WARNING", "ERROR")

# The library's name on this system.
FILE_NAME = {"win32": "motionclone.dll", "darwin": "libmotionclone.dylib"}.get(sys.platform, "libmotionclone.so")
# Names the library's file or its folder.
ENVIRONMENT = "MOTIONCLONE_LIBRARY"


class LibraryError(RuntimeError):
    """Something that the library, or its absence, has to say to the user."""

    def __init__(self, message, status=None):
        super().__init__(message)
        self.status = status


class EngineOptionsC(c.Structure):
    LOG = c.CFUNCTYPE(None, c.c_uint32, c.c_char_p, c.c_void_p)
    _fields_ = [
        ("struct_size", c.c_size_t), ("device_kind", c.c_uint32), ("device_number", c.c_uint32),
        ("threads", c.c_uint32), ("memory_budget", c.c_uint32), ("onnxruntime", c.c_char_p), ("log", LOG),
        ("log_user_data", c.c_void_p),
    ]  # fmt: skip


class DeviceC(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("kind", c.c_uint32), ("number", c.c_uint32), ("name", c.c_char * 64)]


class FramesC(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t), ("data", c.c_void_p), ("frame_data", c.POINTER(c.c_void_p)),
        ("row_stride", c.c_int64), ("frame_stride", c.c_int64), ("count", c.c_uint32), ("width", c.c_uint32),
        ("height", c.c_uint32), ("channels", c.c_uint32), ("sample", c.c_uint32), ("row_order", c.c_uint32),
        ("alpha", c.c_uint32), ("transfer", c.c_uint32),
    ]  # fmt: skip


class ImageC(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t), ("pixels", c.POINTER(FramesC)), ("frame", c.c_uint32), ("reserved", c.c_uint32),
    ]  # fmt: skip


class SettingsC(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t), ("prompt", c.c_char_p), ("negative_prompt", c.c_char_p), ("blocks", c.c_char_p),
        ("images", c.POINTER(ImageC)), ("image_count", c.c_uint32), ("image_kind", c.c_uint32),
        ("image_scale", c.c_double), ("seed", c.c_uint64), ("width", c.c_uint32), ("height", c.c_uint32),
        ("frames", c.c_uint32), ("steps", c.c_uint32), ("guidance_steps", c.c_uint32), ("warm_up", c.c_uint32),
        ("cool_up", c.c_uint32), ("noise_step", c.c_uint32), ("top_k", c.c_uint32), ("reserved", c.c_uint32),
        ("guidance_scale", c.c_double), ("motion_weight", c.c_double), ("cfg", c.c_double),
    ]  # fmt: skip


class ProgressC(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t), ("state", c.c_uint32), ("stage", c.c_uint32), ("step", c.c_uint32),
        ("total", c.c_uint32), ("previews", c.c_uint32), ("reserved", c.c_uint32), ("loss", c.c_double),
        ("seconds_left", c.c_double),
    ]  # fmt: skip


class MotionInfoC(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t), ("width", c.c_uint32), ("height", c.c_uint32), ("frames", c.c_uint32),
        ("noise_step", c.c_uint32), ("top_k", c.c_uint32), ("image_count", c.c_uint32), ("seed", c.c_uint64),
    ]  # fmt: skip


HANDLE = c.c_uint64
_SIZED = {
    "engine_options": EngineOptionsC,
    "device": DeviceC,
    "frames": FramesC,
    "image": ImageC,
    "progress": ProgressC,
    "motion_info": MotionInfoC,
}
# Name without `motionclone_` -> argument types; all of these return a motionclone_status.
FUNCTIONS = {
    **{f"{name}_init": (c.POINTER(kind), c.c_size_t) for name, kind in _SIZED.items()},
    "settings_init": (c.POINTER(SettingsC), c.c_size_t, HANDLE),
    "shutdown": (),
    "devices": (c.c_char_p, c.POINTER(DeviceC), c.c_size_t, c.POINTER(c.c_size_t)),
    "engine_create": (c.c_char_p, c.POINTER(EngineOptionsC), c.POINTER(HANDLE)),
    "engine_destroy": (c.POINTER(HANDLE),),
    "engine_device": (HANDLE, c.POINTER(DeviceC)),
    "job_extract": (HANDLE, c.POINTER(FramesC), c.POINTER(SettingsC), c.POINTER(HANDLE)),
    "job_clone": (HANDLE, c.POINTER(FramesC), c.POINTER(SettingsC), c.POINTER(HANDLE)),
    "job_clone_motion": (HANDLE, HANDLE, c.POINTER(SettingsC), c.POINTER(HANDLE)),
    "job_progress": (HANDLE, c.POINTER(ProgressC)),
    "job_wait": (HANDLE, c.c_int64),
    "job_cancel": (HANDLE,),
    "job_preview": (HANDLE, c.POINTER(FramesC)),
    "job_frames": (HANDLE, c.POINTER(FramesC)),
    "job_motion": (HANDLE, c.POINTER(HANDLE)),
    "job_error": (HANDLE, c.c_void_p, c.c_size_t, c.POINTER(c.c_size_t)),
    "job_destroy": (c.POINTER(HANDLE),),
    "motion_load": (c.c_char_p, c.POINTER(HANDLE)),
    "motion_save": (HANDLE, c.c_char_p),
    "motion_info_get": (HANDLE, c.POINTER(MotionInfoC)),
    "motion_describe": (HANDLE, c.c_void_p, c.c_size_t, c.POINTER(c.c_size_t)),
    "motion_destroy": (c.POINTER(HANDLE),),
}


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
        size = self.width * self.height * CHANNELS[self.channels][1]
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
            abi = self._c.motionclone_abi_version()
        except AttributeError as error:
            raise LibraryError(f"{file} is not the motionclone library: it has no function of its name.") from error
        if abi != ABI_VERSION:
            raise LibraryError(
                f"{file} (motionclone {self.version}) has interface version {abi}, and this extension needs "
                f"{ABI_VERSION}. Use the library that came with the extension."
            )
        try:
            self._c.motionclone_last_error.restype = c.c_char_p
            for name, arguments in FUNCTIONS.items():
                function = getattr(self._c, f"motionclone_{name}")
                function.restype, function.argtypes = c.c_uint32, arguments
        except AttributeError as error:
            raise LibraryError(f"{file} (motionclone {self.version}) is damaged or incomplete: {error}.") from error

    def call(self, name, *arguments, allowed=(OK,)):
        """The status of a call; one that is not allowed becomes an error with the library's own sentence."""
        status = getattr(self._c, f"motionclone_{name}")(*arguments)
        if status not in allowed:
            raise LibraryError(self._c.motionclone_last_error().decode(errors="replace"), status)
        return status

    def make(self, name):
        """A structure, set up by its own function."""
        value = _SIZED[name]()
        self.call(f"{name}_init", c.byref(value), c.sizeof(value))
        return value

    def frames(self, clip):
        """A clip's memory as the library reads or writes it; the clip must be kept as long."""
        code, samples = CHANNELS[clip.channels]
        view = memoryview(clip.data).cast("B")
        needed = clip.count * clip.height * clip.width * samples
        if view.nbytes != needed or view.readonly:
            raise ValueError(f"a clip needs {needed} writable bytes, and has {view.nbytes}")
        frames = self.make("frames")
        frames.data = c.addressof(c.c_char.from_buffer(view))
        frames.count, frames.width, frames.height = clip.count, clip.width, clip.height
        frames.channels, frames.row_order = code, ROW_ORDERS[clip.row_order]
        return frames

    def text(self, name, handle):
        """A text that the library copies out."""
        needed = c.c_size_t()
        self.call(name, handle, None, 0, c.byref(needed))
        buffer = c.create_string_buffer(needed.value)
        self.call(name, handle, c.cast(buffer, c.c_void_p), needed.value, c.byref(needed))
        return buffer.value.decode(errors="replace")

    def devices(self, onnxruntime=""):
        """Names of the devices there are: the CPU, then every CUDA device that works."""
        runtime, count = onnxruntime.encode() or None, c.c_size_t()
        self.call("devices", runtime, None, 0, c.byref(count))
        devices = (DeviceC * count.value)()
        for device in devices:
            self.call("device_init", c.byref(device), c.sizeof(DeviceC))
        self.call("devices", runtime, devices, len(devices), c.byref(count))
        kinds = {number: name for name, number in DEVICE_KINDS.items()}
        return [
            f"{kinds.get(d.kind, d.kind)} {d.number}: {d.name.decode(errors='replace')}"
            for d in devices[: count.value]
        ]

    def load_motion(self, file):
        """A motion from a file."""
        handle = HANDLE()
        self.call("motion_load", str(file).encode(), c.byref(handle))
        return Motion(self, handle)


class Engine:
    """A model on a device. Making one waits: not on a thread that draws."""

    def __init__(self, library, bundle, device="AUTO", number=0, onnxruntime="", threads=0, log=None):
        self.library, self._handle = library, HANDLE()
        options = library.make("engine_options")
        options.device_kind, options.device_number, options.threads = DEVICE_KINDS[device], number, threads
        options.onnxruntime = onnxruntime.encode() or None
        if log:
            # Kept as long as the engine, which calls it.
            self._log = EngineOptionsC.LOG(
                lambda level, message, _: log(
                    LOG_LEVELS[min(level, len(LOG_LEVELS) - 1)], message.decode(errors="replace")
                )
            )
            options.log = self._log
        library.call("engine_create", str(bundle).encode(), c.byref(options), c.byref(self._handle))

    def device(self):
        """The name of the device that it computes on."""
        device = self.library.make("device")
        self.library.call("engine_device", self._handle, c.byref(device))
        return device.name.decode(errors="replace")

    def defaults(self):
        """The model's own settings."""
        settings = SettingsC()
        self.library.call("settings_init", c.byref(settings), c.sizeof(settings), self._handle)
        skipped = ("struct_size", "reserved", "prompt", "negative_prompt", "blocks", "images", "image_count")
        return {name: getattr(settings, name) for name, _ in SettingsC._fields_ if name not in skipped}

    def _settings(self, values, images):
        """Settings for a job from a dictionary of the structure's fields, and what must be kept during the call."""
        settings, kept = SettingsC(), []
        self.library.call("settings_init", c.byref(settings), c.sizeof(settings), self._handle)
        for name, value in values.items():
            if isinstance(value, str):
                if "\0" in value:
                    raise LibraryError(f"the {name.replace('_', ' ')} has a character that no text may have (zero)")
                value = value.encode()
            setattr(settings, name, value)
        if images and images.items:
            array = (ImageC * len(images.items))()
            for image, (clip, frame) in zip(array, images.items):
                self.library.call("image_init", c.byref(image), c.sizeof(ImageC))
                frames = self.library.frames(clip)
                kept.append(frames)
                image.pixels, image.frame = c.pointer(frames), frame
            settings.images, settings.image_count = array, len(array)
            settings.image_kind, settings.image_scale = IMAGE_KINDS[images.kind], images.scale
            kept.append(array)
        return settings, kept

    def clone(self, reference, values, images=None):
        """Starts a job that makes a clip which moves like `reference`: a Clip, or a Motion that was read before."""
        handle, (settings, _kept) = HANDLE(), self._settings(values, images)
        if isinstance(reference, Motion):
            name, source = "job_clone_motion", reference.handle
        else:
            name, source = "job_clone", c.byref(self.library.frames(reference))
        self.library.call(name, self._handle, source, c.byref(settings), c.byref(handle))
        return Job(self.library, handle)

    def extract(self, reference, values, images=None):
        """Starts a job that reads the motion of a clip."""
        handle, (settings, _kept) = HANDLE(), self._settings(values, images)
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
        value = self.library.make("progress")
        self.library.call("job_progress", self._handle, c.byref(value))
        return Progress(
            STATES[value.state],
            STAGES[value.stage] if value.stage < len(STAGES) else "Working",
            value.step,
            value.total,
            value.previews,
            None if math.isnan(value.loss) else value.loss,
            None if math.isnan(value.seconds_left) else value.seconds_left,
        )

    def wait(self, milliseconds=-1):
        """Whether the job ended well within the time; raises what it failed of."""
        return self.library.call("job_wait", self._handle, milliseconds, allowed=(OK, TIMEOUT)) == OK

    def cancel(self):
        self.library.call("job_cancel", self._handle)

    def error(self):
        """What went wrong, or an empty text."""
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
        handle = HANDLE()
        self.library.call("job_motion", self._handle, c.byref(handle))
        return Motion(self.library, handle)

    def close(self):
        """Cancels it where it has not ended, and lets go of it."""
        if self._handle:
            self.library.call("job_destroy", c.byref(self._handle))

    def _take(self, name, channels, row_order):
        size = self.library.make("frames")
        self.library.call(name, self._handle, c.byref(size))
        count, width, height = size.count, size.width, size.height
        data = bytearray(count * height * width * CHANNELS[channels][1])
        clip = Clip(data, count, width, height, channels, row_order)
        self.library.call(name, self._handle, c.byref(self.library.frames(clip)))
        return clip


class Motion:
    """The motion of a clip."""

    def __init__(self, library, handle):
        self.library, self.handle = library, handle

    def info(self):
        value = self.library.make("motion_info")
        self.library.call("motion_info_get", self.handle, c.byref(value))
        return {name: getattr(value, name) for name, _ in MotionInfoC._fields_ if name != "struct_size"}

    def describe(self):
        """All that is known of it."""
        return json.loads(self.library.text("motion_describe", self.handle))

    def save(self, file):
        """Writes it as .safetensors, whole or not at all."""
        self.library.call("motion_save", self.handle, str(file).encode())

    def close(self):
        if self.handle:
            self.library.call("motion_destroy", c.byref(self.handle))
