"""Trains the embedded model: `python train.py --out DIR`. See README.md for the phases.

Each phase leaves its averaged weights in `DIR/weights`; a phase whose weights are there is skipped, and one that was
stopped goes on from `DIR/PHASE.unfinished`. The last step writes the published checkpoint formats to
`DIR/checkpoints`.

`--from OTHER/weights --only PHASE…` trains weights further: these phases start from the weights there, and all other
weights are taken as they are. `--seconds` fits a run into a time: each phase gets a share of it by its steps, and ends
with its learning rate where its time ends.
"""

import argparse
import contextlib
import dataclasses
import functools
import math
import pathlib
import time

import torch
from safetensors.torch import load_file, save_file

import checkpoints
import config
import model
import world
from config import FRAMES, LATENT, LATENT_SCALE
from tokens import Tokenizer, with_strange_words

CAPTIONS = 4  # phrasings kept for a clip
KEEP_EVERY = 30.0  # seconds between the states that a stopped run goes on from
REPORT_EVERY = 5.0  # seconds between two looks at the loss and the clock
FIRST_REPORT = 10  # steps after which the pace is known
AFTERWARDS = 2.0  # seconds of a phase's time for what follows its steps
RESULTS = {  # the weights that each phase leaves
    "vae": ["vae"],
    "images": ["unet_images", "text_images"],
    "clips": ["unet", "text"],
    "rgb": ["rgb"],
    "outline": ["scribble_outline"],
    "scribble": ["scribble"],
}
FURTHER = ["clips", "rgb", "scribble"]  # phases that other weights can be trained further in
SIGNAL_CAP = 10.0  # the loss weight falls where the signal to noise ratio is above this


def alphas(device):
    """ᾱ of each training step."""
    beta = torch.linspace(config.BETA_START, config.BETA_END, config.TRAIN_STEPS, dtype=torch.float64)
    return torch.cumprod(1 - beta, 0).float().to(device)


class Clock:
    """The time that a run has: all it needs, or `seconds`, shared out to the phases by their steps."""

    def __init__(self, seconds, steps):
        self.end = math.inf if seconds is None else time.time() + seconds
        self.steps = steps

    def share(self, name):
        """When phase `name`, which begins now, has to end."""
        steps = self.steps.pop(name)
        now = time.time()
        return now + (self.end - now) * steps / (steps + sum(self.steps.values()))


