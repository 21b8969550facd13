"""Engines, and the queue of jobs.

Nothing here knows of Blender: work that waits (loading a library, making an engine, writing files) is done on one
worker thread, and bpy must not be called from there. Blender asks `Session.poll` how things stand.
"""

import json
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from . import library, png

# The small model that comes with the extension, for when no bundle is chosen.
EMBEDDED = Path(__file__).parent / "bundle"
# How much of the model's denoising steps a quality preset takes.
QUALITIES = {"DRAFT": 0.25, "BALANCED": 0.5, "FULL": 1.0}


@dataclass(frozen=True)
class Place:
    """Where the work is done: what the preferences say."""

    bundle: str
    device: str = "AUTO"
    device_number: int = 0
    library: str = ""
    onnxruntime: str = ""

    def check(self):
        """Raises what can be said without waiting: that the library is missing, or that there is no bundle."""
        library.find(self.library)
        if not self.bundle and not EMBEDDED.is_dir():
            raise library.LibraryError(
                "No bundle is chosen: in the extension's preferences, choose the folder that `motionclone import` made."
            )

    def load(self):
        return library.Library(library.find(self.library))

    def engine(self, log=None):
        self.check()
        bundle = self.bundle or EMBEDDED
        return library.Engine(self.load(), bundle, self.device, self.device_number, self.onnxruntime, log=log)


@dataclass
class Request:
    """What a job is to make. `info` belongs to Blender's side: plain values, never its objects."""

    kind: str  # CLONE or EXTRACT
    title: str
    values: dict
    quality: str  # of QUALITIES, or CUSTOM: then `values` has the steps
    reference: library.Clip | None = None
    motion: str = ""  # file to clone from in place of a reference
    images: library.Images | None = None
    folder: Path | None = None  # that gets the results
    name: str = "clone"
    thumbnail: library.Clip | None = None  # of an extraction
    info: dict = field(default_factory=dict)


def settings(values, quality, defaults):
    """The library's settings: a preset scales the steps of the model and their shares, `strength` the model's weight
    of the motion."""
    values = dict(values)
    weight = defaults["motion_weight"] * values.pop("strength", 1.0)
    steps = values.get("steps") or max(1, round(defaults["steps"] * QUALITIES[quality]))
    shares = ("guidance_steps", "warm_up", "cool_up")
    scaled = {name: int(defaults[name] * steps / defaults["steps"]) for name in shares}
    return {**scaled, **values, "steps": steps, "motion_weight": weight}


class Job:
    """A request on its way. Its attributes may be read at any time.

    First its engine is opened; then it waits for the frames that Blender takes (`wants_frames`), until `Session.begin`;
    then the library makes the result, which is written to files last.
    """

    def __init__(self, request, place, number):
        self.request, self.place, self.number = request, place, number
        self.state, self.message = "QUEUED", "Waiting"
        self.defaults, self.wants_frames = {}, False
        self.step = self.total = 0
        self.seconds_left = None
        self.preview, self.previews = None, 0
        # For whoever takes the frames and draws the preview.
        self.gathering, self.drawn = None, 0
        self.files, self.used = [], {}
        self.started = time.monotonic()
        self.cancelled = threading.Event()
        self._work = self._native = self._next = None

    @property
    def ended(self):
        return self.state in ("DONE", "FAILED", "CANCELLED")

    @property
    def share(self):
        """How much of the stage at hand is done, 0 to 1."""
        return min(1.0, self.step / self.total) if self.total else 0.0

    def cancel(self):
        self.cancelled.set()
        if self._native:
            self._native.cancel()

    def fail(self, error):
        """Ends it with what went wrong."""
        stopped = self.cancelled.is_set() or getattr(error, "status", None) == library.CANCELLED
        self._end("CANCELLED" if stopped else "FAILED", "Cancelled" if stopped else str(error))

    def _end(self, state, message):
        self.state, self.message, self.wants_frames = state, message, False
        self.gathering = None
        # Frames are large, and the job stays in the panel's list.
        self.request.reference = self.request.images = None
        if self._native:
            self._native.close()
            self._native = None


