"""How well a clip follows a motion and a prompt, from its pixels."""

import cv2
import numpy as np
import torch

import world


def flows(clip):
    """Dense optical flow between neighbouring frames of bytes `[frames, height, width, 3]`, in pixels."""
    gray = [cv2.createCLAHE(4.0, (4, 4)).apply(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY)) for f in clip]
    return np.stack([
        cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 7, 1.5, 0) for a, b in zip(gray, gray[1:])
    ])


def summary(flow):
    """Mean flow, divergence and curl of each frame pair, and the mean speed."""
    height, width = flow.shape[1:3]
    x = np.arange(width) - (width - 1) / 2
    y = np.arange(height)[:, None] - (height - 1) / 2
    square = (x**2 + y**2).mean()
    u, v = flow[..., 0], flow[..., 1]
    return {
        "mean": flow.mean(axis=(1, 2)),
        "divergence": ((u * x + v * y).mean(axis=(1, 2)) / square),
        "curl": ((x * v - y * u).mean(axis=(1, 2)) / square),
        "speed": float(np.hypot(u, v).mean()),
    }


def same_way(fact, reference, result):
    """Whether the result goes the reference's way: within 30 degrees, or the sign of divergence or curl."""
    if "divergence" in fact or "curl" in fact:
        key = "divergence" if "divergence" in fact else "curl"
        return bool(result[key].mean() * fact[key] > 2e-4)
    a, b = reference["mean"], result["mean"]
    if "direction" in fact:
        a, b = a.mean(0, keepdims=True), b.mean(0, keepdims=True)
    score = (a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9)
    return bool(score > 0.866 if "direction" in fact else score > 0.6)


def fidelity(reference, result, step=8):
    """Cosine of the two flows along the reference's moving grid points, averaged over time."""
    a, b = reference[:, step // 2 :: step, step // 2 :: step], result[:, step // 2 :: step, step // 2 :: step]
    moving = np.linalg.norm(a, axis=-1) > 0.3
    cosine = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1) + 1e-6)
    return float(cosine[moving].mean()) if moving.any() else float("nan")


def templates(size=64):
    """Silhouettes of every shape at several turns, each of the same area, `[shapes, turns, size, size]`."""
    line = torch.linspace(-2.6, 2.6, size)
    x, y = line[None, :], line[:, None]
    out = []
    for k in range(len(world.SHAPES)):
        turns = []
        for angle in np.arange(0, 360, 10):
            c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
            area = (list(world.distances(x, y))[k] < 0).float().mean().item() * 5.2**2
            scale = np.sqrt(area / 2.0)
            d = list(world.distances((x * c + y * s) * scale, (y * c - x * s) * scale))[k]
            turns.append(centred((d < 0).numpy().astype(np.uint8)))
        out.append(np.stack(turns))
    return np.stack(out)


def centred(mask, size=64, area=2.0):
    """A silhouette moved to the middle and scaled to a fixed area."""
    points = np.argwhere(mask)
    if len(points) < 12:
        return np.zeros((size, size), bool)
    unit = size / 5.2
    scale = np.sqrt(area * unit**2 / len(points))
    cy, cx = points.mean(0)
    move = np.array([[scale, 0, size / 2 - scale * cx], [0, scale, size / 2 - scale * cy]])
    return cv2.warpAffine(mask.astype(np.float32), move, (size, size)) > 0.5


PALETTE = np.array(
    [c for c in world.COLOURS.values()]
    + [[a * 0.55 for a in c] for c in world.TINTS.values()]
    + [list(c) for c in world.TINTS.values()]
    + [[a * 1.35 + 0.06 for a in c] for c in world.TINTS.values()]
)


def object_mask(frame, colour):
    """The largest blob whose nearest palette colour is `colour`."""
    lab = lambda rgb: cv2.cvtColor(np.asarray(rgb, np.float32).reshape(-1, 1, 3), cv2.COLOR_RGB2LAB)[:, 0]
    distance = np.linalg.norm(lab(frame / 255.0)[:, None] - lab(PALETTE)[None], axis=-1)
    mask = (distance.argmin(1) == list(world.COLOURS).index(colour)).reshape(frame.shape[:2]).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return np.zeros(mask.shape, bool)
    return labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()


def looks_right(clip, shape, colour, silhouettes):
    """Whether the prompt's colour is there, and whether its blob has the prompt's shape (most of five frames)."""
    coloured, shaped = 0, 0
    for frame in clip[[1, 4, 8, 11, 14]]:
        mask = object_mask(frame, colour)
        coloured += mask.mean() > 0.008
        blob = centred(mask)
        overlap = (silhouettes & blob).sum((2, 3)) / np.maximum((silhouettes | blob).sum((2, 3)), 1)
        shaped += overlap.max(1).argmax() == world.SHAPES.index(shape) and overlap.max() > 0.6
    return coloured >= 3, shaped >= 3


def psnr(a, b):
    error = ((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean()
    return 10 * np.log10(255.0**2 / max(error, 1e-9))
