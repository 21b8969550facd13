"""Draws the reference clips of the evaluation: `python draw_clips.py --out DIR`.

Sixteen motions over textures and scenes that training never used, as `NAME.mp4` (128 x 128, 16 frames, 8 a second)
with `clips.json`: what moves, which way, and what is seen.
"""

import argparse
import json
import math
import pathlib
import subprocess

import torch

import config
import world

EIGHTH = math.pi / 4
# Which way the picture's content goes, as an angle: 0 is right, a quarter turn is down.
PANS = {"pan_right": 0, "pan_down": 2, "pan_left": 4, "pan_up": 6, "pan_down_right": 1, "pan_up_left": 5}
LINES = {"object_right": 0, "object_up": 6, "object_down_left": 3}
OTHERS = ["zoom_in", "zoom_out", "roll_right", "roll_left", "object_orbit", "object_bounce", "object_grow"]
NAMES = [*PANS, *OTHERS[:4], *LINES, *OTHERS[4:]]
EVALUATION_SEED = 9001


def references(seed=EVALUATION_SEED):
    """The scenes of the reference clips, one for each of NAMES, and what each shows."""
    s = world.sample(len(NAMES), seed, unseen=True)
    speed = torch.rand(len(NAMES), generator=torch.Generator().manual_seed(seed + 1)).tolist()
    for name in ("camera_pan", "camera_zoom", "camera_roll", "line", "orbit", "bounce", "zoom", "spin"):
        s[name] = torch.zeros_like(s[name])
    s["two"][:] = False
    s["camera"][:] = 0
    s["motion"][:] = 0
    s["size"][:, 0] = s["size"][:, 0].clamp(min=1)
    s["place"][:, 0] *= 0.5
    truth = []
    for n, name in enumerate(NAMES):
        fact = {"name": name}
        if name in PANS or name in LINES:
            angle = EIGHTH * (PANS | LINES)[name]
            way = torch.tensor([math.cos(angle), math.sin(angle)])
            fact |= {"direction": [round(v, 4) for v in way.tolist()]}
            if name in PANS:
                s["camera"][n], s["camera_pan"][n] = 1, -way * (28 + 20 * speed[n])
            else:
                s["motion"][n, 0], s["line"][n, 0] = 1, way * (38 + 20 * speed[n])
        elif name.startswith("zoom"):
            s["camera"][n], s["camera_zoom"][n] = 2, (0.5 + 0.3 * speed[n]) * (1 if name == "zoom_in" else -1)
            fact |= {"divergence": 1 if name == "zoom_in" else -1}
        elif name.startswith("roll"):
            s["camera"][n], s["camera_roll"][n] = 3, (0.6 + 0.5 * speed[n]) * (-1 if name == "roll_right" else 1)
            fact |= {"curl": 1 if name == "roll_right" else -1}
        elif name == "object_orbit":
            s["motion"][n, 0], s["orbit"][n, 0] = 2, 20 + 8 * speed[n]
        elif name == "object_bounce":
            s["motion"][n, 0], s["bounce"][n, 0] = 3, 30 + 12 * speed[n]
        else:
            s["motion"][n, 0], s["zoom"][n, 0] = 4, 0.9
            fact |= {"divergence": 1}
        truth.append(fact | {"moves": "object" if name.startswith("object") else "camera", **seen(s, n)})
    return s, truth


def seen(s, n):
    """What scene `n` shows, in the captions' words."""
    return {
        "shape": world.SHAPES[s["shape"][n, 0]],
        "colour": list(world.COLOURS)[s["colour"][n, 0]],
        "tint": list(world.TINTS)[s["tint"][n]],
        "texture": (world.TEXTURES + world.UNSEEN_TEXTURES)[s["texture"][n]],
    }


def to_bytes(clip):
    """Pictures in -1..1 `[..., 3, height, width]` to bytes `[..., height, width, 3]`."""
    return ((clip.float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(-3, -1).cpu().numpy()


def write_video(path, frames):
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    command = ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "8", "-i", "-"]
    command += ["-c:v", "libx264", "-crf", "10", "-preset", "veryslow", "-pix_fmt", "yuv444p", "-threads", "1"]
    subprocess.run([*command, "-fflags", "+bitexact", "-flags:v", "+bitexact", str(path)], input=frames.tobytes(), check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    scenes, truth = references(args.seed)
    clips = to_bytes(world.render(scenes, world.frame_times(len(truth)), unseen=True))
    for fact, clip in zip(truth, clips):
        write_video(args.out / f"{fact['name']}.mp4", clip)
    (args.out / "clips.json").write_text(json.dumps({"frames": config.FRAMES, "fps": 8, "clips": truth}, indent=1) + "\n")


if __name__ == "__main__":
    main()
