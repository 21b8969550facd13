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
STILL = 0.3  # pixels a frame, below which a point does not move
NEAR = 12.0  # pixels between beginnings, for the local score
SHORTEST = 6  # frames


class Tracks:
    """Points of the first and the middle frame followed along a clip's flow: `begin` `[tracks, 2]`, unit
    `directions` `[tracks, frames - 1, 2]`, and at which frames they are `known` (in view and moving)."""

    def __init__(self, motion):
        pairs, height, width = motion.flow.shape[:3]
        line_x, line_y = np.arange(STEP / 2, width, STEP), np.arange(STEP / 2, height, STEP)
        place = np.stack(np.meshgrid(line_x, line_y), axis=-1).reshape(-1, 2).astype(np.float32)
        self.begin = place.copy()
        moves, seen = [], []
        inside = np.ones(len(place), bool)
        for k in range(pairs):
            move = cv2.remap(motion.flow[k].astype(np.float32), place[:, None], None, cv2.INTER_LINEAR)[:, 0]
            moves.append(np.where(inside[:, None], move, 0))
            seen.append(inside.copy())
            place = place + move
            inside &= (place >= 0).all(1) & (place[:, 0] <= width - 1) & (place[:, 1] <= height - 1)
        moves, seen = np.stack(moves, 1), np.stack(seen, 1)
        length = np.linalg.norm(moves, axis=-1)
        self.directions = moves / np.maximum(length, 1e-6)[..., None]
        self.known = seen
        frames = seen.sum(1)
        moving = length.sum(1) > STILL * frames
        kept = moving & (frames >= SHORTEST)
        self.begin, self.directions, self.known = self.begin[kept], self.directions[kept], self.known[kept]


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