class Learner:
    """Trains modules in bfloat16 with float32 master weights, as one recorded CUDA graph a step where there is a GPU."""

    def __init__(self, name, modules, args, loss):
        self.name, self.modules, self.phase, self.loss, self.unfinished = name, modules, args.phases[name], loss, args.out
        self.end, self.steps = args.clock.share(name), self.phase.steps
        self.parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
        self.masters = [p.detach().float().clone() for p in self.parameters]
        self.average = [p.clone() for p in self.masters]
        self.device = self.masters[0].device
        self.cuda = self.device.type == "cuda"
        if self.cuda:
            for m in modules:
                m.bfloat16()
        self.gradients = [torch.zeros_like(p) for p in self.masters]
        for master, gradient in zip(self.masters, self.gradients):
            master.grad = gradient
        self.rate = torch.zeros((), device=self.device) if self.cuda else 0.0
        self.optimizer = torch.optim.AdamW(
            self.masters, lr=self.rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=self.cuda, capturable=self.cuda
        )
        self.total = torch.zeros((), device=self.device)
        self.step = 0
        self.graph = None
        self.use_graph = args.graph and self.cuda

    def update(self):
        for p in self.parameters:
            p.grad = None
        loss = self.loss()
        loss.backward()
        torch._foreach_copy_(self.gradients, [p.grad for p in self.parameters])
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self.gradients)))
        torch._foreach_mul_(self.gradients, (1.0 / (norm + 1e-6)).clamp(max=1.0))
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.masters)
        self.total += loss.detach().float()

    def set_rate(self, step):
        warm = min(1.0, (step + 1) / min(200, self.steps / 10))
        rate = self.phase.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))
        if self.cuda:
            self.rate.fill_(rate)
        else:
            self.optimizer.param_groups[0]["lr"] = rate

    def state(self):
        return {"step": self.step, "masters": self.masters, "average": self.average,
                "optimizer": self.optimizer.state_dict()}

    @torch.no_grad()
    def resume(self):
        """Goes on from where this phase was stopped, if it was."""
        path = self.unfinished / f"{self.name}.unfinished"
        if path.exists():
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.step = state["step"]
            torch._foreach_copy_(self.masters, state["masters"])
            torch._foreach_copy_(self.average, state["average"])
            torch._foreach_copy_(self.parameters, self.masters)
            self.optimizer.load_state_dict(state["optimizer"])
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate
            print(f"{self.name} goes on at step {self.step}", flush=True)

    def keep(self):
        self.unfinished.mkdir(parents=True, exist_ok=True)
        beside = self.unfinished / f"{self.name}.part"
        torch.save(self.state(), beside)
        beside.rename(self.unfinished / f"{self.name}.unfinished")

    def record(self):
        """Warms up on a side stream, then records one update."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.set_rate(self.step)
                self.update()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.update()

    def run(self):
        self.resume()
        if self.use_graph:
            self.record()
        self.total.zero_()
        began = kept = time.time()
        first, since, report = self.step, 0, self.step + FIRST_REPORT
        while self.step < self.steps:
            self.set_rate(self.step)
            if self.graph is not None:
                self.graph.replay()
            else:
                self.update()
            self.step += 1
            since += 1
            if self.step % 4 == 0:
                decay = min(self.phase.ema, self.step / (9 + self.step)) ** 4
                torch._foreach_lerp_(self.average, self.masters, 1 - decay)
            if self.step in (report, self.steps):
                loss = self.total.item() / since
                self.total.zero_()
                since = 0
                pace = (time.time() - began) / (self.step - first)
                report = self.step + max(1, int(REPORT_EVERY / pace))
                if self.end < math.inf:
                    in_time = self.step + int((self.end - AFTERWARDS - time.time()) / pace)
                    self.steps = max(self.step, min(self.phase.steps, in_time))
                print(f"{self.name} {self.step}/{self.steps} loss {loss:.4f} {pace * 1e3:.1f} ms a step", flush=True)
                if not math.isfinite(loss):
                    raise SystemExit(f"{self.name}: the loss is {loss}")
                if time.time() - kept > KEEP_EVERY:
                    self.keep()
                    kept = time.time()

    def finish(self):
        """Puts the averaged weights into the modules, in float32."""
        for m in self.modules:
            m.float()
        with torch.no_grad():
            for p, value in zip(self.parameters, self.average):
                p.copy_(value)
        for path in self.unfinished.glob("*.unfinished"):
            path.unlink()


class Pool:
    """Clips drawn and encoded once: latents, captions, and the scenes and frame times to draw sketches from."""

    def __init__(self, scenes, times, latents, tokens, null):
        self.scenes, self.times, self.latents, self.tokens, self.null = scenes, times, latents, tokens, null
        self.count = len(latents)

    def draw(self, count):
        """Indices of clips and their tokens, a tenth of them the empty prompt's."""
        device = self.latents.device
        index = torch.randint(self.count, (count,), device=device)
        tokens = self.tokens[index, torch.randint(CAPTIONS, (count,), device=device)].long()
        empty = torch.rand(count, 1, device=device) < 0.1
        return index, torch.where(empty, self.null, tokens)


def compute_type(device):
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def train_vae(args, device):
    scenes = world.to(world.sample(args.pool, args.seed + 1), device)
    vae = model.Vae().to(device)
    phase = args.phases["vae"]

    def loss():
        index = torch.randint(args.pool, (phase.batch,), device=device)
        picture = world.render(world.take(scenes, index), torch.rand(phase.batch, 1, device=device))[:, 0]
        picture = picture.to(compute_type(device))
        mean, log_variance = vae.encode(picture)
        mean, log_variance = mean.float(), log_variance.float()
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        error = vae.decode(z.to(picture.dtype)).float() - picture.float()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return error.abs().mean() + 2 * (error**2).mean() + 1e-4 * divergence

    learner = Learner("vae", [vae], args, loss)
    learner.run()
    learner.finish()
    whiten(vae, world.render(world.take(scenes, slice(0, 2048)), torch.rand(len(scenes["tint"][:2048]), 1, device=device))[:, 0])
    fresh = world.to(world.sample(256, args.seed + 2), device)
    picture = world.render(fresh, torch.rand(256, 1, device=device))[:, 0]
    with torch.no_grad():
        back = vae.decode(vae.encode(picture)[0]).clamp(-1, 1)
    error = (((back - picture) / 2) ** 2).mean(dim=(1, 2, 3))
    print(f"vae: PSNR {(-10 * error.log10()).mean():.2f} dB, worst {(-10 * error.log10()).min():.2f} dB", flush=True)
    return vae


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


