"""Draws the reference clips of real footage into `clips/footage`: `python draw_footage.py --out clips/footage`.

Photographs that training never sees (`../train/sources.py` names them and their licences), under a known camera, and
with a part of another photograph on a known path. They are recorded as a camera would: noise, and a codec that loses
some. Needs ffmpeg.
"""

import argparse
import bz2
import json
import math
import pathlib
import subprocess
import sys

import cv2
import numpy as np

sys.path.append(str(pathlib.Path(__file__).parents[1] / "train"))

import sources  # noqa: E402

SIZE, FRAMES = 128, 16
EIGHTH = math.pi / 4
# Which way the picture's content goes, as an angle: 0 is right, a quarter turn is down.
PANS = {"pan_right": 0, "pan_down": 2, "pan_left": 4, "pan_up": 6, "pan_down_right": 1, "pan_up_left": 5}
TURNS = ("zoom_in", "zoom_out", "roll_right", "roll_left")
SPEEDS = {"slow": 2.7, "fast": 5.7}  # mean pixels a frame
PHOTOS = ("coffee", "raccoon", "chelsea", "astronaut", "rocket")
PATHS = ("right", "up_left", "down", "there_and_back", "orbit", "bounce", "wave", "grow", "rest")
# Where a part is cut out of a photograph, in shares of its width and height: centre and radius.
PARTS = {"chelsea": (0.50, 0.33, 0.30), "coffee": (0.50, 0.52, 0.32), "astronaut": (0.44, 0.22, 0.20), "rocket": (0.50, 0.42, 0.28)}
PROMPTS = {  # a clone of each; both of today's words and of people's
    "camera": ["a {} star on a dotted {} background", "a penguin in the snow", "a rocket over the sea", "a panda in the forest"],
    "object": ["a {} {} on a cloudy {} background"],
}
COLOURS, GROUNDS, SHAPES = ("red", "yellow", "pink", "orange", "blue"), ("teal", "indigo", "olive", "gray"), ("circle", "star", "heart", "square")


def photographs():
    """The photographs by name, their shorter side 400 pixels."""
    found = {pathlib.Path(path).stem: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for path, data in sources.fetch("kept")}
    ((_, data),) = sources.fetch("raccoon")
    found["raccoon"] = np.frombuffer(bz2.decompress(data), np.uint8).reshape(768, 1024, 3)[..., ::-1]
    scaled = lambda p, s: cv2.resize(p, None, fx=s, fy=s, interpolation=cv2.INTER_AREA if s < 1 else cv2.INTER_CUBIC)
    return {name: scaled(p, 400 / min(p.shape[:2])) for name, p in found.items()}


def progress():
    return np.linspace(0, 1, FRAMES)


