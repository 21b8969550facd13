"""Runs of the program, each made once: a run is known by a hash of all that decides its result."""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import time

import media


@dataclasses.dataclass(frozen=True)
class Run:
    """One clone: a reference clip, a prompt, a seed, and further options of `motionclone clone`."""

    reference: pathlib.Path
    prompt: str
    seed: int
    options: tuple = ()
    image: pathlib.Path | None = None

    def arguments(self):
        image = () if self.image is None else ("--image", str(self.image))
        plain = ("--reference", str(self.reference), "--prompt", self.prompt, "--seed", str(self.seed))
        return [*plain, *image, *map(str, self.options)]

    def content(self, defaults):
        """All that decides the clone besides the program and the model, wherever the files lie."""
        image = None if self.image is None else digest(self.image)
        named = [option.removeprefix("--").replace("-", "_") for option in self.options[::2]]
        settings = {**defaults, **dict(zip(named, self.options[1::2]))}
        plain = {name: shown(value) for name, value in sorted(settings.items())}
        return [digest(self.reference), self.prompt, self.seed, image, plain]


def shown(value):
    """One text for one value, whether it comes from a manifest or from an option."""
    if isinstance(value, list):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, (int, float)) else value


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Program:
    """The program with a bundle, and the folder where its results are kept."""

    def __init__(self, program, bundle, kept, jobs):
        self.program, self.bundle, self.kept, self.jobs = program, bundle, kept, jobs
        manifest = json.loads((bundle / "manifest.json").read_text())
        # Defaults count as settings of each run, so that clones stay when other defaults are chosen. The rest of the
        # manifest has the fingerprint of the weights.
        self.defaults = manifest.pop("defaults")
        self.identity = [digest(program), manifest]
        kept.mkdir(parents=True, exist_ok=True)

    def place(self, run):
        key = json.dumps([*self.identity, *run.content(self.defaults)])
        return self.kept / hashlib.sha256(key.encode()).hexdigest()[:24]

    def make(self, run):
        """Makes the clone unless it is there."""
        place = self.place(run)
        if place.is_dir():
            return
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        command = [str(self.program), "clone", "--bundle", str(self.bundle), "--device", "cpu", "--no-cache"]
        command += ["--threads", str(threads), *run.arguments(), "--out", str(place)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")

    def clips(self, runs):
        """The clip of each run, made where needed, several at a time."""
        missing = {self.place(run): run for run in runs if not self.place(run).is_dir()}
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            waiting = [pool.submit(self.make, run) for run in missing.values()]
            for count, done in enumerate(concurrent.futures.as_completed(waiting), 1):
                if done.exception():
                    pool.shutdown(cancel_futures=True)
                    raise done.exception()
                passed = time.monotonic() - start
                print(f"  {count} of {len(missing)} clones, {passed / count:.0f} s each", flush=True)
        return [media.read_clip(self.place(run)) for run in runs]
