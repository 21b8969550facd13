"""Clones reference clips with the embedded model and measures how well motion and prompt are followed.

Every clip is cloned guided and, with the same seed, unguided. The full evaluation also sweeps the settings that the
bundle's defaults are chosen from, over clips of their own. `--quick` takes a few drawn clips and no sweep.
"""

import argparse
import json
import os
import pathlib

import cv2
import numpy as np

import flow
import followed
import media
import report
import scene
import tracks
from clones import Program, Run

HERE = pathlib.Path(__file__).parent
CLIPS = HERE / "clips"
UNGUIDED = ("--motion-weight", 0)
QUICK = ["pan_right", "zoom_in", "roll_left", "object_up"]
QUICK_IMAGES = 2


class Judge:
    """Measures clones against their references and prompts."""

    def __init__(self, facts):
        self.recogniser = scene.Recogniser(facts, media.read_image(CLIPS / "shapes.png", cv2.IMREAD_GRAYSCALE))
        self.references = {}

    def reference(self, path):
        if path not in self.references:
            motion = flow.Motion(media.read_clip(path))
            self.references[path] = (motion, tracks.Tracks(motion))
        return self.references[path]

    def judge(self, fact, reference, wanted, clip):
        """All measures of one clone; `fact` says how its reference moves, `wanted` what its prompt names."""
        motion, points = self.reference(reference)
        own = flow.Motion(clip)
        own_points = tracks.Tracks(own)
        colour, shape = self.recogniser.seen(clip)
        return {
            "direction": flow.follows(fact, motion, own),
            "fidelity": tracks.fidelity(points, own_points),
            "local": tracks.local_fidelity(points, own_points),
            "colour": colour == wanted["colour"],
            "shape": shape == wanted["shape"],
            "both": (colour, shape) == (wanted["colour"], wanted["shape"]),
            "consistency": flow.consistency(own),
            "speed": own_points.speed,
        }


def mean(rows):
    """The mean of every measure over several clones."""
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def text_to_video(program, judge, facts, out):
    """Every clip guided and unguided; writes a sheet."""
    runs = []
    for fact in facts:
        reference, wish = CLIPS / f"{fact['name']}.mp4", fact["clone"]
        runs += [Run(reference, wish["prompt"], wish["seed"], options) for options in ((), UNGUIDED)]
    clips = program.clips(runs)
    rows, lines = [], []
    for n, fact in enumerate(facts):
        path = runs[2 * n].reference
        guided, unguided = clips[2 * n : 2 * n + 2]
        measured = [judge.judge(fact, path, fact["clone"], clip) for clip in (guided, unguided)]
        rows.append({"name": fact["name"], "prompt": fact["clone"]["prompt"], "guided": measured[0], "unguided": measured[1]})
        title = f"{fact['name']}: {fact['clone']['prompt']}   (reference, guided, unguided)"
        lines.append((title, [media.read_clip(path), guided, unguided]))
    for k in range(0, len(lines), 8):
        media.write_sheet(out / f"clones_{k // 8 + 1}.png", lines[k : k + 8])
    return rows


def with_images(program, judge, facts, moves, kind, out):
    """Clones that begin with a picture or follow a sketch; writes a sheet."""
    runs = [
        Run(CLIPS / f"{f['clip']}.mp4", f["prompt"], f["seed"], ("--control", kind), CLIPS / f["file"]) for f in facts
    ]
    rows, lines = [], []
    for fact, run, clip in zip(facts, runs, program.clips(runs)):
        row = {"name": fact["clip"], "prompt": fact["prompt"], "guided": judge.judge(moves[fact["clip"]], run.reference, fact, clip)}
        given = media.read_image(CLIPS / fact["file"])
        if kind == "rgb":
            row["frame"] = flow.psnr(clip[0], given)
        else:
            inside = media.read_image(CLIPS / fact["inside"], cv2.IMREAD_GRAYSCALE) > 127
            found = judge.recogniser.find(clip[0])
            row["frame"] = scene.overlap(scene.filled(found[1]), inside) if found else 0.0
        rows.append(row)
        title = f"{fact['clip']}: {fact['prompt']}   (reference, given image, guided)"
        lines.append((title, [media.read_clip(run.reference), given[None], clip]))
    media.write_sheet(out / f"{kind}.png", lines)
    return rows


def real_footage(program, judge, facts, out):
    """Every clip of real footage with each of its prompts, and unguided with the first; writes a sheet of each kind."""
    folder = CLIPS / "footage"
    runs = [
        Run(folder / f"{fact['name']}.mp4", prompt, fact["seed"] + k, options)
        for fact in facts
        for k, prompt in enumerate(fact["prompts"])
        for options in (((), UNGUIDED) if k == 0 else ((),))
    ]
    clips = dict(zip(runs, program.clips(runs)))

    def figures(fact, clip):
        motion = flow.Motion(clip)
        return followed.judge(fact, judge.recogniser, motion, tracks.Tracks(motion).speed)

    rows, lines = [], {}
    for fact in facts:
        file = folder / f"{fact['name']}.mp4"
        own = [run for run in runs if run.reference == file]
        for run in (run for run in own if run.options == ()):
            row = {"name": fact["name"], "kind": fact["kind"], "prompt": run.prompt, "guided": figures(fact, clips[run])}
            shown = [media.read_clip(file), clips[run]]
            free = Run(file, run.prompt, run.seed, UNGUIDED)
            if free in clips:
                row["unguided"] = figures(fact, clips[free])
                shown.append(clips[free])
            rows.append(row)
            title = f"{fact['name']}: {run.prompt}   (reference, guided, unguided)"
            lines.setdefault(fact["kind"], []).append((title, shown))
    for kind, sheet in lines.items():
        media.write_sheet(out / f"footage_{kind}.png", sheet)
    return rows