def seen(photo, move=(0, 0), scale=1.0, angle=0.0, still=0.62):
    """The part of a photograph that a camera sees: `move` in pixels of the frame, `scale` and `angle` about its centre."""
    height, width = photo.shape[:2]
    scale = scale * still
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    middle = (SIZE - 1) / 2
    x, y = width / 2 - (cos * (middle + move[0]) + sin * (middle + move[1])), height / 2 - (-sin * (middle + move[0]) + cos * (middle + move[1]))
    matrix = np.float32([[cos, sin, x], [-sin, cos, y]])
    flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
    # Twice as large and halved, so that fine detail does not flicker.
    large = cv2.warpAffine(photo, matrix @ np.diag([0.5, 0.5, 1.0]), (2 * SIZE, 2 * SIZE), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return cv2.resize(large, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float32)


def camera(photo, name, speed):
    """A clip under a moving camera, and what its content does from frame to frame: pixels, logarithm of growth, or radians."""
    centred = progress() - 0.5
    if name in PANS:
        way = np.array([math.cos(EIGHTH * PANS[name]), math.sin(EIGHTH * PANS[name])])
        whole = way * speed * (FRAMES - 1)
        return [seen(photo, whole * p) for p in centred], {"step": (way * speed).round(4).tolist()}
    # The mean distance from the centre of a square is 0.383 of its side.
    whole = speed * (FRAMES - 1) / (0.383 * SIZE) * (1 if name in ("zoom_in", "roll_right") else -1)
    if name.startswith("zoom"):
        return [seen(photo, scale=math.exp(whole * p), still=0.9) for p in centred], {"growth": round(whole / (FRAMES - 1), 5)}
    return [seen(photo, angle=whole * p) for p in centred], {"turn": round(whole / (FRAMES - 1), 5)}


def path(name):
    """Places of an object over time, in pixels from the frame's centre, and its growth."""
    p = progress()
    middle, one = p - 0.5, np.ones(FRAMES)
    places = {
        "right": (62 * middle, 0 * p),
        "up_left": (-50 * middle, -50 * middle),
        "down": (6 * one, 64 * middle),
        "there_and_back": (60 * (np.sin(math.pi * p) - 0.5), -4 * one),
        "orbit": (27 * np.cos(1.6 * math.pi * p - 2), 27 * np.sin(1.6 * math.pi * p - 2)),
        "bounce": (30 * middle, 24 - 48 * np.abs(np.sin(2 * math.pi * p))),
        "wave": (66 * middle, 20 * np.sin(2 * math.pi * p)),
        "grow": (0 * p, 0 * p),
        "rest": (-10 * one, 8 * one),
    }[name]
    return np.stack(places, 1), np.exp(0.9 * middle) if name == "grow" else one


def cut(photo, name, radius):
    """A round part of a photograph and its cover, of a radius in pixels."""
    height, width = photo.shape[:2]
    x, y, r = PARTS[name]
    half = r * min(height, width)
    matrix = np.float32([[half / radius, 0, x * width - half], [0, half / radius, y * height - half]])
    side = int(math.ceil(2 * radius))
    part = cv2.warpAffine(photo, matrix, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101)
    grid = np.arange(side) - (side - 1) / 2
    return part.astype(np.float32), np.clip(radius - np.hypot(grid[None], grid[:, None]), 0, 1)[..., None]


def with_object(ground, part, part_name, name):
    """A clip of a part of a photograph on its path over another, and the path."""
    places, growth = path(name)
    still = seen(ground)
    clip = []
    for place, grow in zip(places, growth):
        picture, cover = cut(part, part_name, 19 * grow)
        side = len(picture)
        matrix = np.float32([[1, 0, SIZE / 2 + place[0] - side / 2], [0, 1, SIZE / 2 + place[1] - side / 2]])
        put = lambda a: cv2.warpAffine(a, matrix, (SIZE, SIZE)).reshape(SIZE, SIZE, -1)
        clip.append(still * (1 - put(cover)) + put(picture * cover))
    return clip, {"path": places.round(2).tolist(), "sizes": growth.round(4).tolist()}


def record(file, clip, noise):
    """Writes a clip as a camera records it."""
    frames = np.clip(np.stack(clip) + noise.normal(0, 2.0, (FRAMES, SIZE, SIZE, 3)), 0, 255).round().astype(np.uint8)
    command = ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{SIZE}x{SIZE}", "-r", "8", "-i", "-"]
    command += ["-c:v", "libx264", "-crf", "23", "-preset", "veryslow", "-pix_fmt", "yuv420p", "-threads", "1"]
    subprocess.run([*command, "-fflags", "+bitexact", "-flags:v", "+bitexact", str(file)], input=frames.tobytes(), check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    photos, noise, facts = photographs(), np.random.default_rng(77), []
    for n, name in enumerate([*PANS, *TURNS]):
        photo = PHOTOS[n % len(PHOTOS)]
        for k, (speed, pixels) in enumerate(SPEEDS.items()):
            clip, fact = camera(photos[photo], name, pixels)
            record(out / f"{name}_{speed}.mp4", clip, noise)
            prompts = [PROMPTS["camera"][0].format(COLOURS[n % 5], GROUNDS[n % 4]), PROMPTS["camera"][1 + (n + k) % 3]]
            facts.append({"name": f"{name}_{speed}", "photo": photo, "kind": speed, "moves": "camera", **fact, "prompts": prompts})
    for n, name in enumerate(PATHS):
        ground, part = PHOTOS[n % 5], list(PARTS)[(n + 1 + n // 4) % 4]
        ground = PHOTOS[(n + 1) % 5] if ground == part else ground
        clip, fact = with_object(photos[ground], photos[part], part, name)
        record(out / f"object_{name}.mp4", clip, noise)
        wishes = [(COLOURS[(n + k) % 5], SHAPES[(n + k) % 4], GROUNDS[(n + 2 * k) % 4]) for k in (0, 1)]
        prompts = [PROMPTS["object"][0].format(*wish) for wish in wishes]
        kind = "still" if name == "rest" else "object"
        facts.append({"name": f"object_{name}", "photo": f"{part} over {ground}", "kind": kind, "moves": "object", **fact, "prompts": prompts})
    clip, _ = camera(photos["chelsea"], "pan_right", 0.0)
    record(out / "still.mp4", clip, noise)
    facts.append({"name": "still", "photo": "chelsea", "kind": "still", "moves": "camera", "prompts": ["a red star on a dotted gray background", "a rocket over the sea"]})
    lines = ",\n ".join(json.dumps({**fact, "seed": 700 + 2 * n}) for n, fact in enumerate(facts))
    (out / "footage.json").write_text(f"[\n {lines}\n]\n")


if __name__ == "__main__":
    main()
