"""MotionClone with the trained weights: `python sample.py --weights DIR/weights --out SHEETS`.

Clones each reference motion into a prompt, guided and unguided with the same noise, and prints how the results follow
motion and prompt. Also a picture kept as first frame and a sketch. Made for judging a training run at once, in a batch
on a GPU; the engine itself is elsewhere.
"""

import argparse
import pathlib

import cv2
import numpy as np
import torch

import config
import draw_clips
import measure
import model
import world
from config import FRAMES, LATENT, LATENT_SCALE
from draw_clips import to_bytes
from tokens import Tokenizer
from train import alphas, load, per_frame


class Sampler:
    def __init__(self, weights, device):
        self.device, self.tokenizer = device, Tokenizer()
        self.vae, self.unet = model.Vae(), model.Unet()
        self.text = model.TextEncoder(len(self.tokenizer))
        self.control = {}
        for name, part in (("vae", self.vae), ("unet", self.unet), ("text", self.text)):
            if not load(weights, name, part):
                raise SystemExit(f"{weights} has no {name}.safetensors")
        for kind in ("rgb", "scribble"):
            control = model.SparseControl(kind)
            if load(weights, kind, control):
                self.control[kind] = control.to(device).requires_grad_(False)
        for part in (self.vae, self.unet, self.text):
            part.to(device).requires_grad_(False)
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

    def attentions(self, blocks):
        return [
            a
            for b in blocks
            for m in self.unet.up_blocks[b].motion_modules
            for a in m.temporal_transformer.transformer_blocks[0].attention_blocks
        ]

    def record(self, blocks, on):
        for a in self.attentions(blocks):
            a.record = on

    def maps(self, blocks, clips):
        """The recorded attention, one map `[clips, positions, heads, frames, frames]` for each attention."""
        return [a.probabilities.unflatten(0, (clips, -1)) for a in self.attentions(blocks)]

    def residuals(self, condition, t, context):
        if condition is None:
            return None
        kind, given, scale = condition
        return [scale * r for r in self.control[kind](given, t, context, FRAMES)]

    @torch.no_grad()
    def extract(self, latents, noise, blocks, noise_step, condition):
        count = len(latents)
        signal = self.alpha[noise_step]
        noisy = (signal.sqrt() * latents + (1 - signal).sqrt() * noise).flatten(0, 1)
        t = torch.full((count * FRAMES,), noise_step, device=self.device)
        context = self.context([""] * count)
        self.record(blocks, True)
        self.unet(noisy, t, context, FRAMES, self.residuals(condition, t, context), max(blocks))
        kept = [m.max(dim=-1, keepdim=True) for m in self.maps(blocks, count)]
        self.record(blocks, False)
        return [(k.values, k.indices) for k in kept]

    def sample(self, prompts, noise, s, motion=None, condition=None):
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
                without = self.unet(x, t, empty, FRAMES, self.residuals(condition, t, empty))
                control = self.residuals(condition, t, context)
            if motion is not None and i < s.guidance_steps and s.motion_weight > 0:
                self.record(s.blocks, True)
                x.requires_grad_(True)
                noise_with = self.unet(x, t, context, FRAMES, control)
                loss = sum(
                    ((m.gather(-1, index) - value) ** 2).flatten(1).mean(1).sum()
                    for m, (value, index) in zip(self.maps(s.blocks, count), motion)
                )
                self.record(s.blocks, False)
                weight = s.motion_weight
                if i < s.warm_up:
                    weight *= (i + 1) / s.warm_up
                if i > s.guidance_steps - s.cool_up:
                    weight *= (s.guidance_steps - i) / s.cool_up
                gradient = torch.autograd.grad(loss * weight, x)[0]
                x, noise_with = x.detach(), noise_with.detach()
            else:
                with torch.no_grad():
                    noise_with = self.unet(x, t, context, FRAMES, control)
            predicted = noise_with + s.cfg * (noise_with - without)
            now, after = self.alpha[step], self.alpha[timesteps[i + 1]]
            clean = (x - (1 - now).sqrt() * predicted) / now.sqrt()
            x = after.sqrt() * clean + (1 - after).sqrt() * (predicted - (1 - now).sqrt() * gradient)
        return x.unflatten(0, (count, FRAMES))


