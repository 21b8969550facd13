#!/usr/bin/env python3
"""Clones the motion of a clip that is drawn here, with Python's standard library and the binding beside this file.

    clone.py LIBRARY BUNDLE OUT [WIDTH HEIGHT FRAMES STEPS]

OUT gets the new clip's frames, one after another, as 8-bit RGB without a header. Ctrl-C cancels.
"""

import ctypes as c
import math
import sys

from motionclone_abi import (
    ABI_VERSION, DeviceKind, Engine, EngineOptions, Frames, Job, JobStage, Log, Progress, Settings, Status, bind,
)  # fmt: skip


def check(library, status):
    """Raises what is not OK."""
    if status != Status.OK:
        raise RuntimeError(library.motionclone_last_error().decode())


def make(library, kind, init, *arguments):
    """A structure, set up by its own function."""
    value = kind()
    check(library, init(c.byref(value), c.sizeof(value), *arguments))
    return value


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
    progress, shown = make(library, Progress, library.motionclone_progress_init), None
    while (status := library.motionclone_job_wait(job, 20)) == Status.TIMEOUT:
        check(library, library.motionclone_job_progress(job, c.byref(progress)))
        now = (JobStage(progress.stage).name.lower(), progress.step, progress.total)
        if now != shown:
            loss = "" if math.isnan(progress.loss) else f"  loss {progress.loss:.4f}"
            print("{:<8} {}/{}".format(*now) + loss)
            shown = now
    check(library, status)


def clone(library, bundle, out, sizes):
    engine, job = Engine(), Job()
    options = make(library, EngineOptions, library.motionclone_engine_options_init)
    options.device_kind = DeviceKind.CPU
    # The library calls it as long as the engine lives, and so long it must be kept here.
    log = Log(lambda level, message, _: print(message.decode(), file=sys.stderr))
    options.log = log
    check(library, library.motionclone_engine_create(bundle.encode(), c.byref(options), c.byref(engine)))
    try:
        settings = make(library, Settings, library.motionclone_settings_init, engine)
        settings.prompt = b"Relics on the seabed"
        if sizes:
            settings.width, settings.height, settings.frames, settings.steps = sizes
            settings.guidance_steps = settings.steps // 2
            settings.warm_up = settings.cool_up = settings.steps // 10
        reference = make(library, Frames, library.motionclone_frames_init)
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
        frames = make(library, Frames, library.motionclone_frames_init)
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
    bind(library)
    if library.motionclone_abi_version() != ABI_VERSION:
        sys.exit(f"this program was made for another version than {library.motionclone_version().decode()}")
    try:
        clone(library, arguments[1], arguments[2], [int(number) for number in arguments[3:]])
    except RuntimeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