@torch.no_grad()
def make_pool(args, device, vae, tokenizer):
    began = time.time()
    drawn = world.sample(args.pool, args.seed + 3)
    texts = [c for clip in world.captions(drawn, CAPTIONS, args.seed + 4) for c in clip]
    tokens = tokenizer.batch(with_strange_words(texts, 0.1, args.seed + 5)).to(torch.int16)
    scenes = world.to(drawn, device)
    first = torch.randint(FRAMES - args.frames + 1, (args.pool, 1), device=device)
    times = (first + torch.arange(args.frames, device=device)) / (FRAMES - 1)
    latents = torch.empty(args.pool, args.frames, 4, LATENT, LATENT, dtype=compute_type(device), device=device)
    vae = vae.to(compute_type(device))
    for start in range(0, args.pool, 64):
        part = slice(start, min(start + 64, args.pool))
        clip = world.render(world.take(scenes, part), times[part])
        mean, log_variance = vae.encode(clip.flatten(0, 1).to(latents.dtype))
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        latents[part] = (z * LATENT_SCALE).unflatten(0, (-1, args.frames))
    vae.float()
    null = torch.tensor(tokenizer.encode(""), device=device)
    pool = Pool(scenes, times, latents, tokens.view(args.pool, CAPTIONS, -1).to(device), null)
    some = latents[:1024].float()
    print(f"pool: {args.pool} clips, deviation {some.std():.3f}, mean {some.mean():.3f}, {time.time() - began:.0f} s", flush=True)
    return pool


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
        index, tokens = pool.draw(phase.batch)
        latents = pool.latents[index, torch.randint(FRAMES, (phase.batch,), device=device)]
        t = torch.randint(config.TRAIN_STEPS, (phase.batch,), device=device)
        context = text(tokens)
        return noise_loss(lambda x: unet(x, t, context), latents, t, alpha)

    learner = Learner("images", [UnetPart(unet), text], args, loss)
    learner.run()
    learner.finish()


class UnetPart:
    """The UNet's parameters without its motion modules, as far as `Learner` looks at a module."""

    def __init__(self, unet):
        self.unet = unet

    def parameters(self):
        return [p for name, p in self.unet.named_parameters() if "motion_modules" not in name]

    def bfloat16(self):
        self.unet.bfloat16()

    def float(self):
        self.unet.float()


def draw_clips(pool, count):
    """Latents of clips, half of them played backwards, with their tokens, indices and which are backwards."""
    index, tokens = pool.draw(count)
    latents = pool.latents[index]
    backwards = torch.rand(count, device=latents.device) < 0.5
    latents = torch.where(backwards[:, None, None, None, None], latents.flip(1), latents)
    return latents, tokens, index, backwards


def per_frame(x):
    return x.repeat_interleave(FRAMES, 0)


def train_clips(args, device, pool, unet, text):
    phase, alpha = args.phases["clips"], alphas(device)

    def loss():
        latents, tokens, _, _ = draw_clips(pool, phase.batch)
        t = per_frame(torch.randint(config.TRAIN_STEPS, (phase.batch,), device=device))
        context = per_frame(text(tokens))
        return noise_loss(lambda x: unet(x, t, context, FRAMES), latents.flatten(0, 1), t, alpha)

    learner = Learner("clips", [unet, text], args, loss)
    learner.run()
    learner.finish()


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


