"""The interface of motionclone's C library, for ctypes. What everything means stands in motionclone.h.

This file is made by `cargo xtask header`; do not edit it.
"""

import ctypes as c
from enum import IntEnum

ABI_VERSION = 0


class Status(IntEnum):
    OK = 0
    INVALID_ARGUMENT = 1
    INVALID_HANDLE = 2
    INVALID_STRUCT_SIZE = 3
    INVALID_INPUT = 4
    BUFFER_SIZE = 5
    NOT_READY = 6
    TIMEOUT = 7
    CANCELLED = 8
    WRONG_THREAD = 9
    FAILED = 10
    INTERNAL = 11
    WRONG_PROCESS = 12


class JobState(IntEnum):
    QUEUED = 0
    RUNNING = 1
    DONE = 2
    FAILED = 3
    CANCELLED = 4


class SettingKind(IntEnum):
    INTEGER = 0
    SEED = 1
    NUMBER = 2
    TEXT = 3
    CHOICE = 4
    LIST = 5


class JobStage(IntEnum):
    LOAD = 0
    ENCODE = 1
    EXTRACT = 2
    DENOISE = 3
    DECODE = 4


class DeviceKind(IntEnum):
    AUTO = 0
    CPU = 1
    CUDA = 2


class ImageKind(IntEnum):
    PICTURE = 0
    SKETCH = 1


class Channels(IntEnum):
    RGB = 0
    BGR = 1
    RGBA = 2
    BGRA = 3


class Sample(IntEnum):
    U8 = 0
    U16 = 1
    F16 = 2
    F32 = 3


class RowOrder(IntEnum):
    TOP_DOWN = 0
    BOTTOM_UP = 1


class Alpha(IntEnum):
    STRAIGHT = 0
    PREMULTIPLIED = 1


class Transfer(IntEnum):
    SRGB = 0
    LINEAR = 1


class LogLevel(IntEnum):
    INFO = 0
    WARNING = 1
    ERROR = 2


class SettingInfo(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        ("name", c.c_char_p),
        ("help", c.c_char_p),
        ("unit", c.c_char_p),
        ("since", c.c_char_p),
        ("choices", c.c_char_p),
        ("kind", c.c_uint32),
        ("advanced", c.c_uint32),
        ("changes_motion", c.c_uint32),
        ("identity", c.c_uint32),
        ("default_number", c.c_double),
        ("least", c.c_double),
        ("most", c.c_double),
        ("multiple_of", c.c_double),
        ("usual_least", c.c_double),
        ("usual_most", c.c_double),
    ]


Engine = c.c_uint64


class Frames(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        ("data", c.c_void_p),
        ("frame_data", c.POINTER(c.c_void_p)),
        ("row_stride", c.c_int64),
        ("frame_stride", c.c_int64),
        ("count", c.c_uint32),
        ("width", c.c_uint32),
        ("height", c.c_uint32),
        ("channels", c.c_uint32),
        ("sample", c.c_uint32),
        ("row_order", c.c_uint32),
        ("alpha", c.c_uint32),
        ("transfer", c.c_uint32),
    ]


class Image(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        ("pixels", c.POINTER(Frames)),
        ("frame", c.c_uint32),
        ("reserved", c.c_uint32),
    ]


class Settings(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        ("prompt", c.c_char_p),
        ("negative_prompt", c.c_char_p),
        ("blocks", c.c_char_p),
        ("images", c.POINTER(Image)),
        ("image_count", c.c_uint32),
        ("image_kind", c.c_uint32),
        ("image_scale", c.c_double),
        ("seed", c.c_uint64),
        ("width", c.c_uint32),
        ("height", c.c_uint32),
        ("frames", c.c_uint32),
        ("steps", c.c_uint32),
        ("guidance_steps", c.c_uint32),
        ("warm_up", c.c_uint32),
        ("cool_up", c.c_uint32),
        ("noise_step", c.c_uint32),
        ("top_k", c.c_uint32),
        ("noise", c.c_uint32),
        ("guidance_scale", c.c_double),
        ("motion_weight", c.c_double),
        ("cfg", c.c_double),
        ("others", c.c_double * 16),
    ]


Log = c.CFUNCTYPE(None, c.c_uint32, c.c_char_p, c.c_void_p)


class EngineOptions(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        ("device_kind", c.c_uint32),
        ("device_number", c.c_uint32),
        ("threads", c.c_uint32),
        ("memory_budget", c.c_uint32),
        ("onnxruntime", c.c_char_p),
        ("log", Log),
        ("log_user_data", c.c_void_p),
    ]


class Device(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        ("kind", c.c_uint32),
        ("number", c.c_uint32),
        ("name", c.c_char * 64),
    ]


Job = c.c_uint64


Motion = c.c_uint64


class Progress(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        ("state", c.c_uint32),
        ("stage", c.c_uint32),
        ("step", c.c_uint32),
        ("total", c.c_uint32),
        ("previews", c.c_uint32),
        ("reserved", c.c_uint32),
        ("loss", c.c_double),
        ("seconds_left", c.c_double),
    ]


