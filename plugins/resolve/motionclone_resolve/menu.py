"""The menu entry's work: the form, then clones, until the user is done."""

import os
from contextlib import contextmanager

from . import clone, preferences, programs
from .console import say, trace
from .form import Form
from .job import QUALITIES, Job, settings_from
from .problem import Cancelled, Problem
from .timeline import Timeline


def main(resolve, form=None, dry_run=False, read=Timeline):
    """Asks and clones until the page is closed. In a dry run nothing is made or changed.

    `form` and `read` take the place of the page and of the reading of the timeline.
    """
    with _clean_environment():
        _start(resolve, form or Form(), dry_run, read)


@contextmanager
def _clean_environment():
    """Keeps Resolve's own libraries, which break the browser, out of this process's environment for a while."""
    before, clean = dict(os.environ), programs.environment()
    for variable in set(before) - set(clean):
        del os.environ[variable]
    os.environ.update(clean)
    try:
        yield
    finally:
        os.environ.update(before)


def _start(resolve, form, dry_run, read):
    try:
        try:
            job = Job(read(resolve))
        except Problem as problem:
            return _end(form, "failed", text=str(problem))
        except Exception as error:  # Resolve's objects raise whatever they like.
            trace()
            return _end(form, "failed", text=f"Resolve did not answer as expected: {error}.")
        _converse(form, job, dry_run)
    finally:
        form.close()


def _converse(form, job, dry_run):
    about = {
        "clip": job.current.name,
        "seconds": round(float(job.current.duration / job.current.timeline_rate), 2),
        "colour": job.colour,
        "coloured": len(job.coloured),
        "qualities": list(QUALITIES),
        "dry_run": dry_run,
    }
    form.show("ask", about=about, choices=preferences.load())
    while True:
        fields = form.answer()
        if fields is None:
            return
        choices = {**preferences.load(), **{key: fields[key] for key in preferences.DEFAULTS if key in fields}}
        scope = fields.get("scope", "clip")
        again = {"about": about, "choices": choices}
        try:
            settings = settings_from(choices)
            if dry_run or fields.get("action") == "plan":
                lines = job.plan(scope, settings)
                say("\n".join(lines))
                form.show("ask", plan=lines, **again)
                continue
            clone.check(settings)
            preferences.save(choices)
            done, problems = job.run(
                scope, settings, lambda what, part: form.show("busy", what=what, part=part), form.cancelled
            )
        except Cancelled as cancelled:
            kept = str(cancelled)
            form.show("ask", text="Cancelled. " + (f"Already done: {kept}." if kept else "Nothing was changed."), **again)
            continue
        except Problem as problem:
            form.show("ask", text=str(problem), failed=True, **again)
            continue
        except Exception as error:
            trace()
            form.show("ask", text=f"Something unexpected happened: {error}.", failed=True, **again)
            continue
        for line in done + problems:
            say(f"motionclone: {line}")
        if problems:
            form.show("ask", text=" ".join(problems), done=done, failed=True, **again)
            continue
        return _end(form, "done", done=done)


def _end(form, state, **details):
    say("motionclone: " + (details.get("text") or "; ".join(details.get("done", []))))
    form.show(state, **details)
    form.wait_until_seen()
