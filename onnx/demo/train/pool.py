"""Clips and pictures drawn once and kept on the device, from which every phase draws its batches."""

import time

import torch

import footage
from config import FRAMES, LATENT, LATENT_SCALE, SIZE
from learner import compute_type
from tokens import with_strange_words
from world import take, to

CAPTIONS = 4  # phrasings kept for a clip
BATCH = 64  # clips drawn at a time
# What a clip shows, as against how it moves.
CONTENT = ("background", "kind", "offset", "turn", "layer", "layered", "mask", "blurred", "grain", "pressed", "thing", "tint",
           "cut", "cut_from", "shadow")  # fmt: skip


class Pool:
    """Clips in pairs, those at 2n and 2n + 1 moving alike: latents, captions, scenes and frame times."""

    def __init__(self, studio, scenes, times, latents, tokens, null):
        self.studio, self.scenes, self.times, self.latents = studio, scenes, times, latents
        self.tokens, self.null = tokens, null
        self.natural = scenes["kind"] < 3
        self.count = len(latents)
        self.shown = None

    def draw(self, count):
        """Indices of clips in pairs, and their tokens: the empty prompt's for a tenth, and for half of those over
        photographs, of which a prompt says little."""
        device = self.latents.device
        first = 2 * torch.randint(self.count // 2, (count // 2,), device=device)
        index = torch.stack([first, first + 1], dim=1).flatten()
        tokens = self.tokens[index, torch.randint(CAPTIONS, (count,), device=device)].long()
        empty = torch.rand(count, device=device) < torch.where(self.natural[index], 0.5, 0.1)
        return index, torch.where(empty[:, None], self.null, tokens)

    def draw_named(self, count):
        """Indices of clips and their tokens, mostly of what prompts name."""
        device = self.latents.device
        index = 2 * torch.randint(self.count // 2, (count,), device=device) + (torch.rand(count, device=device) < 0.2)
        tokens = self.tokens[index, torch.randint(CAPTIONS, (count,), device=device)].long()
        return index, torch.where(torch.rand(count, 1, device=device) < 0.1, self.null, tokens)

    def draw_sketches(self, seed):
        """Draws a frame of every clip with objects, its outline and its silhouette, for the encoder of sketches."""
        generator = torch.Generator(self.latents.device).manual_seed(seed)
        with_objects = torch.nonzero(self.scenes["objects"] > 0)[:, 0]
        shown = {"clip": with_objects, "frame": [], "picture": [], "outline": [], "silhouette": []}
        for index in with_objects.split(4 * BATCH):
            count, device = len(index), index.device
            first = torch.rand(count, 1, generator=generator, device=device) < 0.8
            other = torch.randint(self.times.shape[1], (count, 1), generator=generator, device=device)
            frame = torch.where(first, 0, other)
            scenes, moment = take(self.scenes, index), self.times[index].gather(1, frame)
            stroke = 1.0 + 1.5 * torch.rand(count, 1, 1, 1, 1, generator=generator, device=device)
            shown["frame"].append(frame[:, 0])
            shown["picture"].append(to_byte(footage.render(self.studio, scenes, moment, generator)[:, 0] / 2 + 0.5))
            shown["outline"].append(to_byte(footage.outline(self.studio, scenes, moment, stroke)[:, 0, :1]))
            shown["silhouette"].append(to_byte(footage.silhouettes(self.studio, scenes, moment)[:, 0, :1] / 2 + 0.5))
        self.shown = {k: torch.cat(v) if isinstance(v, list) else v for k, v in shown.items()}

    def sketches(self, count):
        """What the sketch encoder is shown: mostly outlines, in 0..1. Extraction gives it a reference clip's own frame,
        so it has to know those too. Gives the clips' and frames' numbers, the pictures, and what each stands for, as
        pictures in -1..1."""
        device = self.latents.device
        n = torch.randint(len(self.shown["clip"]), (count,), device=device)
        photo = torch.rand(count, 1, 1, 1, device=device) < 0.15
        picture, outline, filled = (self.shown[k][n].float() / 255 for k in ("picture", "outline", "silhouette"))
        given = torch.where(photo, picture, outline.expand_as(picture))
        meant = torch.where(photo, picture, filled.expand_as(picture)) * 2 - 1
        return self.shown["clip"][n], self.shown["frame"][n], given, meant


def to_byte(picture):
    return (picture.clamp(0, 1) * 255).round().byte()


def paired(studio, count, seed):
    """Scenes in pairs that move alike. The first of a pair shows what prompts name, the second mostly a photograph."""
    moving = footage.sample(studio, count // 2, seed)
    many = footage.sample(studio, 4 * count, seed + 1)
    natural = many["kind"] < 3
    wanted = torch.rand(count // 2, generator=torch.Generator().manual_seed(seed + 2)) < 2 * NATURAL
    named, wild = (iter(torch.nonzero(k)[:, 0].tolist()) for k in (~natural, natural))
    first = [next(named) for _ in range(count // 2)]
    second = [next(wild if w else named) for w in wanted.tolist()]
    index = torch.tensor([first, second]).T.flatten()
    shown = take(many, index)
    scenes = {k: v.repeat_interleave(2, 0) for k, v in moving.items()}
    return scenes | {k: shown[k] for k in CONTENT}


NATURAL = sum(share for kind, (_, share) in footage.KINDS.items() if kind in ("photo", "leaves", "fractal"))


@torch.no_grad()
def make_pictures(studio, count, seed, device):
    """Single pictures of the world as bytes, `[count, 3, SIZE, SIZE]`."""
    scenes = to(footage.sample(studio, count, seed), device)
    generator = torch.Generator(device).manual_seed(seed + 1)
    made = torch.empty(count, 3, SIZE, SIZE, dtype=torch.uint8, device=device)
    for start in range(0, count, 8 * BATCH):
        part = slice(start, start + 8 * BATCH)
        moment = torch.rand(len(made[part]), 1, generator=generator, device=device)
        made[part] = to_byte(footage.render(studio, take(scenes, part), moment, generator)[:, 0] / 2 + 0.5)
    return made


@torch.no_grad()
def make_pool(studio, args, device, vae, tokenizer):
    began = time.time()
    drawn = paired(studio, args.pool, args.seed + 3)
    texts = [c for clip in footage.captions(studio, drawn, CAPTIONS, args.seed + 4) for c in clip]
    tokens = tokenizer.batch(with_strange_words(texts, 0.1, args.seed + 5)).to(torch.int16)
    scenes = to(drawn, device)
    first = torch.randint(FRAMES - args.frames + 1, (args.pool // 2, 1), device=device).repeat_interleave(2, 0)
    times = (first + torch.arange(args.frames, device=device)) / (FRAMES - 1)
    latents = torch.empty(args.pool, args.frames, 4, LATENT, LATENT, dtype=compute_type(device), device=device)
    vae = vae.to(compute_type(device))
    kept = args.out / "pool.latents"  # so that a stopped run need not draw it again
    if kept.exists():
        latents.copy_(torch.load(kept, map_location=device, weights_only=True))
    for start in range(0, 0 if kept.exists() else args.pool, BATCH):
        part = slice(start, start + BATCH)
        clip = footage.render(studio, take(scenes, part), times[part])
        mean, log_variance = vae.encode(clip.flatten(0, 1).to(latents.dtype))
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        latents[part] = (z * LATENT_SCALE).unflatten(0, (-1, args.frames))
    vae.float()
    if not kept.exists():
        beside = kept.with_suffix(".part")
        torch.save(latents, beside)
        beside.rename(kept)
    null = torch.tensor(tokenizer.encode(""), device=device)
    pool = Pool(studio, scenes, times, latents, tokens.view(args.pool, CAPTIONS, -1).to(device), null)
    some = latents[:1024].float()
    print(f"pool: {args.pool} clips, deviation {some.std():.3f}, mean {some.mean():.3f}, {time.time() - began:.0f} s", flush=True)
    return pool