class MotionInfo(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        ("width", c.c_uint32),
        ("height", c.c_uint32),
        ("frames", c.c_uint32),
        ("noise_step", c.c_uint32),
        ("top_k", c.c_uint32),
        ("image_count", c.c_uint32),
        ("seed", c.c_uint64),
    ]


# Name -> the type of its result and of its arguments.
FUNCTIONS = {
    "motionclone_version": (c.c_char_p, []),
    "motionclone_abi_version": (c.c_uint32, []),
    "motionclone_status_text": (c.c_char_p, [c.c_uint32]),
    "motionclone_last_error": (c.c_char_p, []),
    "motionclone_shutdown": (c.c_uint32, []),
    "motionclone_setting_count": (c.c_uint32, []),
    "motionclone_setting_info_init": (c.c_uint32, [c.POINTER(SettingInfo), c.c_size_t]),
    "motionclone_setting_describe": (c.c_uint32, [c.c_uint32, Engine, c.POINTER(SettingInfo)]),
    "motionclone_settings_set_number": (c.c_uint32, [c.POINTER(Settings), Engine, c.c_char_p, c.c_double]),
    "motionclone_settings_set_text": (c.c_uint32, [c.POINTER(Settings), Engine, c.c_char_p, c.c_char_p]),
    "motionclone_settings_get_text": (
        c.c_uint32,
        [c.POINTER(Settings), Engine, c.c_char_p, c.POINTER(c.c_char), c.c_size_t, c.POINTER(c.c_size_t)],
    ),
    "motionclone_engine_options_init": (c.c_uint32, [c.POINTER(EngineOptions), c.c_size_t]),
    "motionclone_device_init": (c.c_uint32, [c.POINTER(Device), c.c_size_t]),
    "motionclone_devices": (c.c_uint32, [c.c_char_p, c.POINTER(Device), c.c_size_t, c.POINTER(c.c_size_t)]),
    "motionclone_engine_open": (c.c_uint32, [c.c_char_p, c.POINTER(EngineOptions), c.POINTER(Engine)]),
    "motionclone_engine_wait": (c.c_uint32, [Engine, c.c_int64]),
    "motionclone_engine_create": (c.c_uint32, [c.c_char_p, c.POINTER(EngineOptions), c.POINTER(Engine)]),
    "motionclone_engine_destroy": (c.c_uint32, [c.POINTER(Engine)]),
    "motionclone_engine_device": (c.c_uint32, [Engine, c.POINTER(Device)]),
    "motionclone_job_extract": (c.c_uint32, [Engine, c.POINTER(Frames), c.POINTER(Settings), c.POINTER(Job)]),
    "motionclone_job_clone": (c.c_uint32, [Engine, c.POINTER(Frames), c.POINTER(Settings), c.POINTER(Job)]),
    "motionclone_job_clone_motion": (c.c_uint32, [Engine, Motion, c.POINTER(Settings), c.POINTER(Job)]),
    "motionclone_progress_init": (c.c_uint32, [c.POINTER(Progress), c.c_size_t]),
    "motionclone_job_progress": (c.c_uint32, [Job, c.POINTER(Progress)]),
    "motionclone_job_wait": (c.c_uint32, [Job, c.c_int64]),
    "motionclone_job_cancel": (c.c_uint32, [Job]),
    "motionclone_job_preview": (c.c_uint32, [Job, c.POINTER(Frames)]),
    "motionclone_job_frames": (c.c_uint32, [Job, c.POINTER(Frames)]),
    "motionclone_job_motion": (c.c_uint32, [Job, c.POINTER(Motion)]),
    "motionclone_job_error": (c.c_uint32, [Job, c.POINTER(c.c_char), c.c_size_t, c.POINTER(c.c_size_t)]),
    "motionclone_job_destroy": (c.c_uint32, [c.POINTER(Job)]),
    "motionclone_motion_info_init": (c.c_uint32, [c.POINTER(MotionInfo), c.c_size_t]),
    "motionclone_motion_load": (c.c_uint32, [c.c_char_p, c.POINTER(Motion)]),
    "motionclone_motion_save": (c.c_uint32, [Motion, c.c_char_p]),
    "motionclone_motion_info_get": (c.c_uint32, [Motion, c.POINTER(MotionInfo)]),
    "motionclone_motion_describe": (c.c_uint32, [Motion, c.POINTER(c.c_char), c.c_size_t, c.POINTER(c.c_size_t)]),
    "motionclone_motion_destroy": (c.c_uint32, [c.POINTER(Motion)]),
    "motionclone_frames_init": (c.c_uint32, [c.POINTER(Frames), c.c_size_t]),
    "motionclone_image_init": (c.c_uint32, [c.POINTER(Image), c.c_size_t]),
    "motionclone_settings_init": (c.c_uint32, [c.POINTER(Settings), c.c_size_t, Engine]),
}


def bind(library):
    """Gives the functions of a library that ctypes has loaded their types. AttributeError where one is missing."""
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
