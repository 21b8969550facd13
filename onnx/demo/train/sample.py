"""The evaluation in batches on a GPU: `python sample.py --weights DIR/weights --out SHEETS`, or with `--bundle FOLDER`.

Clones every reference of the evaluation, guided and unguided with the same noise, and prints how the clones follow
motion and prompt, with the measures of `../evaluate`. Made for judging a training run, and settings, at once; what the
engine makes is measured there.
"""

import argparse
import concurrent.futures
import json
import pathlib

import sys

import cv2
import numpy as np
import torch
from safetensors.torch import load_file

import config
import model
from config import FRAMES, LATENT, LATENT_SCALE
from tokens import Tokenizer, byte_characters
from train import alphas, per_frame
from weights import load

EVALUATE = pathlib.Path(__file__).parents[1] / "evaluate"
sys.path.append(str(EVALUATE))

import flow  # noqa: E402
import followed  # noqa: E402
import media  # noqa: E402
import scene  # noqa: E402
import tracks  # noqa: E402


def trained(weights):
    """The networks of a training run, and its tokenizer."""
    tokenizer = Tokenizer()
    parts = model.Vae(), model.Unet(), model.TextEncoder(len(tokenizer))
    for name, part in zip(("vae", "unet", "text"), parts):
        if not load(weights, name, part):
            raise SystemExit(f"{weights} has no {name}.safetensors")
    return parts, tokenizer


class BundleTokenizer(Tokenizer):
    """The tokenizer that a bundle holds."""

    def __init__(self, folder):
        self.characters, self.known = byte_characters(), {}
        self.ids = json.loads((folder / "vocab.json").read_text())
        lines = (folder / "merges.txt").read_text().splitlines()[1:]
        self.merges = [tuple(line.split(" ")) for line in lines if line]
        self.rank = {pair: i for i, pair in enumerate(self.merges)}


