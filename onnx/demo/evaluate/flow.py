"""Dense optical flow of a clip, and what it says about the motion as a whole."""

import math

import cv2
import numpy as np

SCALE = 2  # flow is estimated on enlarged frames: objects and textures are only a few pixels wide
SLOWEST, FASTEST = 0.3, 5.0  # share of the reference's rate of motion within which a result follows it
AGREEING = 0.75  # share of the frames that have to move on the right side


def flows(clip):
    """Flow from each frame to the next, `[frames - 1, height, width, 2]` in pixels, of bytes `[frames, height, width, 3]`."""
    estimator = cv2.DISOpticalFlow_create(cv2.DISOpticalFlow_PRESET_MEDIUM)
    contrast = cv2.createCLAHE(4.0, (4, 4))
    gray = [contrast.apply(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)) for frame in clip]
    gray = [cv2.resize(g, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC) for g in gray]
    pairs = [estimator.calc(a, b, None) for a, b in zip(gray, gray[1:])]
    height, width = clip.shape[1:3]
    return np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) / SCALE for f in pairs])


class Motion:
    """A clip's flow where it can be relied on, and its affine summary: translation, divergence and curl of each pair of
    frames, about the centre.

    Flow is `known` where flow there and back agrees, and counts 0 elsewhere: frames that have nothing to do with each
    other, as in a flickering clip, have a flow that means nothing.
    """

    def __init__(self, clip):
        self.clip = clip
        there, back = flows(clip), flows(clip[::-1])[::-1]
        self.known = np.stack([agree(*pair) for pair in zip(there, back)])
        self.flow = there * self.known[..., None]
        height, width = clip.shape[1:3]
        x = np.arange(width) - (width - 1) / 2
        y = np.arange(height)[:, None] - (height - 1) / 2
        square = (x**2 + y**2).mean()
        u, v = self.flow[..., 0], self.flow[..., 1]
        self.translation = self.flow.mean(axis=(1, 2))  # pixels a frame
        # Most of a picture is background; what moves otherwise is the object.
        ground = np.stack([np.median(f[k], axis=0) if k.any() else [0, 0] for f, k in zip(there, self.known)])
        self.object_path = ((there - ground[:, None, None]) * self.known[..., None]).mean(axis=(1, 2))  # pixels a frame
        self.divergence = (u * x + v * y).mean(axis=(1, 2)) / square  # growth a frame
        self.curl = (x * v - y * u).mean(axis=(1, 2)) / square  # radians a frame, clockwise


def moved(flow):
    """Where each pixel goes, `[height, width, 2]`."""
    height, width = flow.shape[:2]
    return (np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1) + flow).astype(np.float32)


def agree(there, back):
    """Where the way there and back ends within a pixel of its beginning, and in view."""
    height, width = there.shape[:2]
    place = moved(there)
    inside = (place >= 0).all(-1) & (place[..., 0] < width) & (place[..., 1] < height)
    returned = there + cv2.remap(back.astype(np.float32), place, None, cv2.INTER_LINEAR)
    return inside & (np.hypot(returned[..., 0], returned[..., 1]) < 1.0)


def follows(fact, reference, result):
    """Whether a result goes the reference's way.

    A zoom or a growing object: the same sign of divergence; a roll: of curl. A pan or an object on a line: the mean flow
    of the clip within 30 degrees. An object whose path turns: the mean flow of the frames within 30 degrees in the
    median. Where an object moves, its flow counts against the background's. In all cases neither much slower nor much
    faster, and on the right side in most frames: flicker has some direction on average, too.
    """
    turning = [key for key in ("divergence", "curl") if key in fact]
    kind = turning[0] if turning else "object_path" if fact["moves"] == "object" else "translation"
    a, b = (getattr(motion, kind).reshape(len(motion.flow), -1) for motion in (reference, result))
    size = np.linalg.norm(a, axis=1)
    moving = size > 0.25 * size.max()  # where a path turns back, its direction means nothing
    most = ((a * b).sum(1) > 0)[moving].mean() >= AGREEING
    if turning or "direction" in fact:
        a, b = a.mean(0, keepdims=True), b.mean(0, keepdims=True)
    else:
        a, b = a[moving], b[moving]
    size_a, size_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(1) / np.maximum(size_a * size_b, 1e-9)
    rate = size_b.mean() / size_a.mean()
    return bool(np.median(cosine) > math.cos(math.radians(30)) and SLOWEST < rate < FASTEST and most)


def consistency(motion):
    """How well each frame, moved by the flow, predicts the one before it: mean PSNR in decibels, at most 50, where flow
    is known: what is uncovered cannot be predicted."""
    values = []
    for frame, after, flow, known in zip(motion.clip, motion.clip[1:], motion.flow, motion.known):
        warped = cv2.remap(after, moved(flow), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if known.any():
            values.append(psnr(warped[known], frame[known]))
    return float(np.mean(values)) if values else 0.0


def psnr(a, b):
    """Peak signal-to-noise ratio of bytes in decibels, at most 50."""
    error = ((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean()
    return float(min(10 * np.log10(255.0**2 / max(error, 1e-9)), 50.0))