def sketches(scenes, moment):
    """What the sketch encoder is shown of scenes: mostly outlines with strokes of some width, in 0..1.

    Extraction gives it a reference clip's own frame, so it has to know those too. Returns which are frames.
    """
    count, device = len(moment), moment.device
    stroke = 1.5 + 2.0 * torch.rand(count, 1, 1, 1, device=device)
    photo = torch.rand(count, 1, 1, 1, 1, device=device) < 0.15
    picture = torch.where(photo, (world.render(scenes, moment) + 1) / 2, world.outline(scenes, moment, stroke))
    return picture, photo


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
        index = torch.randint(pool.count, (phase.batch,), device=device)
        scenes, moment = world.take(pool.scenes, index), torch.rand(phase.batch, 1, device=device)
        picture, photo = sketches(scenes, moment)
        filled = torch.where(photo, world.render(scenes, moment), world.silhouettes(scenes, moment))[:, 0]
        with torch.no_grad():
            latents = vae.encode(filled)[0] * LATENT_SCALE
            wanted = rgb.controlnet_cond_embedding(torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1))
            nothing = rgb.controlnet_cond_embedding.bias
        given = torch.cat([picture[:, 0], torch.ones_like(picture[:, 0, :1])], dim=1).to(compute_type(device))
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
        latents, tokens, index, backwards = draw_clips(pool, phase.batch)
        # What is where is decided in the first, noisiest steps.
        t = (config.TRAIN_STEPS * (1 - torch.rand(phase.batch, device=device) ** 2)).long().clamp(max=config.TRAIN_STEPS - 1)
        t = t.repeat_interleave(frames)
        with torch.no_grad():
            context = text(tokens).repeat_interleave(frames, 0)
        first = torch.rand(phase.batch, device=device) < 0.8
        frame = torch.where(first, 0, torch.randint(frames, (phase.batch,), device=device))
        there = torch.where(backwards, frames - 1 - frame, frame)[:, None]
        picture, _ = sketches(world.take(pool.scenes, index), pool.times[index].gather(1, there))
        mask = (torch.arange(frames, device=device) == frame[:, None])[:, :, None, None, None].to(latents.dtype)
        mask = mask * (torch.rand(phase.batch, 1, 1, 1, 1, device=device) < 0.95)
        given = torch.cat([picture.to(latents.dtype), torch.ones_like(picture[:, :, :1], dtype=latents.dtype)], dim=2)
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


class Weights:
    """The weights of finished phases in `folder`, and those in `start` that a run may begin with."""

    def __init__(self, folder, start, phases):
        self.folder, self.start, self.phases = folder, start, phases

    def missing(self):
        """The phases that are to be trained."""
        return [p for p in self.phases if not all((self.folder / f"{name}.safetensors").exists() for name in RESULTS[p])]

    def ready(self, phase, *modules):
        """Loads what a phase leaves, unless it still has to be trained; says whether it was loaded."""
        if phase not in self.phases:
            return self.begin(phase, *modules)
        return all([load(self.folder, name, module) for name, module in zip(RESULTS[phase], modules)])

    def begin(self, phase, *modules):
        """Loads what a phase starts from when it trains weights further; says whether it does."""
        if self.start is None:
            return False
        for name, module in zip(RESULTS[phase], modules):
            if not load(self.start, name, module):
                raise SystemExit(f"{self.start} has no {name}.safetensors")
        return True

    def save(self, phase, *modules):
        for name, module in zip(RESULTS[phase], modules):
            save(self.folder, name, module)


def save(folder, name, module):
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"{name}.part"
    save_file({k: v.detach().float().cpu().contiguous() for k, v in module.state_dict().items()}, beside)
    beside.rename(folder / f"{name}.safetensors")


def load(folder, name, module):
    """Whether the weights were there."""
    path = folder / f"{name}.safetensors"
    if path.exists():
        module.load_state_dict(load_file(path))
    return path.exists()


