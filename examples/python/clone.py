#!/usr/bin/env python3
"""Clones the motion of a clip that is drawn here, with Python's standard library alone.

    clone.py LIBRARY BUNDLE OUT [WIDTH HEIGHT FRAMES STEPS]

OUT gets the new clip's frames, one after another, as 8-bit RGB without a header. Ctrl-C cancels.
"""

import ctypes as c
import math
import sys

OK, TIMEOUT = 0, 7
CPU = 1
STAGES = ["load", "encode", "extract", "denoise", "decode"]


class Structure(c.Structure):
    """A structure of motionclone.h, set up by its own function."""

    @classmethod
    def make(cls, library, *arguments):
        value = cls()
        init = getattr(library, cls.INIT)
        check(library, init(c.byref(value), c.c_size_t(c.sizeof(cls)), *arguments))
        return value


class EngineOptions(Structure):
    INIT = "motionclone_engine_options_init"
    LOG = c.CFUNCTYPE(None, c.c_uint32, c.c_char_p, c.c_void_p)
    _fields_ = [
        ("struct_size", c.c_size_t), ("device_kind", c.c_uint32), ("device_number", c.c_uint32),
        ("threads", c.c_uint32), ("reserved", c.c_uint32), ("onnxruntime", c.c_char_p), ("log", LOG),
        ("log_user_data", c.c_void_p),
    ]  # fmt: skip


class Frames(Structure):
    INIT = "motionclone_frames_init"
    _fields_ = [
        ("struct_size", c.c_size_t), ("data", c.c_void_p), ("frame_data", c.POINTER(c.c_void_p)),
        ("row_stride", c.c_int64), ("frame_stride", c.c_int64),
        *((name, c.c_uint32) for name in "count width height channels sample row_order alpha transfer".split()),
    ]  # fmt: skip


class Settings(Structure):
    INIT = "motionclone_settings_init"
    _fields_ = [
        ("struct_size", c.c_size_t), ("prompt", c.c_char_p), ("negative_prompt", c.c_char_p), ("blocks", c.c_char_p),
        ("images", c.c_void_p), ("image_count", c.c_uint32), ("image_kind", c.c_uint32), ("image_scale", c.c_double),
        ("seed", c.c_uint64),
        *((name, c.c_uint32) for name in "width height frames steps guidance_steps".split()),
        *((name, c.c_uint32) for name in "warm_up cool_up noise_step top_k reserved".split()),
        ("guidance_scale", c.c_double), ("motion_weight", c.c_double), ("cfg", c.c_double),
    ]  # fmt: skip


class Progress(Structure):
    INIT = "motionclone_progress_init"
    _fields_ = [
        ("struct_size", c.c_size_t),
        *((name, c.c_uint32) for name in "state stage step total previews reserved".split()),
        ("loss", c.c_double), ("seconds_left", c.c_double),
    ]  # fmt: skip


def check(library, status):
    """Raises what is not OK."""
    if status != OK:
        raise RuntimeError(library.motionclone_last_error().decode())


def draw(width, height, count):
    """Soft stripes that move to the right."""
    pixels = bytearray()
    for t in range(count):
        for y in range(height):
            for x in range(width):
                u = x - 3.0 * t
                waves = (u / 7.0, y / 5.0 + u / 11.0, (u + y) / 9.0)
                pixels.extend(int(127.5 + 100.0 * math.sin(wave)) for wave in waves)
    return pixels


def watch(library, job):
    """Shows how a job stands until it has ended."""
    progress, shown = Progress.make(library), None
    while (status := library.motionclone_job_wait(job, c.c_int64(20))) == TIMEOUT:
        check(library, library.motionclone_job_progress(job, c.byref(progress)))
        now = (STAGES[progress.stage], progress.step, progress.total)
        if now != shown:
            loss = "" if math.isnan(progress.loss) else f"  loss {progress.loss:.4f}"
            print("{:<8} {}/{}".format(*now) + loss)
            shown = now
    check(library, status)


def clone(library, bundle, out, sizes):
    engine, job = c.c_uint64(), c.c_uint64()
    options = EngineOptions.make(library)
    options.device_kind = CPU
    # The library calls it as long as the engine lives, and so long it must be kept here.
    log = EngineOptions.LOG(lambda level, message, _: print(message.decode(), file=sys.stderr))
    options.log = log
    check(library, library.motionclone_engine_create(bundle.encode(), c.byref(options), c.byref(engine)))
    try:
        settings = Settings.make(library, engine)
        settings.prompt = b"Relics on the seabed"
        if sizes:
            settings.width, settings.height, settings.frames, settings.steps = sizes
            settings.guidance_steps = settings.steps // 2
            settings.warm_up = settings.cool_up = settings.steps // 10
        reference = Frames.make(library)
        reference.count, reference.width, reference.height = 12, 96, 64
        pixels = draw(reference.width, reference.height, reference.count)
        reference.data = c.addressof(c.c_char.from_buffer(pixels))
        check(library, library.motionclone_job_clone(engine, c.byref(reference), c.byref(settings), c.byref(job)))
        try:
            watch(library, job)
        except KeyboardInterrupt:
            check(library, library.motionclone_job_cancel(job))
            watch(library, job)
        # Without memory, the library tells the size.
        frames = Frames.make(library)
        check(library, library.motionclone_job_frames(job, c.byref(frames)))
        clip = bytearray(frames.count * frames.width * frames.height * 3)
        frames.data = c.addressof(c.c_char.from_buffer(clip))
        check(library, library.motionclone_job_frames(job, c.byref(frames)))
        with open(out, "wb") as file:
            file.write(clip)
        print(f"{out}: {frames.count} frames of {frames.width}x{frames.height}")
    finally:
        check(library, library.motionclone_job_destroy(c.byref(job)))
        check(library, library.motionclone_engine_destroy(c.byref(engine)))


def main(arguments):
    if len(arguments) not in (3, 7):
        sys.exit(__doc__)
    library = c.CDLL(arguments[0])
    library.motionclone_last_error.restype = c.c_char_p
    library.motionclone_version.restype = c.c_char_p
    if library.motionclone_abi_version() != 0:
        sys.exit(f"this program was made for another version than {library.motionclone_version().decode()}")
    try:
        clone(library, arguments[1], arguments[2], [int(number) for number in arguments[3:]])
    except RuntimeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
