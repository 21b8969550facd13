"""Trains the embedded model: `python train.py --out DIR`. See README.md for the phases.

Each phase leaves its averaged weights in `DIR/weights`; a phase whose weights are there is skipped, and one that was
stopped goes on from `DIR/PHASE.unfinished`. The last step writes the published checkpoint formats to
`DIR/checkpoints`.

`--from OTHER/weights` begins with the weights there, and `--only PHASE…` trains these phases alone: with both, weights
are trained further, or a run goes on in another place. `--seconds` fits a run into a time: each phase gets a share of it,
and ends with its learning rate where its time ends.
"""

import argparse
import contextlib
import dataclasses
import functools
import math
import pathlib
import time

import torch
import torch.nn.functional as F

import checkpoints
import config
import footage
import model
import sources
from config import FRAMES, LATENT, LATENT_SCALE
from learner import Clock, Learner, UnetPart, compiled, compute_type
from pool import CAPTIONS, make_pictures, make_pool
from tokens import Tokenizer
from weights import RESULTS, Weights

GROUP = 4  # pairs of clips whose timesteps are the same
EVEN = 1e-5  # difference of attention below which there is none
SIGNAL_CAP = 10.0  # the loss weight falls where the signal to noise ratio is above this


def alphas(device):
    """ᾱ of each training step."""
    beta = torch.linspace(config.BETA_START, config.BETA_END, config.TRAIN_STEPS, dtype=torch.float64)
    return torch.cumprod(1 - beta, 0).float().to(device)


def train_vae(args, device, studio):
    vae = model.Vae().to(device)
    phase = args.phases["vae"]
    pictures = make_pictures(studio, args.pool, args.seed + 1, device)

    def loss():
        index = torch.randint(len(pictures), (phase.batch,), device=device)
        picture = (pictures[index].float() / 127.5 - 1).to(compute_type(device))
        mean, log_variance = vae.encode(picture)
        mean, log_variance = mean.float(), log_variance.float()
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        error = vae.decode(z.to(picture.dtype)).float() - picture.float()
        slope_x, slope_y = error.diff(dim=3).abs().mean(), error.diff(dim=2).abs().mean()
        # Half as large latents are those of half as large pictures: latents change little as pictures do.
        part = phase.batch // 4
        small = vae.decode(F.avg_pool2d(z[:part], 2).to(picture.dtype)).float() - F.avg_pool2d(picture[:part], 2).float()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        sharp = error.abs().mean() + 2 * (error**2).mean() + slope_x + slope_y
        return sharp + 0.2 * small.abs().mean() + 1e-4 * divergence

    learner = Learner("vae", [vae], args, loss)
    learner.run()
    learner.finish()
    torch.backends.cudnn.benchmark = False  # which pays in the loops alone
    whiten(vae, pictures[:2048].float() / 127.5 - 1)
    report_vae(vae, make_pictures(studio, min(512, args.pool), args.seed + 2, device))
    return vae


@torch.no_grad()
def report_vae(vae, pictures):
    """Prints how well fresh pictures come back."""
    error = []
    for part in (pictures.float() / 127.5 - 1).split(64):
        back = vae.decode(vae.encode(part)[0]).clamp(-1, 1)
        error.append((((back - part) / 2) ** 2).mean(dim=(1, 2, 3)).clamp(min=1e-5))
    torch.backends.cudnn.benchmark = part.is_cuda
    decibels = -10 * torch.cat(error).log10()
    print(f"vae: PSNR {decibels.mean():.2f} dB, worst {decibels.min():.2f} dB", flush=True)


@torch.no_grad()
def whiten(vae, pictures):
    """Rescales the latents, without changing the autoencoder, to mean 0 and deviation 1 after LATENT_SCALE."""
    z = torch.cat([vae.encode(p)[0] for p in pictures.split(128)])
    centre = z.mean(dim=(0, 2, 3))
    factor = 1 / (z.std(dim=(0, 2, 3)) * LATENT_SCALE)
    out, back = vae.quant_conv, vae.post_quant_conv
    out.bias[:4] = (out.bias[:4] - centre) * factor
    out.weight[:4] *= factor[:, None, None, None]
    out.bias[4:] += 2 * factor.log()
    back.bias += back.weight[:, :, 0, 0] @ centre
    back.weight /= factor[None, :, None, None]


def noise_loss(predict, latents, timesteps, alpha):
    """Weighted squared error of the predicted noise; `timesteps` has one entry a latent."""
    signal = alpha[timesteps][:, None, None, None]
    noise = torch.randn(latents.shape, device=latents.device)
    noisy = signal.sqrt() * latents.float() + (1 - signal).sqrt() * noise
    error = (predict(noisy.to(latents.dtype)).float() - noise) ** 2
    ratio = signal / (1 - signal)
    return (error * (SIGNAL_CAP / ratio).clamp(max=1.0)).mean()