class Session:
    """The engines and jobs of one Blender."""

    def __init__(self):
        self.jobs = []
        self.warning = ""  # the last one of the library
        self.found = []  # what the last examination found
        self._examination, self._added = None, 0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="motionclone")
        self._engines = {}
        self._defaults = {}

    @property
    def busy(self):
        return self._examination is not None or any(not job.ended for job in self.jobs)

    def add(self, request, place):
        """Queues a job."""
        self._added += 1
        job = Job(request, place, self._added)
        self.jobs.append(job)
        job._work, job._next = self._worker.submit(self._open, job), self._want_frames
        return job

    def begin(self, job):
        """Hands a job to the library, now that its request is complete."""
        job.wants_frames, job.step, job.total, job.message = False, 0, 0, "Waiting"
        job._work = self._worker.submit(self._start, job)

    def examine(self, place):
        """Begins to look at library, devices and bundle; `found` has the lines that say what there is, or what does
        not work."""
        self.found = ["Looking …"]
        self._examination = self._worker.submit(self._examine, place)

    def defaults(self, place):
        """The settings of a place's model, or None where its engine was never open."""
        return self._defaults.get(place)

    def poll(self):
        """Brings everything up to date; gives the jobs that have just ended. Does not wait."""
        if self._examination and self._examination.done():
            try:
                self.found = self._examination.result()
            except (library.LibraryError, OSError) as error:
                self.found = [str(error)]
            self._examination = None
        ended = []
        for job in self.jobs:
            if not job.ended:
                try:
                    self._advance(job)
                except (library.LibraryError, OSError, ValueError) as error:
                    job.fail(error)
                if job.ended:
                    ended.append(job)
        return ended

    def clear(self):
        """Forgets the jobs that have ended."""
        self.jobs = [job for job in self.jobs if not job.ended]

    def close(self):
        """Cancels everything and waits for the threads, no longer than a step."""
        for job in self.jobs:
            job.cancel()
        self._worker.shutdown(wait=True, cancel_futures=True)
        for job in self.jobs:
            if not job.ended:
                job._end("CANCELLED", "Cancelled")
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def _advance(self, job):
        if job._work:
            if not job._work.done():
                return
            work, job._work = job._work, None
            work.result()
            if job._next:
                after, job._next = job._next, None
                after(job)
        if job.ended:
            return
        if job.cancelled.is_set() and not job._native:
            raise library.LibraryError("Cancelled", library.CANCELLED)
        if job._native:
            self._watch(job)

    def _watch(self, job):
        progress = job._native.progress()
        job.step, job.total, job.seconds_left = progress.step, progress.total, progress.seconds_left
        if progress.state == "RUNNING":
            job.state, job.message = "RUNNING", progress.stage
        if progress.previews > job.previews:
            job.previews, job.preview = progress.previews, job._native.preview()
        if progress.state == "FAILED":
            raise library.LibraryError(job._native.error())
        if progress.state == "CANCELLED":
            raise library.LibraryError("Cancelled", library.CANCELLED)
        if progress.state == "DONE":
            job.message = "Writing files"
            job._work, job._next = self._worker.submit(self._write, job), lambda job: job._end("DONE", "Done")

    def _want_frames(self, job):
        job.wants_frames = True

    # On the worker thread, below.

    def _engine(self, place):
        """The engine for a place. Those of other places are given up once nothing uses them."""
        if place not in self._engines:
            used = {job.place for job in self.jobs if not job.ended}
            for other in [other for other in self._engines if other not in used]:
                self._engines.pop(other).close()
            self._engines[place] = place.engine(self._log)
            self._defaults[place] = self._engines[place].defaults()
        return self._engines[place]

    def _examine(self, place):
        loaded = place.load()
        lines = [f"Library {loaded.version}: {loaded.file}"]
        lines += [f"Device {device}" for device in loaded.devices(place.onnxruntime)]
        if place in self._engines and not any(job.place == place for job in self.jobs if not job.ended):
            # The bundle may have been made anew.
            self._engines.pop(place).close()
        engine = self._engine(place)
        name = Path(place.bundle).name if place.bundle else "The small model of the extension"
        lines.append(f"{name} works on {engine.device()}")
        lines.append("Model's own: {width}x{height}, {frames} frames, {steps} steps".format(**self._defaults[place]))
        return lines

    def _open(self, job):
        if not job.cancelled.is_set():
            self._engine(job.place)
            job.defaults = self._defaults[job.place]

    def _log(self, level, text):
        if level != "INFO":
            self.warning = text

    def _start(self, job):
        if job.cancelled.is_set():
            raise library.LibraryError("Cancelled", library.CANCELLED)
        request, engine = job.request, self._engine(job.place)
        job.used = settings(request.values, request.quality, job.defaults)
        if request.kind == "EXTRACT":
            job._native = engine.extract(request.reference, job.used, request.images)
        elif request.motion:
            motion = engine.library.load_motion(request.motion)
            try:
                # A clone must share what the motion was read with.
                info = motion.info()
                job.used.update({name: info[name] for name in ("width", "height", "frames", "noise_step", "top_k")})
                job._native = engine.clone(motion, job.used, request.images)
            finally:
                motion.close()
        else:
            job._native = engine.clone(request.reference, job.used, request.images)
        # Cancelled while the job was on its way.
        if job.cancelled.is_set():
            job._native.cancel()

    def _write(self, job):
        """Writes the results into a folder of their own, which is there whole or not at all."""
        request = job.request
        if request.kind == "EXTRACT":
            parts = self._motion_files(job)
        else:
            parts = self._frame_files(job)
        request.folder.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=request.folder))
        try:
            names = []
            for name, write in parts:
                if job.cancelled.is_set():
                    raise library.LibraryError("Cancelled", library.CANCELLED)
                write(unfinished / name)
                names.append(name)
            os.chmod(unfinished, 0o755)
            folder = claim(request.folder, request.name, unfinished)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        job.files = [folder / name for name in names]

    def _frame_files(self, job):
        clip, used = job._native.frames(), job.used
        job.preview, job.previews = small(clip), job.previews + 1
        about = {
            "Description": used.get("prompt", ""),
            "Software": "motionclone",
            "motionclone": json.dumps(used, ensure_ascii=False, sort_keys=True),
        }
        for index in range(clip.count):
            data = png.encode(clip.frame(index), clip.width, clip.height, about)
            yield f"frame_{index:04}.png", lambda file, data=data: file.write_bytes(data)

    def _motion_files(self, job):
        motion = job._native.motion()
        try:
            yield "motion.safetensors", motion.save
        finally:
            motion.close()
        clip = job.request.thumbnail
        data = png.encode(clip.frame(0), clip.width, clip.height)
        yield "thumbnail.png", lambda file: file.write_bytes(data)
        about = {"name": job.request.title, **{k: job.used[k] for k in ("width", "height", "frames")}}
        text = json.dumps(about, ensure_ascii=False, indent=1)
        yield "about.json", lambda file: file.write_text(text, encoding="utf-8")


def small(clip, side=128):
    """The middle frame of an RGB clip, made small by leaving pixels out."""
    stride = max(1, -(-max(clip.width, clip.height) // side))
    frame, row, rows = clip.frame(clip.count // 2), clip.width * 3, []
    for y in range(0, clip.height, stride):
        line = frame[y * row : y * row + row]
        pixels = bytearray(-(-clip.width // stride) * 3)
        for c in range(3):
            pixels[c::3] = line[c :: 3 * stride]
        rows.append(pixels)
    return library.Clip(bytearray().join(rows), 1, len(rows[0]) // 3, len(rows))


def claim(parent, name, unfinished):
    """Renames a finished folder to `name`, with a number behind it that no other folder has."""
    for number in range(1, 10000):
        folder = parent / f"{name}-{number:03}"
        if folder.exists():
            continue
        try:
            os.rename(unfinished, folder)
        except OSError:
            # Another program took the name in the meantime.
            if folder.exists():
                continue
            raise
        return folder
    raise OSError(f"{parent} has too many results of the name {name}: choose another folder")
