"""Draws what the evaluation is run on: `python draw.py --out clips`. Needs the trainer's packages; run once.

Reference clips over textures that training never used, a second set of clips for choosing defaults, pictures and
sketches to start from, the silhouette of each shape, and `clips.json`: what each shows, how it moves, and which prompt
and seed it is cloned with. A prompt shares neither shape nor colour nor background with its reference.
"""

import argparse
import json
import pathlib
import random
import sys

import cv2
import numpy as np
import torch

sys.path.append(str(pathlib.Path(__file__).parents[1] / "train"))

import draw_clips  # noqa: E402
import flow  # noqa: E402
import tracks  # noqa: E402
import world  # noqa: E402

SEED, TUNING_SEED = 9001, 4177
TUNING = ["pan_left", "pan_down_right", "zoom_in", "roll_right", "object_down_left", "object_orbit"]
PICTURES = ["pan_right", "pan_up_left", "zoom_in", "roll_left", "object_up", "object_orbit"]
SILHOUETTE = 96  # pixels; the shape's radius is a third of it


def draw_set(folder, seed, names, first_seed):
    """Writes a set of clips and describes each, with a prompt of its own."""
    scenes, truth = draw_clips.references(seed)
    clips = draw_clips.to_bytes(world.render(scenes, world.frame_times(len(truth)), unseen=True))
    pick, facts = random.Random(seed), []
    for fact, clip in zip(truth, clips):
        if fact["name"] not in names:
            continue
        path = folder / f"{fact['name']}.mp4"
        folder.mkdir(parents=True, exist_ok=True)
        draw_clips.write_video(path, clip)
        facts.append({**fact, "clone": {**wish(pick, fact), "seed": first_seed + len(facts)}})
    return facts


def wish(pick, reference):
    """A prompt for something else than the reference shows."""
    shape = pick.choice([s for s in world.SHAPES if s != reference["shape"]])
    colour = pick.choice([c for c in world.COLOURS if c != reference["colour"]])
    tint = pick.choice([t for t in world.TINTS if t != reference["tint"]])
    texture = pick.choice(world.TEXTURES)
    prompt = f"a {colour} {shape} on a {texture} {tint} background"
    return {"prompt": prompt, "shape": shape, "colour": colour}


def still_scenes(count, seed, shapes):
    """Scenes of one object at rest, of the given shapes."""
    scenes = world.sample(count, seed)
    for name in ("camera_pan", "camera_zoom", "camera_roll", "line", "orbit", "bounce", "zoom", "spin", "two"):
        scenes[name] = torch.zeros_like(scenes[name])
    scenes["camera"][:], scenes["motion"][:] = 0, 0
    scenes["size"][:, 0] = scenes["size"][:, 0].clamp(min=1)
    scenes["place"][:, 0] *= 0.5
    draw = torch.Generator().manual_seed(seed)
    index = torch.randint(len(shapes), (count,), generator=draw)
    scenes["shape"][:, 0] = torch.tensor([world.SHAPES.index(shapes[i]) for i in index])
    return scenes


def write_image(path, image):
    cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def draw_images(folder, kind, seed, first_seed):
    """Pictures or sketches as first frames, one for each of PICTURES; a sketch comes with the shape it surrounds."""
    # A sketch of a ring does not say which of its two circles is filled.
    shapes = world.SHAPES if kind == "picture" else [s for s in world.SHAPES if s != "ring"]
    scenes = still_scenes(len(PICTURES), seed, shapes)
    start = torch.zeros(len(PICTURES), 1)
    images = draw_clips.to_bytes(world.render(scenes, start)[:, 0])
    sketches = draw_clips.to_bytes(world.outline(scenes, start)[:, 0] * 2 - 1)
    x, y, scale = world.to_world(scenes, start)
    inside = (world.object_distance(scenes, 0, start, x, y, scale)[0][:, 0] < 0).numpy()
    facts = []
    for n, clip in enumerate(PICTURES):
        seen = draw_clips.seen(scenes, n)
        fact = {"file": f"{kind}_{n}.png", "clip": clip, "shape": seen["shape"], "colour": seen["colour"]}
        fact["prompt"] = f"a {seen['colour']} {seen['shape']} on a {seen['texture']} {seen['tint']} background"
        write_image(folder / fact["file"], (images if kind == "picture" else sketches)[n][..., ::-1])
        if kind == "sketch":
            fact["inside"] = f"{kind}_{n}_inside.png"
            write_image(folder / fact["inside"], inside[n].astype(np.uint8) * 255)
        facts.append({**fact, "seed": first_seed + n})
    return facts


def draw_silhouettes(path):
    """All shapes upright in a row, white on black."""
    line = (torch.arange(SILHOUETTE) - (SILHOUETTE - 1) / 2) * (3 / SILHOUETTE)
    shapes = [(d < 0).numpy() for d in world.distances(line[None, :], line[:, None])]
    write_image(path, np.concatenate(shapes, axis=1).astype(np.uint8) * 255)


def training_speed(count=64):
    """How fast the clips move that the model was trained on, as tracks tell, in pixels a frame."""
    clips = draw_clips.to_bytes(world.render(world.sample(count, SEED), world.frame_times(count)))
    return float(np.mean([tracks.Tracks(flow.Motion(clip)).speed for clip in clips]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    out = parser.parse_args().out
    facts = {
        "frames": world.FRAMES,
        "training_speed": round(training_speed(), 3),
        "shapes": world.SHAPES,
        "colours": world.COLOURS,
        "backgrounds": world.TINTS,
        "clips": draw_set(out, SEED, draw_clips.NAMES, 100),
        "tuning": draw_set(out / "tuning", TUNING_SEED, TUNING, 500),
        "pictures": draw_images(out, "picture", SEED, 200),
        "sketches": draw_images(out, "sketch", SEED + 1, 300),
    }
    draw_silhouettes(out / "shapes.png")
    (out / "clips.json").write_text(in_lines(facts))


def in_lines(facts):
    """JSON with a line for each clip, image and colour."""
    parts = []
    for name, value in facts.items():
        if isinstance(value, dict):
            items = ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            value = f"{{\n  {items}\n }}"
        elif isinstance(value, list):
            value = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        parts.append(f" {json.dumps(name)}: {value}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main()