def train_images(args, device, pool, unet, text):
    phase, alpha = args.phases["images"], alphas(device)

    def loss():
        index, tokens = pool.draw_named(phase.batch)
        latents = pool.latents[index, torch.randint(FRAMES, (phase.batch,), device=device)]
        t = torch.randint(config.TRAIN_STEPS, (phase.batch,), device=device)
        context = text(tokens)
        return noise_loss(lambda x: unet(x, t, context), latents, t, alpha)

    learner = Learner("images", [UnetPart(unet), text], args, loss)
    learner.run()
    learner.finish()


def draw_clips(pool, count):
    """Latents of clips in pairs, half of them played backwards, with their tokens, indices and which are backwards."""
    index, tokens = pool.draw(count)
    latents = pool.latents[index]
    backwards = (torch.rand(count // 2, device=latents.device) < 0.5).repeat_interleave(2)
    latents = torch.where(backwards[:, None, None, None, None], latents.flip(1), latents)
    return latents, tokens, index, backwards


def per_frame(x):
    return x.repeat_interleave(FRAMES, 0)


def train_clips(args, device, pool, unet, text):
    phase, alpha = args.phases["clips"], alphas(device)

    def loss():
        latents, tokens, _, _ = draw_clips(pool, phase.batch)
        t = timesteps(phase.batch, device)
        frame_t, context = per_frame(t), per_frame(text(tokens))
        maps = []
        noise = noise_loss(
            lambda x: unet(x, frame_t, context, FRAMES, record=config.ALIKE_BLOCKS, maps=maps), latents.flatten(0, 1), frame_t, alpha
        )
        return noise + config.ALIKE_WEIGHT * unlikeness(maps, phase.batch, t[1::2])

    learner = Learner("clips", [unet, text], args, loss)
    learner.run()
    learner.finish()
    report_motion(phase.batch, pool, unet, text, alpha)


def timesteps(clips, device):
    """A timestep for each clip. The pairs of a group have theirs in common: the first clips one, the second another,
    which is often that of extraction, where a reference clip's motion is read."""
    groups = clips // (2 * GROUP)
    first, second = torch.randint(config.TRAIN_STEPS, (2, groups), device=device)
    extracted = torch.randint(250, 550, (groups,), device=device)
    second = torch.where(torch.rand(groups, device=device) < 0.5, extracted, second)
    return torch.stack([first, second], dim=1).repeat_interleave(GROUP, 0).flatten()


def unlikeness(maps, clips, t):
    """How much the temporal attention of the first clip of a pair differs from that of the second, which moves alike,
    as against the second of other pairs: 1 where attention says nothing of motion, 0 where it says that alone.

    Difference is that of the motion's guidance: at the largest probability of each row. Pairs are compared within their
    group, for attention that tells timesteps apart must not count; and those alone whose second clip is no noisier than
    an extracted one, by its timestep `t`.
    """
    counted = (t < 600).float().view(-1, GROUP)
    total = 0.0
    for seen in maps:
        seen = seen.unflatten(0, (clips // (2 * GROUP), GROUP, 2, -1))
        first, second = seen[:, :, 0], seen[:, :, 1]
        value, place = second.max(dim=-1, keepdim=True)
        apart = lambda k: ((first.gather(-1, place.roll(k, 1)) - value.roll(k, 1)) ** 2).flatten(2).mean(2)
        own, others = apart(0), (apart(1) + apart(2)) / 2
        # Attention that is even everywhere differs nowhere, and must not pass for alike.
        share = 2 * (own + EVEN) / (own + others + 2 * EVEN)
        total = total + (counted * share).sum() / (counted.sum() + 1e-6)
    return total / len(maps)


@torch.no_grad()
def report_motion(count, pool, unet, text, alpha, noise_step=400, batches=4):
    """Prints how well the temporal attention of other clips, noisier by far, tells clips that move alike."""
    device, found = alpha.device, []
    for noisy in (600, 800):
        shares = []
        for _ in range(batches):
            latents, tokens, _, _ = draw_clips(pool, count)
            t = torch.where(torch.arange(count, device=device) % 2 == 1, noise_step, noisy)
            signal = alpha[t][:, None, None, None, None]
            x = (signal.sqrt() * latents.float() + (1 - signal).sqrt() * torch.randn_like(latents.float())).flatten(0, 1)
            maps = []
            unet(x, per_frame(t), per_frame(text(tokens)), FRAMES, record=config.ALIKE_BLOCKS, maps=maps)
            shares.append(unlikeness(maps, count, t[1::2]).item())
        found.append(f"{sum(shares) / len(shares):.2f} at timestep {noisy}")
    print(f"difference of attention, same motion against another: {', '.join(found)}", flush=True)


def condition_frames(count, device):
    """Which frames of each clip are given, `[clips, frames]`: mostly the first, sometimes another, two or none."""
    numbers = torch.arange(FRAMES, device=device)
    kind = torch.rand(count, 1, device=device)
    other = torch.randint(FRAMES, (count, 1), device=device)
    return ((numbers == 0) & (kind < 0.8)) | ((numbers == other) & (kind > 0.7) & (kind < 0.95))


def train_rgb(args, device, pool, unet, text, control):
    phase, alpha = args.phases["rgb"], alphas(device)

    def loss():
        latents, tokens, _, _ = draw_clips(pool, phase.batch)
        t = per_frame(torch.randint(config.TRAIN_STEPS, (phase.batch,), device=device))
        with torch.no_grad():
            context = per_frame(text(tokens))
        mask = condition_frames(phase.batch, device)[:, :, None, None, None].to(latents.dtype)
        given = torch.cat([latents * mask, mask.expand(-1, -1, -1, LATENT, LATENT)], dim=2).flatten(0, 1)

        def predict(x):
            return unet(x, t, context, FRAMES, control=control(given, t, context, FRAMES))

        return noise_loss(predict, latents.flatten(0, 1), t, alpha)

    train_control("rgb", args, unet, text, control, loss)


def train_outline(args, device, pool, vae, rgb, control):
    """The sketch encoder's first layers: to answer an outline as the picture encoder's answer the filled shape.

    From there on the picture encoder's other layers place shapes where they were drawn; what is left to learn is that
    the prompt says their colours. Without this start the sketch encoder hardly learned.
    """
    phase = args.phases["outline"]
    embedding = control.controlnet_cond_embedding
    for m in (vae, rgb):
        m.requires_grad_(False)

    def loss():
        _, _, given, meant = pool.sketches(phase.batch)
        with torch.no_grad():
            latents = vae.encode(meant)[0] * LATENT_SCALE
            wanted = rgb.controlnet_cond_embedding(torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1))
            nothing = rgb.controlnet_cond_embedding.bias
        given = torch.cat([given, torch.ones_like(given[:, :1])], dim=1).to(compute_type(device))
        error = (embedding(given).float() - wanted) ** 2
        without = (embedding(torch.zeros_like(given[:1])).float() - nothing[:, None, None]) ** 2
        return error.mean() + without.mean()

    learner = Learner("outline", [embedding], args, loss)
    learner.run()
    learner.finish()


def train_scribble(args, device, pool, unet, text, control):
    phase, alpha = args.phases["scribble"], alphas(device)
    frames = args.frames

    def loss():
        index, there, picture, _ = pool.sketches(phase.batch)
        latents, tokens = pool.latents[index], pool.tokens[index, torch.randint(CAPTIONS, (phase.batch,), device=device)].long()
        tokens = torch.where(torch.rand(phase.batch, 1, device=device) < 0.1, pool.null, tokens)
        backwards = torch.rand(phase.batch, device=device) < 0.5
        latents = torch.where(backwards[:, None, None, None, None], latents.flip(1), latents)
        frame = torch.where(backwards, frames - 1 - there, there)[:, None]
        # What is where is decided in the first, noisiest steps.
        t = (config.TRAIN_STEPS * (1 - torch.rand(phase.batch, device=device) ** 2)).long().clamp(max=config.TRAIN_STEPS - 1)
        t = t.repeat_interleave(frames)
        with torch.no_grad():
            context = text(tokens).repeat_interleave(frames, 0)
        mask = (torch.arange(frames, device=device) == frame)[:, :, None, None, None].to(latents.dtype)
        mask = mask * (torch.rand(phase.batch, 1, 1, 1, 1, device=device) < 0.95)
        given = torch.cat([picture, torch.ones_like(picture[:, :1])], dim=1)[:, None].to(latents.dtype)
        given = (given * mask).flatten(0, 1)

        def predict(x):
            return unet(x, t, context, frames, control=control(given, t, context, frames))

        return noise_loss(predict, latents.flatten(0, 1), t, alpha)

    train_control("scribble", args, unet, text, control, loss)


def train_control(name, args, unet, text, control, loss):
    """Trains a SparseCtrl with everything else frozen."""
    for m in (unet, text):
        m.to(compute_type(next(m.parameters()).device)).requires_grad_(False)
    learner = Learner(name, [control], args, loss)
    learner.run()
    learner.finish()
    for m in (unet, text):
        m.float().requires_grad_(True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--pictures", type=pathlib.Path, help="file of `sources.py`; DIR/pictures.npz unless given, made if missing")
    parser.add_argument("--from", dest="start", type=pathlib.Path, help="folder of weights to begin with")
    parser.add_argument("--only", nargs="+", choices=config.PHASES, default=list(config.PHASES), help="the phases to train")
    parser.add_argument("--seconds", type=float, help="time that the run has; the phases' steps are then the most they take")
    parser.add_argument("--seed", type=int, default=config.SEED)
    parser.add_argument("--pool", type=int, default=config.POOL, help="clips to draw and encode")
    parser.add_argument("--studio", type=float, default=1.0, help="share of the backgrounds to paint, for trials")
    parser.add_argument("--frames", type=int, default=FRAMES, help="frames of a clip in the pool; fewer for a CPU")
    parser.add_argument("--compile", choices=["none", "temporal", "transformers"], default="transformers")
    parser.add_argument("--no-graph", dest="graph", action="store_false", help="do not record CUDA graphs")
    for name, phase in config.PHASES.items():
        parser.add_argument(f"--{name}-steps", type=int, default=phase.steps)
        parser.add_argument(f"--{name}-batch", type=int, default=phase.batch)
        parser.add_argument(f"--{name}-rate", type=float, default=phase.rate, help="highest learning rate")
    args = parser.parse_args()
    args.phases = {
        name: dataclasses.replace(p, **{key: getattr(args, f"{name}_{key}") for key in ("steps", "batch", "rate")})
        for name, p in config.PHASES.items()
    }
    return args


class Run:
    """One run: what it was given, and what all phases share."""

    def __init__(self, args):
        self.args, self.began = args, time.time()
        self.weights = Weights(args.out / "weights", args.start, args.only)
        args.clock = Clock(args.seconds, {name: args.phases[name] for name in self.weights.missing()})
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(args.seed)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        pictures = args.pictures or args.out / "pictures.npz"
        if not pictures.exists():
            sources.collect(pictures)
        self.studio = footage.Studio(*sources.load(pictures), args.seed, self.device, args.studio)
        print(f"studio: {len(self.studio.backgrounds)} backgrounds, {time.time() - self.began:.0f} s", flush=True)

    def fuse(self, frozen):
        """Lets PyTorch compile what trains; frozen parts would have to be compiled anew."""
        if self.device.type != "cuda" or self.args.compile == "none":
            return contextlib.nullcontext()
        blocks = [model.SpatialTransformer, model.TemporalTransformer]
        return compiled(blocks if self.args.compile == "transformers" and not frozen else [])

    def passed(self, phase, *modules):
        self.weights.save(phase, *modules)
        print(f"after {phase}: {time.time() - self.began:.0f} s", flush=True)

    def phases(self):
        """Trains one phase after another; says whether all are over."""
        args, device, weights = self.args, self.device, self.weights
        tokenizer = Tokenizer()
        vae = model.Vae().to(device)
        if not weights.ready("vae", vae):
            if "vae" not in args.only:
                return False
            vae = train_vae(args, device, self.studio)
            self.passed("vae", vae)
        unet, text = model.Unet().to(device), model.TextEncoder(len(tokenizer)).to(device)
        pool = functools.cache(lambda: make_pool(self.studio, args, device, vae, tokenizer))
        if not weights.ready("clips", unet, text):
            if not weights.began and not weights.ready("images", unet, text):
                if "images" not in args.only:
                    return False
                drawn = pool()
                with self.fuse(frozen=False):
                    train_images(args, device, drawn, unet, text)
                self.passed("images", unet, text)
            if "clips" not in args.only:
                return False
            drawn = pool()
            with self.fuse(frozen=False):
                train_clips(args, device, drawn, unet, text)
            self.passed("clips", unet, text)
        rgb = model.SparseControl("rgb").to(device)
        if not weights.ready("rgb", rgb):
            if "rgb" not in args.only:
                return False
            if not weights.began:
                rgb.start_from(unet)
            drawn = pool()
            with self.fuse(frozen=True):
                train_rgb(args, device, drawn, unet, text, rgb)
            self.passed("rgb", rgb)
        scribble = model.SparseControl("scribble").to(device)
        if not weights.ready("scribble", scribble):
            if "scribble" not in args.only:
                return False
            pool().draw_sketches(args.seed + 6)
            if not weights.began and not weights.ready("outline", scribble):
                scribble.start_from(rgb)
                train_outline(args, device, pool(), vae, rgb, scribble)
                self.passed("outline", scribble)
            with self.fuse(frozen=True):
                train_scribble(args, device, pool(), unet, text, scribble)
            self.passed("scribble", scribble)
        checkpoints.export(weights.folder, args.out / "checkpoints", tokenizer)
        return True


def main():
    run = Run(arguments())
    if not run.phases():
        print(f"phases left: {', '.join(p for p in RESULTS if not run.weights.over(p))}", flush=True)


if __name__ == "__main__":
    main()
