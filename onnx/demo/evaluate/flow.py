"""Dense optical flow of a clip, and what it says about the motion as a whole."""

import math

import cv2
import numpy as np

SCALE = 2  # flow is estimated on enlarged frames: objects and textures are only a few pixels wide
SLOWEST, FASTEST = 0.2, 5.0  # share of the reference's rate of motion within which a result follows it


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
    """A clip's flow and its affine summary: translation, divergence and curl of each pair of frames, about the centre."""

    def __init__(self, clip):
        self.clip, self.flow = clip, flows(clip)
        height, width = clip.shape[1:3]
        x = np.arange(width) - (width - 1) / 2
        y = np.arange(height)[:, None] - (height - 1) / 2
        square = (x**2 + y**2).mean()
        u, v = self.flow[..., 0], self.flow[..., 1]
        self.translation = self.flow.mean(axis=(1, 2))  # pixels a frame
        self.object_path = self.translation - np.median(self.flow, axis=(1, 2))  # without the background's motion
        self.divergence = (u * x + v * y).mean(axis=(1, 2)) / square  # growth a frame
        self.curl = (x * v - y * u).mean(axis=(1, 2)) / square  # radians a frame, clockwise


def follows(fact, reference, result):
    """Whether a result goes the reference's way.

    A zoom or a growing object: the same sign of divergence; a roll: of curl. A pan or an object on a line: the mean flow
    of the clip within 30 degrees. An object whose path turns: the mean flow of the frames within 30 degrees in the
    median. Where an object moves, its flow counts against the background's. And neither much slower nor much faster.
    """
    for key in ("divergence", "curl"):
        if key in fact:
            return bool(SLOWEST < getattr(result, key).mean() / getattr(reference, key).mean() < FASTEST)
    path = "object_path" if fact["moves"] == "object" else "translation"
    a, b = getattr(reference, path), getattr(result, path)
    if "direction" in fact:
        a, b = a.mean(0, keepdims=True), b.mean(0, keepdims=True)
    size_a, size_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    moving = size_a > 0.25 * size_a.max()  # where a path turns back, its direction means nothing
    cosine = (a * b).sum(1) / np.maximum(size_a * size_b, 1e-9)
    rate = size_b[moving].mean() / size_a[moving].mean()
    return bool(np.median(cosine[moving]) > math.cos(math.radians(30)) and SLOWEST < rate < FASTEST)


def consistency(motion):
    """How well each frame, moved by the flow, predicts the one before it: mean PSNR in decibels, at most 50.

    Only where flow there and back agrees: what is uncovered cannot be predicted.
    """
    height, width = motion.clip.shape[1:3]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    back = flows(motion.clip[::-1])[::-1]
    values = []
    for frame, after, there, again in zip(motion.clip, motion.clip[1:], motion.flow, back):
        place = (grid + there).astype(np.float32)
        warped = cv2.remap(after, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        returned = there + cv2.remap(again.astype(np.float32), place, None, cv2.INTER_LINEAR)
        inside = (place >= 0).all(-1) & (place[..., 0] < width) & (place[..., 1] < height)
        known = inside & (np.hypot(returned[..., 0], returned[..., 1]) < 1.0)
        if known.any():
            values.append(psnr(warped[known], frame[known]))
    return float(np.mean(values)) if values else 0.0


def psnr(a, b):
    """Peak signal-to-noise ratio of bytes in decibels, at most 50."""
    error = ((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean()
    return float(min(10 * np.log10(255.0**2 / max(error, 1e-9)), 50.0))
