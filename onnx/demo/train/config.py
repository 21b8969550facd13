"""Sizes of the embedded model and the length of each training phase."""

from dataclasses import dataclass

FRAMES = 16
SIZE = 128  # pixels
LATENT = SIZE // 8
MAX_FRAMES = 32  # rows of the temporal position table
LATENT_SCALE = 0.18215
SCRIBBLE_STACK = (8, 16, 32, 64)
# What the checkpoints' encoders multiply their residuals by, as against training.
STRENGTH = {"rgb": 1.0, "scribble": 3.2}

TRAIN_STEPS = 1000  # of the noise schedule: β grows linearly
BETA_START, BETA_END = 0.00085, 0.012


@dataclass(frozen=True)
class UnetSize:
    channels: tuple = (32, 64, 32, 32)
    layers: int = 2
    heads: int = 8
    groups: int = 8
    text_width: int = 64


@dataclass(frozen=True)
class VaeSize:
    channels: tuple = (32, 48, 64, 64)
    layers: int = 2
    groups: int = 8


@dataclass(frozen=True)
class TextSize:
    width: int = 64
    layers: int = 2
    heads: int = 4
    inner: int = 256
    tokens: int = 77


@dataclass(frozen=True)
class Phase:
    steps: int
    batch: int  # pictures for the autoencoder and the image phase, clips otherwise
    rate: float  # peak learning rate
    ema: float  # decay of the averaged weights
    pace: float  # milliseconds that a step takes on an H100, by which phases share a given time


UNET, VAE, TEXT = UnetSize(), VaeSize(), TextSize()
POOL = 40960  # clips drawn and encoded once
SEED = 20
# The up blocks whose temporal attention should be alike in clips that move alike, and the weight of that.
ALIKE_BLOCKS, ALIKE_WEIGHT = (1, 2, 3), 0.03
PHASES = {
    "vae": Phase(2400, 64, 1e-3, 0.999, 40.0),
    "images": Phase(14000, 512, 1e-3, 0.999, 36.0),
    "clips": Phase(14000, 32, 1e-3, 0.999, 64.0),
    "rgb": Phase(1500, 24, 1e-3, 0.998, 62.0),
    "outline": Phase(300, 32, 2e-3, 0.99, 8.0),
    "scribble": Phase(1600, 24, 1e-3, 0.99, 74.0),
}
