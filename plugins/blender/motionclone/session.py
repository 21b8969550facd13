"""Engines, and the queue of jobs.

Nothing here knows of Blender: work that waits (loading a library, making an engine, writing files) is done on one
worker thread, and bpy must not be called from there. Blender asks `Session.poll` how things stand.
"""

import contextlib
import json
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from . import library, png, results
from .worker import Worker

# The small model that comes with the extension, for when no bundle is chosen.
EMBEDDED = Path(__file__).parent / "bundle"
# Seconds that Blender waits at its end, or when the extension is disabled.
CLOSING_LIMIT = 5.0


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
    """The order for a job. `info` belongs to Blender's side: plain values, never its objects."""

    kind: str  # CLONE or EXTRACT
    title: str
    values: dict  # settings by the library's names
    reference: library.Clip | None = None
    motion: str = ""  # file to clone from in place of a reference
    images: library.Images | None = None
    folder: Path | None = None  # that gets the results
    fallbacks: tuple = ()  # folders for when that one fails in the end
    name: str = "clone"
    thumbnail: library.Clip | None = None  # of an extraction
    info: dict = field(default_factory=dict)


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
        self.note = ""  # where the files are, when that is not the folder of the request
        # Whether there is a result that could not be written anywhere; it is kept in memory.
        self.unsaved = False
        self.started = time.monotonic()
        self.cancelled = threading.Event()
        self._work = self._native = self._next = None

    @property
    def ended(self):
        return self.state in ("DONE", "FAILED", "CANCELLED")

    @property
    def share(self):
        """Share of the current stage that is done, 0 to 1."""
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
        if not self.unsaved:
            self._release()

    def _release(self):
        native, self._native = self._native, None
        if native:
            native.close()


class Session:
    """The engines and jobs of one Blender."""

    def __init__(self):
        self.jobs = []
        self.warning = ""  # the last one of the library
        self.found = []  # what the last examination found
        self._examination, self._added = None, 0
        self._worker = Worker("motionclone")
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
                except Exception as error:
                    # Anything else would end Blender's timer, and the other jobs with it.
                    if not isinstance(error, (library.LibraryError, OSError, ValueError)):
                        with contextlib.suppress(OSError):  # The console may be closed.
                            traceback.print_exc()
                    job.fail(error)
                if job.ended:
                    ended.append(job)
        return ended

    def save(self, job, folder):
        """Tries again to write a result that could not be written."""
        job.request.folder, job.unsaved = folder, False
        job.state, job.message = "RUNNING", "Writing files"
        job.cancelled.clear()
        job._work, job._next = self._worker.submit(self._write, job), lambda job: job._end("DONE", "Done")

    def clear(self):
        """Forgets the jobs that have ended, with results that were not written."""
        for job in self.jobs:
            if job.ended:
                job._release()
        self.jobs = [job for job in self.jobs if not job.ended]

    def close(self, limit=CLOSING_LIMIT):
        """Cancels everything. A step of the library may take minutes, so it is waited for up to `limit` seconds; says
        whether all has ended. What has not is ended by its own thread, which nobody waits for."""
        for job in self.jobs:
            job.cancel()
        ended = self._worker.close(self._close, limit)
        for job in self.jobs:
            if not job.ended:
                job.state, job.message = "CANCELLED", "Cancelled"
        return ended

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

    def _close(self):
        """Destroys what the library holds. A job's end is waited for by its engine."""
        for job in self.jobs:
            job._release()
        while self._engines:
            self._engines.popitem()[1].close()

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
        values = dict(request.values)
        if request.kind == "EXTRACT":
            job._native = engine.extract(request.reference, values, request.images)
        elif request.motion:
            motion = engine.library.load_motion(request.motion)
            try:
                # A clone must share what the motion was read with.
                info = motion.info()
                values.update({name: info[name] for name in ("width", "height", "frames", "noise_step", "top_k")})
                job._native = engine.clone(motion, values, request.images)
            finally:
                motion.close()
        else:
            job._native = engine.clone(request.reference, values, request.images)
        job.used = engine.settings(values)
        # Cancelled while the job was on its way.
        if job.cancelled.is_set():
            job._native.cancel()

    def _write(self, job):
        """Writes the results into the request's folder, else into one of the fallbacks. Where that fails, too, they are
        kept in memory: what is finished is not lost to a full disk."""
        request, failures = job.request, []
        make = self._motion_files if request.kind == "EXTRACT" else self._frame_files
        for folder in (request.folder, *request.fallbacks):
            try:
                job.files = results.write(folder, request.name, _until_cancelled(job, make(job)))
            except (OSError, library.LibraryError) as error:
                if job.cancelled.is_set():
                    raise
                failures.append(f"{folder} could not be written ({results.reason(error)})")
                continue
            if failures:
                job.note = f"{failures[0]}, so the result is in {job.files[0].parent}"
            return
        job.unsaved = True
        raise results.ResultsError(
            f"The result is finished, but {', and '.join(failures)}. Make room or choose another folder, and press Save."
        )

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


def _until_cancelled(job, parts):
    for part in parts:
        if job.cancelled.is_set():
            raise library.LibraryError("Cancelled", library.CANCELLED)
        yield part
