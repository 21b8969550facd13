"""Which object a frame shows: its colour by the nearest colour of the world, its shape by the nearest silhouette."""

import cv2
import numpy as np

FRAMES = slice(0, None, 3)  # frames looked at; what most of them show counts
SMALLEST = 0.006  # share of the frame
TURN = 10  # degrees between the silhouettes that a shape is compared with
SIZE = 64  # pixels across of a compared silhouette,
AREA = 0.2  # of which its shape covers this share
ALIKE = 0.65  # intersection over union below which a region has no known shape
SHADES = (0.82, 0.91, 1.0)  # an object's colour, from its dark side to its light one
GROUNDS = [(0.55, 0.0), (0.75, 0.0), (0.95, 0.03), (1.15, 0.045), (1.35, 0.06)]  # a background's, dark to light


def lab(colours):
    return cv2.cvtColor(np.asarray(colours, np.float32).reshape(-1, 1, 3), cv2.COLOR_RGB2LAB)[:, 0]


class Recogniser:
    """Knows the colours, backgrounds and shapes of the world that the clips were drawn from."""

    def __init__(self, facts, silhouettes):
        self.shapes, self.colours = facts["shapes"], list(facts["colours"])
        palette = [np.multiply(c, s) for c in facts["colours"].values() for s in SHADES]
        self.object_entries = len(palette)
        palette += [np.clip(np.multiply(t, s) + g, 0, 1) for t in facts["backgrounds"].values() for s, g in GROUNDS]
        self.palette = lab(palette)
        upright = np.split(silhouettes > 127, len(self.shapes), axis=1)
        self.silhouettes = np.stack([[centred(turned(s, a)) for a in range(0, 360, TURN)] for s in upright])

    def labels(self, frame):
        """For each pixel which of the world's colours it has, or -1 for a background's."""
        pixels = lab(frame.reshape(-1, 3) / 255.0)
        distance = ((pixels[:, None] - self.palette[None]) ** 2).sum(-1)
        nearest = distance.argmin(1)
        colour = np.where(nearest < self.object_entries, nearest // len(SHADES), -1)
        return colour.reshape(frame.shape[:2])

    def find(self, frame):
        """The largest region of one colour: the colour and its mask, or none."""
        labels, best = self.labels(frame), (0, None)
        for k, colour in enumerate(self.colours):
            mask = cv2.morphologyEx((labels == k).astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
            count, parts, stats, _ = cv2.connectedComponentsWithStats(mask)
            if count > 1:
                largest = 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
                area = stats[largest, cv2.CC_STAT_AREA]
                if area > max(best[0], SMALLEST * mask.size):
                    best = (area, (colour, parts == largest))
        return best[1]

    def shape(self, mask):
        """The shape whose silhouette overlaps best; none where all are far off."""
        blob = centred(mask)
        overlap = (self.silhouettes & blob).sum((2, 3)) / (self.silhouettes | blob).sum((2, 3))
        if overlap.max() < ALIKE:
            return None
        return self.shapes[overlap.max(1).argmax()]

    def seen(self, clip):
        """The colour and shape that most frames of a clip show; shape only where the object is wholly in view, unless
        it never is."""
        found = [found for found in map(self.find, clip[FRAMES]) if found]
        if not found:
            return None, None
        whole = [mask for _, mask in found if not touches_edge(mask)]
        shapes = [self.shape(mask) for mask in whole or [mask for _, mask in found]]
        return most_common([colour for colour, _ in found]), most_common(shapes)


def touches_edge(mask):
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def most_common(values):
    return max(sorted(set(values), key=str), key=values.count)


def turned(mask, degrees):
    height, width = mask.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    return cv2.warpAffine(mask.astype(np.float32), turn, (width, height)) > 0.5


def centred(mask):
    """A silhouette moved to the middle and scaled to a fixed area."""
    y, x = np.nonzero(mask)
    scale = np.sqrt(AREA * SIZE**2 / max(len(x), 1))
    move = np.array([[scale, 0, SIZE / 2 - scale * np.mean(x)], [0, scale, SIZE / 2 - scale * np.mean(y)]])
    return cv2.warpAffine(mask.astype(np.float32), move, (SIZE, SIZE)) > 0.5


def overlap(a, b):
    """Intersection over union of two masks."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def filled(mask):
    """A mask without its holes."""
    outside = np.pad(mask, 1).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2)
    return outside[1:-1, 1:-1] != 2