def weight_zero_is_unguided(program, facts):
    """Whether a motion weight of 0 leaves nothing of the reference: three comparisons, to the bit.

    The timesteps of a run depend on its guided steps. All steps guided over the whole schedule and no step guided over
    none of it have the same timesteps, so these two runs differ in nothing but guidance.
    """
    first, second = facts[:2]
    wish, few = first["clone"], ("--steps", 8)
    reference, other = (CLIPS / f"{fact['name']}.mp4" for fact in (first, second))
    make = lambda path, *options: Run(path, wish["prompt"], wish["seed"], options)
    runs = [
        make(reference, *few, "--guidance-steps", 8, "--guidance-scale", 1, *UNGUIDED),
        make(reference, *few, "--guidance-steps", 0, "--guidance-scale", 0),
        make(reference, *few, "--guidance-steps", 8, "--guidance-scale", 1),
        make(reference, *UNGUIDED),
        make(other, *UNGUIDED),
    ]
    zero, none, guided, here, there = program.clips(runs)
    return {
        "weight 0 equals no guided steps": bool(np.array_equal(zero, none)),
        "weight 0 forgets the reference": bool(np.array_equal(here, there)),
        "guidance changes the clip": not np.array_equal(zero, guided),
    }


def sweep(program, judge, facts, defaults):
    """Fidelity against motion weight, guided steps and guided blocks, over the clips kept for choosing defaults."""
    weight, steps = defaults["motion_weight"], defaults["steps"]
    weights = {f"{weight * k:g}": ("--motion-weight", weight * k) for k in (0, 0.25, 0.5, 1, 2, 4)}
    counts = {str(n): ("--guidance-steps", n) for n in sorted({round(steps * k / 6) for k in (1, 2, 3, 4, 5)})}
    blocks = ("up_blocks.1", "up_blocks.2", "up_blocks.2,up_blocks.3", "up_blocks.1,up_blocks.2,up_blocks.3")
    blocks = {b: ("--blocks", b) for b in blocks}
    results = {}
    for name, settings in (("motion weight", weights), ("guidance steps", counts), ("blocks", blocks)):
        print(f"sweep of {name}: {', '.join(settings)}", flush=True)
        runs = [
            Run(CLIPS / "tuning" / f"{fact['name']}.mp4", fact["clone"]["prompt"], fact["clone"]["seed"], options)
            for options in settings.values()
            for fact in facts
        ]
        clips = iter(program.clips(runs))
        results[name] = {
            label: mean([
                judge.judge(fact, CLIPS / "tuning" / f"{fact['name']}.mp4", fact["clone"], next(clips)) for fact in facts
            ])
            for label in settings
        }
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--bundle", type=pathlib.Path, required=True)
    parser.add_argument("--kept", type=pathlib.Path, required=True, help="folder of clones that were made before")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for sheets and figures")
    parser.add_argument("--report", type=pathlib.Path, help="folder for RESULT.md and fidelity.svg, unless --out")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="clones made at a time")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    facts = json.loads((CLIPS / "clips.json").read_text())
    manifest = json.loads((args.bundle / "manifest.json").read_text())
    moves = {fact["name"]: fact for fact in facts["clips"]}
    clips, pictures, sketches = facts["clips"], facts["pictures"], facts["sketches"]
    if args.quick:
        clips, pictures, sketches = [moves[name] for name in QUICK], pictures[:QUICK_IMAGES], sketches[:QUICK_IMAGES]
    program, judge = Program(args.program, args.bundle, args.kept, args.jobs), Judge(facts)

    measured = {"training_speed": facts["training_speed"], "defaults": manifest["defaults"]}
    print(f"{len(clips)} reference clips, each guided and unguided", flush=True)
    measured["clips"] = text_to_video(program, judge, clips, args.out)
    for key, kind, images in (("pictures", "rgb", pictures), ("sketches", "scribble", sketches)):
        if kind in manifest["controls"]:
            print(f"{len(images)} {key}", flush=True)
            measured[key] = with_images(program, judge, images, moves, kind, args.out)
    if not args.quick:
        footage = json.loads((CLIPS / "footage" / "footage.json").read_text())
        print(f"{len(footage)} clips of real footage", flush=True)
        measured["footage"] = real_footage(program, judge, footage, args.out)
    print("motion weight 0", flush=True)
    measured["zero"] = weight_zero_is_unguided(program, clips)
    if not args.quick:
        measured["sweep"] = sweep(program, judge, facts["tuning"], manifest["defaults"])

    (args.out / "measures.json").write_text(json.dumps(measured, indent=1) + "\n")
    missed = report.write(measured, args.report or args.out, args.quick)
    if missed:
        raise SystemExit(f"not reached: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
