"""Point tracks, and the motion-fidelity score made of them.

The score is that of diffusion motion transfer (Yatim et al., arXiv 2311.17009): displacements from frame to frame are
normalised, two tracks are as alike as the mean cosine of theirs over time, and the score is the mean over the result's
tracks of the most alike track of the reference. Points that do not move have no direction and are left out; a result in
which nothing moves scores 0.

Where the reference moves every way at once, as in a zoom, any track finds one alike. The local score therefore allows
each result track only the reference tracks that begin near it.
"""

import cv2
import numpy as np

STEP = 8  # pixels between the points that are tracked
STRIDE = 4  # frames over which a point has to move
STILL = 0.3  # pixels a frame, below which it does not
NEAR = 12.0  # pixels between beginnings, for the local score
SHORTEST = 6  # frames


class Tracks:
    """Moving points of a grid over the first frame, followed along the clip's flow: where they `begin` `[tracks, 2]`,
    their unit `directions` `[tracks, frames - 1, 2]`, and at which frames these are `known`. `speed` is
    the mean of all points, still ones too, in pixels a frame."""

    def __init__(self, motion):
        pairs, height, width = motion.flow.shape[:3]
        line_x, line_y = np.arange(STEP / 2, width, STEP), np.arange(STEP / 2, height, STEP)
        place = np.stack(np.meshgrid(line_x, line_y), axis=-1).reshape(-1, 2).astype(np.float32)
        begin = place
        path, known = [place], []
        inside = np.ones(len(place), bool)
        for k in range(pairs):
            move = cv2.remap(motion.flow[k].astype(np.float32), place[:, None], None, cv2.INTER_LINEAR)[:, 0]
            x, y = np.clip(np.round(place), 0, [width - 1, height - 1]).astype(int).T
            known.append(inside & motion.known[k, y, x])
            place = place + np.where(inside[:, None], move, 0)
            path.append(place)
            inside &= (place >= 0).all(1) & (place[:, 0] <= width - 1) & (place[:, 1] <= height - 1)
        path, known = np.stack(path, 1), np.stack(known, 1)
        moves, frames = np.diff(path, axis=1), known.sum(1)
        # Over several frames, so that noise does not count as motion.
        stride = np.linalg.norm(path[:, STRIDE:] - path[:, :-STRIDE], axis=-1) / STRIDE
        rate = stride.sum(1) / np.maximum(frames - STRIDE + 1, 1)
        self.speed = float(rate.mean())
        kept = (rate > STILL) & (frames >= SHORTEST)
        directions = moves / np.maximum(np.linalg.norm(moves, axis=-1), 1e-6)[..., None]
        self.begin, self.directions, self.known = begin[kept], directions[kept], known[kept]


def likeness(reference, result):
    """Mean cosine over time of each result track with each reference track, `[result, reference]`; -1 for tracks that
    are hardly in view together."""
    cosine = np.einsum("atc,btc->abt", result.directions, reference.directions)
    both = result.known[:, None] & reference.known[None]
    together = both.sum(-1)
    return np.where(together >= SHORTEST, (cosine * both).sum(-1) / np.maximum(together, 1), -1.0)


def fidelity(reference, result):
    """The field's score, -1..1."""
    if not len(reference.begin) or not len(result.begin):
        return 0.0
    return float(likeness(reference, result).max(1).mean())


def local_fidelity(reference, result):
    """The same with each result track's nearest reference tracks alone; a track with none near it counts 0, for it
    moves where the reference rests."""
    if not len(reference.begin) or not len(result.begin):
        return 0.0
    apart = np.linalg.norm(result.begin[:, None] - reference.begin[None], axis=-1)
    alike = np.where(apart <= NEAR, likeness(reference, result), -np.inf).max(1)
    return float(np.where(np.isfinite(alike), alike, 0.0).mean())