@contextlib.contextmanager
def compiled(blocks):
    """Lets PyTorch's compiler fuse the temporal attention and, inside, these kinds of block."""
    torch._dynamo.config.recompile_limit = 256
    before = [block.forward for block in blocks]
    model.temporal_attend = torch.compile(model.temporal_sums, dynamic=False)
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=False)
    yield
    for block, forward in zip(blocks, before):
        block.forward = forward
    model.temporal_attend = model.attend


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--from", dest="start", type=pathlib.Path, help="folder of weights to train further")
    parser.add_argument("--only", nargs="+", choices=FURTHER, help="with --from: the phases that do")
    parser.add_argument("--seconds", type=float, help="time that the run has; the phases' steps are then the most they take")
    parser.add_argument("--seed", type=int, default=config.SEED)
    parser.add_argument("--pool", type=int, default=config.POOL, help="clips to draw and encode")
    parser.add_argument("--frames", type=int, default=FRAMES, help="frames of a clip in the pool; fewer for a CPU")
    parser.add_argument("--compile", choices=["none", "temporal", "transformers"], default="transformers")
    parser.add_argument("--no-graph", dest="graph", action="store_false", help="do not record CUDA graphs")
    for name, phase in config.PHASES.items():
        parser.add_argument(f"--{name}-steps", type=int, default=phase.steps)
        parser.add_argument(f"--{name}-batch", type=int, default=phase.batch)
        parser.add_argument(f"--{name}-rate", type=float, default=phase.rate, help="highest learning rate")
    args = parser.parse_args()
    if (args.start is None) != (args.only is None):
        parser.error("--from and --only go together")
    args.phases = {
        name: dataclasses.replace(p, **{key: getattr(args, f"{name}_{key}") for key in ("steps", "batch", "rate")})
        for name, p in config.PHASES.items()
    }
    return args


def main():
    args = arguments()
    began = time.time()
    weights = Weights(args.out / "weights", args.start, args.only or list(config.PHASES))
    args.clock = Clock(args.seconds, {name: args.phases[name].steps for name in weights.missing()})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    if device.type != "cuda" or args.compile == "none":
        fuse = contextlib.nullcontext, contextlib.nullcontext
    else:
        blocks = [model.SpatialTransformer, model.TemporalTransformer] if args.compile == "transformers" else []
        fuse = functools.partial(compiled, blocks), functools.partial(compiled, [])
    tokenizer = Tokenizer()

    def passed(phase):
        print(f"after {phase}: {time.time() - began:.0f} s", flush=True)

    vae = model.Vae().to(device)
    if not weights.ready("vae", vae):
        vae = train_vae(args, device)
        weights.save("vae", vae)
        passed("vae")
    unet, text = model.Unet().to(device), model.TextEncoder(len(tokenizer)).to(device)
    pool = make_pool(args, device, vae, tokenizer)
    if not weights.ready("clips", unet, text):
        if not (weights.begin("clips", unet, text) or weights.ready("images", unet, text)):
            with fuse[0]():
                train_images(args, device, pool, unet, text)
            weights.save("images", unet, text)
            passed("images")
        with fuse[0]():
            train_clips(args, device, pool, unet, text)
        weights.save("clips", unet, text)
        passed("clips")
    rgb = model.SparseControl("rgb").to(device)
    if not weights.ready("rgb", rgb):
        if not weights.begin("rgb", rgb):
            rgb.start_from(unet)
        with fuse[1]():  # frozen parts would have to be compiled anew
            train_rgb(args, device, pool, unet, text, rgb)
        weights.save("rgb", rgb)
        passed("rgb")
    scribble = model.SparseControl("scribble").to(device)
    if not weights.ready("scribble", scribble):
        if not (weights.begin("scribble", scribble) or weights.ready("outline", scribble)):
            scribble.start_from(rgb)
            train_outline(args, device, pool, vae, rgb, scribble)
            weights.save("outline", scribble)
            passed("outline")
        with fuse[1]():
            train_scribble(args, device, pool, unet, text, scribble)
        weights.save("scribble", scribble)
        passed("scribble")
    for phase, modules in {"vae": [vae], "clips": [unet, text], "rgb": [rgb], "scribble": [scribble]}.items():
        weights.save(phase, *modules)  # those that were taken as they are, too
    checkpoints.export(weights.folder, args.out / "checkpoints", tokenizer)


if __name__ == "__main__":
    main()