def bundled(bundle):
    """The networks of a bundle, and its tokenizer."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    unet, vae, text = manifest["unet"], manifest["vae"], manifest["text_encoder"]
    tokenizer = BundleTokenizer(bundle / "tokenizer")
    sizes = (
        config.VaeSize(tuple(vae["block_out_channels"]), vae["layers_per_block"], vae["norm_num_groups"]),
        config.UnetSize(tuple(unet["block_out_channels"]), unet["layers_per_block"], unet["attention_heads"][0],
                        unet["norm_num_groups"], unet["cross_attention_dim"]),
        config.TextSize(text["hidden_size"], text["layers"], text["heads"], text["intermediate_size"], text["max_positions"]),
    )  # fmt: skip
    parts = model.Vae(sizes[0]), model.Unet(sizes[1]), model.TextEncoder(len(tokenizer), sizes[2])
    held = load_file(bundle / "weights.safetensors")
    for name, part in zip(("vae.", "unet.", "text_encoder."), parts):
        part.load_state_dict({k.removeprefix(name): v.float() for k, v in held.items() if k.startswith(name)})
    return parts, tokenizer


class Sampler:
    """MotionClone in batches. `parts` are autoencoder, UNet and text encoder."""
    def __init__(self, parts, tokenizer, device):
        self.device, self.tokenizer = device, tokenizer
        self.vae, self.unet, self.text = (part.to(device).requires_grad_(False) for part in parts)
        self.alpha = torch.cat([alphas(device), torch.ones(1, device=device)])  # index -1: after the last step

    def encode(self, clips):
        """Latents of clips `[clips, frames, 3, height, width]`."""
        parts = []
        for part in clips.flatten(0, 1).split(64):
            mean, log_variance = self.vae.encode(part)
            parts.append((mean + (0.5 * log_variance).exp() * torch.randn_like(mean)) * LATENT_SCALE)
        return torch.cat(parts).unflatten(0, clips.shape[:2])

    def decode(self, latents):
        parts = [self.vae.decode(z / LATENT_SCALE) for z in latents.flatten(0, 1).split(64)]
        return torch.cat(parts).unflatten(0, latents.shape[:2]).clamp(-1, 1)

    def context(self, prompts):
        return per_frame(self.text(self.tokenizer.batch(prompts).to(self.device)))

    @torch.no_grad()
    def extract(self, latents, noise, blocks, noise_step):
        count = len(latents)
        signal = self.alpha[noise_step]
        noisy = (signal.sqrt() * latents + (1 - signal).sqrt() * noise).flatten(0, 1)
        t = torch.full((count * FRAMES,), noise_step, device=self.device)
        context = self.context([""] * count)
        maps = []
        self.unet(noisy, t, context, FRAMES, stop_after=max(blocks), record=blocks, maps=maps)
        kept = [m.unflatten(0, (count, -1)).max(dim=-1, keepdim=True) for m in maps]
        return [(k.values, k.indices) for k in kept]

    def sample(self, prompts, noise, s, motion=None):
        """Latents for each prompt. `motion` as `extract` gives it, or none for an unguided run."""
        count = len(prompts)
        context, empty = self.context(prompts), self.context([""] * count)
        edge = int((1 - s.guidance_scale) * config.TRAIN_STEPS)
        guided = np.round(np.linspace(edge, config.TRAIN_STEPS - 1, s.guidance_steps))[::-1].astype(int)
        plain = np.round(np.linspace(0, edge - 1, s.steps - s.guidance_steps))[::-1].astype(int)
        timesteps = [*guided.tolist(), *plain.tolist(), -1]
        x = noise.flatten(0, 1).clone()
        for i, step in enumerate(timesteps[:-1]):
            t = torch.full((count * FRAMES,), step, device=self.device)
            gradient = 0.0
            with torch.no_grad():
                without = self.unet(x, t, empty, FRAMES)
            if motion is not None and i < s.guidance_steps and s.motion_weight > 0:
                maps = []
                x.requires_grad_(True)
                noise_with = self.unet(x, t, context, FRAMES, record=s.blocks, maps=maps)
                loss = sum(
                    ((m.gather(-1, index) - value) ** 2).flatten(1).mean(1).sum()
                    for m, (value, index) in zip((m.unflatten(0, (count, -1)) for m in maps), motion)
                )
                weight = s.motion_weight
                if i < s.warm_up:
                    weight *= (i + 1) / s.warm_up
                if i > s.guidance_steps - s.cool_up:
                    weight *= (s.guidance_steps - i) / s.cool_up
                gradient = torch.autograd.grad(loss * weight, x)[0]
                x, noise_with = x.detach(), noise_with.detach()
            else:
                with torch.no_grad():
                    noise_with = self.unet(x, t, context, FRAMES)
            predicted = noise_with + s.cfg * (noise_with - without)
            now, after = self.alpha[step], self.alpha[timesteps[i + 1]]
            clean = (x - (1 - now).sqrt() * predicted) / now.sqrt()
            x = after.sqrt() * clean + (1 - after).sqrt() * (predicted - (1 - now).sqrt() * gradient)
        return x.unflatten(0, (count, FRAMES))


def to_bytes(clips):
    """Pictures in -1..1 `[..., 3, height, width]` to bytes `[..., height, width, 3]`."""
    return ((clips.float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(-3, -1).cpu().numpy()


class References:
    """The references of the evaluation, one a clone: how they move, their prompts and seeds, and their frames."""

    def __init__(self, only=()):
        clips = EVALUATE / "clips"
        drawn = json.loads((clips / "clips.json").read_text())
        self.recogniser = scene.Recogniser(drawn, media.read_image(clips / "shapes.png", cv2.IMREAD_GRAYSCALE))
        self.facts = [{**f, "kind": "drawn", "prompt": f["clone"]["prompt"], "file": clips / f"{f['name']}.mp4"} for f in drawn["clips"]]
        for fact in json.loads((clips / "footage" / "footage.json").read_text()):
            for k, prompt in enumerate(fact["prompts"]):
                file = clips / "footage" / f"{fact['name']}.mp4"
                self.facts.append({**fact, "prompt": prompt, "seed": fact["seed"] + k, "file": file})
        self.facts = [f for f in self.facts if not only or f["kind"] in only]
        self.frames = np.stack([media.read_clip(f["file"]) for f in self.facts])
        self.motion = [flow.Motion(clip) if f["kind"] == "drawn" else None for f, clip in zip(self.facts, self.frames)]

    def judge(self, n, clip):
        """One clone's row of figures."""
        fact, made = self.facts[n], flow.Motion(clip)
        speed = tracks.Tracks(made).speed
        if fact["kind"] == "drawn":
            wanted = fact["clone"]
            seen = self.recogniser.seen(clip) == (wanted["colour"], wanted["shape"])
            return {"direction": flow.follows(fact, self.motion[n], made), "amplitude": 1.0, "speed": speed, "seen": seen}
        return {**followed.judge(fact, self.recogniser, made, speed), "seen": True}