def rgb_condition(sampler, clips, scale):
    """The first frames of clips, as SparseCtrl takes them."""
    latents = torch.zeros(len(clips), FRAMES, 5, LATENT, LATENT, device=sampler.device)
    with torch.no_grad():
        latents[:, 0, :4] = sampler.encode(clips[:, :1])[:, 0]
    latents[:, 0, 4] = 1
    return "rgb", latents.flatten(0, 1), scale * config.STRENGTH["rgb"]


def scribble_condition(pictures, scale):
    """First frames in 0..1 `[clips, 3, height, width]`, as SparseCtrl takes them."""
    given = torch.zeros(len(pictures), FRAMES, 4, *pictures.shape[-2:], device=pictures.device)
    given[:, 0, :3], given[:, 0, 3] = pictures, 1
    return "scribble", given.flatten(0, 1), scale * config.STRENGTH["scribble"]


def sheet(path, groups, columns=(0, 3, 6, 9, 12, 15)):
    """One row a clip: the groups (reference, guided, …) beside each other, some frames of each."""
    gap = np.full((config.SIZE, 8, 3), 255, np.uint8)
    rows = []
    for clips in zip(*groups):
        parts = [p for clip in clips for p in (np.concatenate([clip[c] for c in columns], 1), gap)]
        rows.append(np.concatenate(parts[:-1], 1))
    picture = cv2.resize(np.concatenate(rows, 0), None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


def report(name, truth, reference_flows, clips, wanted, silhouettes):
    """Prints and returns the figures of one setting."""
    ok, follow, speed, colour, shape = [], [], [], [], []
    for fact, reference, clip, (want_shape, want_colour) in zip(truth, reference_flows, clips, wanted):
        flow = measure.flows(clip)
        ok.append(measure.same_way(fact, measure.summary(reference), measure.summary(flow)))
        follow.append(measure.fidelity(reference, flow))
        speed.append(measure.summary(flow)["speed"])
        c, f = measure.looks_right(clip, want_shape, want_colour, silhouettes)
        colour.append(c)
        shape.append(f)
    camera = [o for o, f in zip(ok, truth) if f["moves"] == "camera"]
    objects = [o for o, f in zip(ok, truth) if f["moves"] == "object"]
    missed = [f["name"] for o, f in zip(ok, truth) if not o]
    print(
        f"{name:34} direction {np.mean(ok):.2f} (camera {np.mean(camera):.2f}, object {np.mean(objects):.2f}) "
        f"fidelity {np.mean(follow):.2f} speed {np.mean(speed):.2f} colour {np.mean(colour):.2f} "
        f"shape {np.mean(shape):.2f} missed {' '.join(missed)}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance-steps", type=int, default=15)
    parser.add_argument("--guidance-scale", type=float, default=0.3)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--cool-up", type=int, default=3)
    parser.add_argument("--motion-weight", type=float, default=2000.0)
    parser.add_argument("--cfg", type=float, default=2.0)
    parser.add_argument("--noise-step", type=int, default=400)
    parser.add_argument("--blocks", type=int, nargs="+", default=[2])
    parser.add_argument("--control-scale", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=2, help="prompts and noises for each reference")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--sweep", nargs="*", default=[], help="further settings, as KEY=VALUE[,KEY=VALUE]…")
    parser.add_argument("--no-control", dest="with_control", action="store_false")
    s = parser.parse_args()
    s.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sampler = Sampler(s.weights, device)
    torch.manual_seed(s.seed)

    scenes, truth = draw_clips.references(s.seed)
    scenes, truth = world.take(scenes, torch.arange(len(truth)).repeat(s.repeats)), truth * s.repeats
    count = len(truth)
    scenes = world.to(scenes, device)
    clips = world.render(scenes, world.frame_times(count, device), unseen=True)
    wish = world.sample(count, s.seed + 1)
    wish["two"][:] = False
    prompts = [c[0] for c in world.captions(wish, 1, s.seed + 2)]
    wanted = [(world.SHAPES[wish["shape"][n, 0]], list(world.COLOURS)[wish["colour"][n, 0]]) for n in range(count)]
    noise = torch.randn(count, FRAMES, 4, LATENT, LATENT, generator=torch.Generator().manual_seed(s.seed)).to(device)
    silhouettes, shown = measure.templates(), to_bytes(clips)
    reference_flows = [measure.flows(c) for c in shown]
    with torch.no_grad():
        latents = sampler.encode(clips)
        back = to_bytes(sampler.decode(latents))
    print(f"autoencoder on unseen textures: {np.mean([measure.psnr(a, b) for a, b in zip(back, shown)]):.2f} dB")
    training = world.sample(48, s.seed + 3)
    drawn = to_bytes(world.render(training, world.frame_times(48)))
    print(f"speed of the training data: {np.mean([measure.summary(measure.flows(c))['speed'] for c in drawn]):.2f} pixels a frame")

    def clone(settings, motion, condition=None, text=None):
        result = sampler.sample(text or prompts, noise, settings, motion, condition)
        with torch.no_grad():
            return to_bytes(sampler.decode(result))

    def judge(name, results):
        report(name, truth, reference_flows, results, wanted, silhouettes)

    judge("the references decoded", back)
    free = clone(s, None)
    judge("unguided", free)
    motion = sampler.extract(latents, noise, s.blocks, s.noise_step, None)
    guided = clone(s, motion)
    judge("guided", guided)
    for k in range(s.repeats):
        part = slice(k * len(truth) // s.repeats, (k + 1) * len(truth) // s.repeats)
        sheet(s.out / f"clones_{k}.png", [shown[part], guided[part], free[part]])
    for prompt, (shape, colour) in list(zip(prompts, wanted))[: count // s.repeats]:
        print(f"  {colour} {shape}: {prompt}")
    for change in s.sweep:
        settings = argparse.Namespace(**vars(s))
        for item in change.split(","):
            key, value = item.split("=")
            old = getattr(s, key)
            setattr(settings, key, [int(v) for v in value.split("+")] if isinstance(old, list) else type(old)(value))
        moved = sampler.extract(latents, noise, settings.blocks, settings.noise_step, None)
        judge(change, clone(settings, moved))
        if "cfg" in change or "steps" in change:
            judge(change + " unguided", clone(settings, None))

    if s.with_control and "rgb" in sampler.control:
        own = rgb_condition(sampler, clips, s.control_scale)
        first = world.to(wish, device)
        picture = world.render(first, world.frame_times(count, device)[:, :1])
        given = rgb_condition(sampler, picture, s.control_scale)
        kept_motion = sampler.extract(latents, noise, s.blocks, s.noise_step, own)
        for name, m in (("picture, unguided", None), ("picture, guided", kept_motion)):
            result = clone(s, m, given)
            judge(name, result)
            target = to_bytes(picture[:, 0])
            values = [measure.psnr(a[0], b) for a, b in zip(result, target)]
            print(f"  first frame {np.mean(values):.2f} dB, worst {np.min(values):.2f}, over 22 dB: {np.mean(np.array(values) > 22):.2f}")
        sheet(s.out / "picture.png", [shown[: len(truth) // s.repeats], result[: len(truth) // s.repeats]])
    if s.with_control and "scribble" in sampler.control:
        first = world.to(wish, device)
        moment = world.frame_times(count, device)[:, :1]
        given = scribble_condition(world.outline(first, moment)[:, 0], s.control_scale)
        own = scribble_condition((clips[:, 0] + 1) / 2, s.control_scale)
        kept_motion = sampler.extract(latents, noise, s.blocks, s.noise_step, own)
        inside = (world.object_distance(first, 0, moment, *world.to_world(first, moment))[0][:, 0] < 0).cpu().numpy()
        for name, m in (("sketch, unguided", None), ("sketch, guided", kept_motion)):
            result = clone(s, m, given)
            judge(name, result)
            masks = [measure.object_mask(c[0], colour) for c, (_, colour) in zip(result, wanted)]
            overlap = [(a & b).sum() / max((a | b).sum(), 1) for a, b in zip(masks, inside)]
            print(f"  overlap with the sketch {np.mean(overlap):.2f}, over 0.6: {np.mean(np.array(overlap) > 0.6):.2f}")
        drawn = to_bytes(world.outline(first, moment.expand(-1, FRAMES)) * 2 - 1)
        sheet(s.out / "sketch.png", [drawn[: len(truth) // s.repeats], result[: len(truth) // s.repeats]])


if __name__ == "__main__":
    main()
