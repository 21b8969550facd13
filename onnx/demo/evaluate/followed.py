"""How a clone follows real footage whose motion is known: direction half by half, and amplitude."""

import math

import cv2
import numpy as np

HALVES = (slice(0, 7), slice(8, 15))  # pairs of neighbouring frames
WITHIN = math.cos(math.radians(30))
SLOWEST = 0.2  # share of the reference's rate below which a clone has no direction
ALIKE = 1.5  # factor of the reference's amplitude within which a clone's is right
STILL = 0.3  # pixels a frame
TEXTURE = 3.0  # deviation of brightness in a neighbourhood without which flow tells nothing


def camera_steps(motion):
    """Translation in pixels, growth as a logarithm and turn in radians between neighbouring frames, `[pairs, 4]`, fitted
    where flow is known and there is something to see; zero where that is nearly nowhere."""
    height, width = motion.flow.shape[1:3]
    x, y = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
    steps = np.zeros((len(motion.flow), 4))
    for n, (flow, known, frame) in enumerate(zip(motion.flow, motion.known, motion.clip)):
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
        spread = cv2.blur(gray**2, (9, 9)) - cv2.blur(gray, (9, 9)) ** 2
        seen = known & (spread > TEXTURE**2)
        if seen.mean() < 0.03:
            continue
        u, v, p, q = flow[seen][:, 0], flow[seen][:, 1], x[seen], y[seen]
        n_, sp, sq, square = len(p), p.sum(), q.sum(), (p**2 + q**2).sum()
        normal = np.array([[n_, 0, sp, -sq], [0, n_, sq, sp], [sp, sq, square, 0], [-sq, sp, 0, square]])
        steps[n] = np.linalg.solve(normal, [u.sum(), v.sum(), (p * u + q * v).sum(), (p * v - q * u).sum()])
    return steps


def camera(fact, motion):
    """Whether a clone's camera goes the reference's way in both halves, and its rate as a share of the reference's."""
    steps = camera_steps(motion)
    name, columns = next((n, c) for n, c in (("step", slice(0, 2)), ("growth", slice(2, 3)), ("turn", slice(3, 4))) if n in fact)
    wanted = np.atleast_1d(fact[name])
    return towards([steps[half, columns].mean(0) for half in HALVES], [wanted, wanted])


def towards(made, wanted):
    """Direction and amplitude of vectors against those wanted."""
    right = []
    for a, b in zip(made, wanted):
        along = a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9)
        right.append(along > WITHIN and a @ b > SLOWEST * (b @ b))
    rate = sum(a @ b for a, b in zip(made, wanted)) / max(sum(b @ b for b in wanted), 1e-9)
    return {"direction": bool(all(right)), "amplitude": float(rate)}


def track(recogniser, clip):
    """Centre and square root of the area of the largest region in a colour of objects, `[frames, 3]`, NaN without one."""
    found = [recogniser.find(frame) for frame in clip]
    rows = []
    for item in found:
        if item is None:
            rows.append([np.nan] * 3)
            continue
        y, x = np.nonzero(item[1])
        rows.append([x.mean(), y.mean(), math.sqrt(len(x))])
    return np.array(rows)


def smooth(values):
    padded = np.concatenate([values[:1], values, values[-1:]])
    return (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4


def thing(fact, recogniser, clip):
    """Whether a clone's object goes the reference's way in both halves: most of the time within 30 degrees, or it grows
    in both where the reference's does; and the rate of its motion as a share of the reference's."""
    seen = track(recogniser, clip)
    if np.isnan(seen).any(axis=1).mean() > 0.25:
        return {"direction": False, "amplitude": 0.0}
    seen = np.stack([np.interp(np.arange(len(seen)), np.flatnonzero(~np.isnan(c)), c[~np.isnan(c)]) for c in seen.T], 1)
    path = np.array(fact["path"])
    if np.ptp(path, axis=0).max() < 1:
        size, wanted = np.log(np.maximum(seen[:, 2], 1)), np.log(fact["sizes"])
        made = [np.atleast_1d(np.diff(smooth(size))[half].sum()) for half in HALVES]
        return towards(made, [np.atleast_1d(np.diff(wanted)[half].sum()) for half in HALVES])
    made, wanted = np.diff(smooth(seen[:, :2]), axis=0), np.diff(smooth(path), axis=0)
    speed = np.linalg.norm(wanted, axis=1)
    along = (made * wanted).sum(1) / np.maximum(np.linalg.norm(made, axis=1) * speed, 1e-9)
    rate = (made * wanted).sum() / (speed**2).sum()
    moving = speed > 0.25 * speed.max()
    right = [np.median(along[half][moving[half]]) > WITHIN for half in HALVES if moving[half].any()]
    return {"direction": bool(all(right) and rate > SLOWEST), "amplitude": float(rate)}


def judge(fact, recogniser, motion, speed):
    """All of one clone: `motion` is its flow, `speed` the mean speed of its points."""
    if fact["kind"] == "still":
        return {"direction": speed < STILL, "amplitude": 1.0 if speed < STILL else 0.0, "speed": speed}
    made = camera(fact, motion) if fact["moves"] == "camera" else thing(fact, recogniser, motion.clip)
    return {**made, "speed": speed}


def right_amplitude(row):
    return 1 / ALIKE <= row["amplitude"] <= ALIKE