def summary(name, facts, rows):
    """Prints the figures of one setting."""
    parts = []
    for kind in dict.fromkeys(f["kind"] for f in facts):
        own = [r for f, r in zip(facts, rows) if f["kind"] == kind]
        rate = np.mean([r["direction"] for r in own])
        alike = np.mean([followed.right_amplitude(r) for r in own])
        median = np.median([r["amplitude"] for r in own])
        more = f" seen {np.mean([r['seen'] for r in own]):.2f}" if kind == "drawn" else f" ({alike:.2f}, x{median:.2f})"
        parts.append(f"{kind} {rate:.2f}{more}")
    print(f"{name:44} {'; '.join(parts)}; speed {np.mean([r['speed'] for r in rows]):.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=pathlib.Path, help="folder of a training run's weights")
    parser.add_argument("--bundle", type=pathlib.Path, help="a bundle instead")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--guidance-steps", type=int, default=16)
    parser.add_argument("--guidance-scale", type=float, default=0.4)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--cool-up", type=int, default=2)
    parser.add_argument("--motion-weight", type=float, default=2000.0)
    parser.add_argument("--cfg", type=float, default=2.0)
    parser.add_argument("--noise-step", type=int, default=400)
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--sweep", nargs="*", default=[], help="further settings, as KEY=VALUE[,KEY=VALUE]…")
    parser.add_argument("--prompts", nargs="*", default=[], help="prompts to draw unguided, on a sheet of their own")
    parser.add_argument("--only", nargs="*", default=[], help="kinds of reference: drawn, slow, fast, object, still")
    parser.add_argument("--batch", type=int, default=96)
    s = parser.parse_args()
    s.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    sampler = Sampler(*(trained(s.weights) if s.weights else bundled(s.bundle)), device)
    references = References(s.only)
    facts, count = references.facts, len(references.facts)
    shape = FRAMES, 4, LATENT, LATENT
    seeds = [f["clone"]["seed"] if f["kind"] == "drawn" else f["seed"] for f in facts]
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]).to(device)
    shown = torch.from_numpy(references.frames).to(device).movedim(-1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = sampler.encode(shown)
        back = to_bytes(sampler.decode(latents))
    for kind in dict.fromkeys(f["kind"] for f in facts):
        values = [flow.psnr(a, b) for f, a, b in zip(facts, back, references.frames) if f["kind"] == kind]
        print(f"autoencoder on {kind}: {np.mean(values):.2f} dB", flush=True)
    judges = concurrent.futures.ThreadPoolExecutor()
    cv2.setNumThreads(1)

    def clone(settings, guided):
        made = []
        for part in torch.arange(count).split(settings.batch):
            part = part.tolist()
            motion = sampler.extract(latents[part], noise[part], settings.blocks, settings.noise_step) if guided else None
            result = sampler.sample([facts[n]["prompt"] for n in part], noise[part], settings, motion)
            with torch.no_grad():
                made.append(to_bytes(sampler.decode(result)))
        made = np.concatenate(made)
        return made, list(judges.map(references.judge, range(count), made))

    free, rows = clone(s, False)
    summary("unguided", facts, rows)
    guided, rows = clone(s, True)
    summary("guided", facts, rows)
    for fact, row in zip(facts, rows):
        print(f"  {fact['name']:24} {fact['prompt']:44} {'yes' if row['direction'] else 'no ':3} x{row['amplitude']:.2f}")
    for kind in dict.fromkeys(f["kind"] for f in facts):
        lines = [(f"{f['name']}: {f['prompt']}   (reference, guided, unguided)", clips)
                 for f, *clips in zip(facts, references.frames, guided, free) if f["kind"] == kind]  # fmt: skip
        media.write_sheet(s.out / f"{kind}.png", lines[:20], (0, 5, 10, 15))
    for change in s.sweep:
        settings = argparse.Namespace(**vars(s))
        for item in change.split(","):
            key, value = item.split("=")
            old = getattr(s, key)
            setattr(settings, key, [int(v) for v in value.split("+")] if isinstance(old, list) else type(old)(value))
        summary(change, facts, clone(settings, True)[1])
    if s.prompts:
        noise = torch.randn(len(s.prompts), *shape, generator=torch.Generator().manual_seed(1)).to(device)
        with torch.no_grad():
            clips = to_bytes(sampler.decode(sampler.sample(s.prompts, noise, s)))
        media.write_sheet(s.out / "prompts.png", [(p, [clip]) for p, clip in zip(s.prompts, clips)], (0, 5, 10, 15))


if __name__ == "__main__":
    main()
