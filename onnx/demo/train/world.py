"""The procedural world: one or two objects over a textured background, each moving, seen by a moving camera.

A batch of scenes is a dict of tensors with a row per scene. `render` draws it at any times in 0..1, so a clip is
sixteen times and a picture is one. Lengths are in pixels of the 128-pixel picture, its centre is the origin, y grows
downwards. Motion never depends on what the caption names.
"""

import functools
import math
import random

import torch

from config import FRAMES, SIZE

SHAPES = ["circle", "square", "triangle", "star", "heart", "ring", "cross"]
COLOURS = {
    "red": (0.86, 0.10, 0.13),
    "orange": (1.00, 0.53, 0.05),
    "yellow": (0.98, 0.90, 0.22),
    "green": (0.20, 0.78, 0.25),
    "blue": (0.16, 0.36, 0.95),
    "purple": (0.60, 0.18, 0.82),
    "pink": (1.00, 0.58, 0.78),
    "white": (0.97, 0.97, 0.97),
}
SIZES = {"small": 16.0, "medium": 21.0, "large": 28.0}  # radius
TINTS = {
    "gray": (0.42, 0.42, 0.44),
    "brown": (0.40, 0.26, 0.15),
    "navy": (0.09, 0.13, 0.34),
    "teal": (0.07, 0.36, 0.37),
    "olive": (0.35, 0.36, 0.11),
    "maroon": (0.34, 0.08, 0.15),
    "indigo": (0.24, 0.15, 0.36),
    "black": (0.10, 0.10, 0.11),
}
TEXTURES = ["cloudy", "striped", "checkered", "dotted", "wavy"]
UNSEEN_TEXTURES = ["bricks", "crosshatch", "zigzag", "spots"]  # for evaluation alone
CAMERAS = ["still", "pan", "zoom", "roll"]
MOTIONS = ["rest", "line", "orbit", "bounce", "zoom", "spin"]
TEMPLATES = [
    "a {object} on a {background} background",
    "{object}, {background} background",
    "a picture of a {object} over a {background} background",
    "the {object} in front of a {background} wall",
    "a {background} background with a {object}",
    "a {object} and a {background} background",
    "a {background} wall behind a {object}",
]


class Draw:
    """Seeded draws of one value a scene."""

    def __init__(self, count, seed):
        self.count, self.generator = count, torch.Generator().manual_seed(seed)

    def uniform(self, low, high, *shape):
        return low + (high - low) * torch.rand(self.count, *shape, generator=self.generator)

    def choose(self, weights, *shape):
        size = math.prod(shape)
        index = torch.multinomial(torch.tensor(weights), self.count * size, True, generator=self.generator)
        return index.view(self.count, *shape)

    def sign(self, *shape):
        return self.choose([0.5, 0.5], *shape) * 2.0 - 1.0

    def direction(self, *shape):
        """One of the eight compass directions, a unit vector."""
        angle = self.choose([1.0] * 8, *shape) * (math.pi / 4)
        return torch.stack([angle.cos(), angle.sin()], dim=-1)


def sample(count, seed, unseen=False):
    """Draws `count` scenes. `unseen` gives them the textures kept for evaluation."""
    d = Draw(count, seed)
    camera = d.choose([0.45, 0.31, 0.13, 0.11])
    motion = d.choose([0.22, 0.36, 0.11, 0.11, 0.10, 0.10], 2)
    still = (camera == 0) & (motion[:, 0] == 0) & (d.uniform(0, 1) > 0.1)
    motion[:, 0] = torch.where(still, d.choose([0.0, 0.4, 0.15, 0.15, 0.15, 0.15]), motion[:, 0])
    two = d.uniform(0, 1) < 0.25
    # The second object sits across the first and moves less far, so that both stay in view.
    side = d.uniform(0, 2 * math.pi)
    apart = torch.stack([side.cos(), side.sin()], dim=-1) * d.uniform(24, 32)[:, None]
    place = d.uniform(-18, 18, 2, 2) * torch.where(two, 0.3, 1.0)[:, None, None]
    place = place + torch.stack([apart, -apart], dim=1) * two[:, None, None]
    reach = torch.where(two, 0.55, 1.0) * torch.where(camera == 1, 0.8, 1.0)
    reach = reach[:, None]
    size = d.choose([1.0, 1.0, 1.0], 2)
    size = torch.where(two[:, None], size.clamp(max=1), size)

    def when(kind, value):
        mask = motion == MOTIONS.index(kind)
        return value * (mask[..., None] if value.dim() > mask.dim() else mask)

    wavelength = d.uniform(26, 70, 5)
    wave_angle = d.uniform(0, 2 * math.pi, 5)
    number = 2 * math.pi / wavelength
    tail = len(TEXTURES) if unseen else 0
    textures = len(UNSEEN_TEXTURES) if unseen else len(TEXTURES)
    return {
        "tint": d.choose([1.0] * len(TINTS)),
        "texture": d.choose([1.0] * textures) + tail,
        "texture_angle": d.uniform(-0.5, 0.5) + d.choose([0.5, 0.5]) * (math.pi / 2),
        "texture_scale": d.uniform(0.8, 1.25),
        "texture_phase": d.uniform(0, 100, 2),
        "waves": torch.stack(
            [number * wave_angle.cos(), number * wave_angle.sin(), d.uniform(0, 2 * math.pi, 5), d.uniform(0.5, 1.0, 5)],
            dim=-1,
        ),
        "camera": camera,
        "camera_pan": d.direction() * d.uniform(18, 52)[:, None] * (camera == 1)[:, None],
        "camera_zoom": d.sign() * d.uniform(0.35, 0.85) * (camera == 2),
        "camera_roll": d.sign() * d.uniform(0.45, 1.25) * (camera == 3),
        "camera_ease": d.choose([0.4, 0.25, 0.175, 0.175]),
        "camera_bend": d.uniform(0.4, 1.0),
        "two": two,
        "motion": motion,
        "shape": d.choose([1.0] * len(SHAPES), 2),
        "colour": torch.stack([d.choose([1.0] * len(COLOURS)), d.choose([1.0] * len(COLOURS))], dim=-1),
        "size": size,
        "place": place,
        "tilt": d.uniform(-0.25, 0.25, 2),
        "line": when("line", d.direction(2) * (d.uniform(24, 60, 2) * reach)[..., None]),
        "orbit": when("orbit", d.uniform(16, 28, 2) * reach),
        "orbit_turns": d.sign(2) * d.uniform(0.6, 1.1, 2),
        "orbit_start": d.uniform(0, 2 * math.pi, 2),
        "bounce": when("bounce", d.uniform(22, 42, 2) * reach),
        "bounce_count": d.choose([0.5, 0.5], 2) + 1.0,
        "zoom": when("zoom", d.sign(2) * d.uniform(0.5, 1.0, 2)),
        "spin": when("spin", d.sign(2) * d.uniform(1.2, 4.0, 2)),
        "ease": d.choose([0.4, 0.25, 0.175, 0.175], 2),
        "bend": d.uniform(0.4, 1.0, 2),
    }


def take(scenes, index):
    """The scenes at `index`."""
    return {name: value[index] for name, value in scenes.items()}


def to(scenes, device):
    """The scenes on another device."""
    return {name: value.to(device) for name, value in scenes.items()}


def frame_times(count, device="cpu"):
    """The times of a clip's frames, for `count` scenes."""
    return torch.linspace(0, 1, FRAMES, device=device).expand(count, FRAMES)


def eased(time, kind, bend):
    """Progress 0..1 at `time`: even, smooth at both ends, slow to start, or slow to end; `bend` says how much."""
    smooth = time * time * (3 - 2 * time)
    curve = torch.where(kind == 1, smooth, torch.where(kind == 2, time * time, 1 - (1 - time) ** 2))
    return torch.where(kind == 0, time, time + bend * (curve - time))


def camera_pose(s, time):
    """Angle, scale and centre of the camera, `[scenes, times]` each (the centre has two)."""
    e = eased(time, s["camera_ease"][:, None], s["camera_bend"][:, None]) - 0.5
    scale = torch.exp(s["camera_zoom"][:, None] * e)
    return s["camera_roll"][:, None] * e, scale, s["camera_pan"][:, None] * e[..., None]


def object_pose(s, i, time):
    """Place, scale and angle of object `i` in the world, `[scenes, times]` each (the place has two)."""
    e = eased(time, s["ease"][:, i, None], s["bend"][:, i, None])
    turn = s["orbit_start"][:, i, None] + 2 * math.pi * s["orbit_turns"][:, i, None] * e
    hop = (math.pi * s["bounce_count"][:, i, None] * e).sin().abs() - 0.5
    x = s["line"][:, i, 0, None] * (e - 0.5) + s["orbit"][:, i, None] * turn.cos()
    y = s["line"][:, i, 1, None] * (e - 0.5) + s["orbit"][:, i, None] * turn.sin() - s["bounce"][:, i, None] * hop
    place = s["place"][:, i, None] + torch.stack([x, y], dim=-1)
    return place, torch.exp(s["zoom"][:, i, None] * (e - 0.5)), s["tilt"][:, i, None] + s["spin"][:, i, None] * (e - 0.5)


def wide(value):
    """A value per scene, or per scene and time, ready to meet `[scenes, times, height, width]`."""
    return value.reshape(value.shape + (1,) * (4 - value.dim()))


def pixel_grid(device):
    line = torch.arange(SIZE, device=device) - (SIZE - 1) / 2
    return line[None, None, None, :], line[None, None, :, None]


def to_world(s, time):
    """World coordinates of every pixel, and pixels per unit of the world."""
    angle, scale, centre = camera_pose(s, time)
    x, y = pixel_grid(time.device)
    cos, sin = wide(angle.cos() / scale), wide(angle.sin() / scale)
    return x * cos - y * sin + wide(centre[..., 0]), x * sin + y * cos + wide(centre[..., 1]), scale


def box(x, y, a, b):
    return torch.maximum(x.abs() - a, y.abs() - b)


def distances(x, y):
    """Signed distance (nearly) to each shape of radius one, in the order of SHAPES."""
    r = torch.sqrt(x * x + y * y + 1e-8)
    yield r - 0.9
    yield box(x, y, 0.78, 0.78)
    yield torch.maximum(y - 0.55, 0.866 * x.abs() - 0.5 * y - 0.55)
    fifth = 2 * math.pi / 5
    a = torch.atan2(x, -y)
    a = (a - fifth * torch.round(a / fifth)).abs()
    inner_x, inner_y = 0.46 * math.cos(math.pi / 5), 0.46 * math.sin(math.pi / 5)
    nx, ny = inner_y, 1.08 - inner_x
    length = math.hypot(nx, ny)
    yield (nx * (r * a.cos() - 1.08) + ny * r * a.sin()) / length
    u, v, half = (x - y) * 0.7071, (x + y) * 0.7071, 0.55  # a square on its corner with two round tops
    top = torch.sqrt((x.abs() - 0.7071 * half) ** 2 + (y + 0.7071 * half) ** 2 + 1e-8) - half
    yield torch.minimum(box(u, v, half, half), top)
    yield (r - 0.68).abs() - 0.24
    yield torch.minimum(box(x, y, 0.95, 0.33), box(x, y, 0.33, 0.95))


def object_distance(s, i, time, x, y, scale):
    """Signed distance to object `i` in pixels of the picture, and local coordinates."""
    place, size, angle = object_pose(s, i, time)
    radius = table("SIZES", x.device)[s["size"][:, i]][:, None] * size
    cos, sin = wide(angle.cos() / radius), wide(angle.sin() / radius)
    dx, dy = x - wide(place[..., 0]), y - wide(place[..., 1])
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    chosen = wide(s["shape"][:, i])
    distance = None
    for k, d in enumerate(distances(u, v)):
        distance = d if distance is None else torch.where(chosen == k, d, distance)
    return distance * wide(radius * scale), u, v


def pattern(s, x, y, unseen):
    """Brightness of the background, about 0..1."""
    cos, sin = wide(s["texture_angle"].cos()), wide(s["texture_angle"].sin())
    size = wide(s["texture_scale"])
    u = (x * cos + y * sin) / size + wide(s["texture_phase"][:, 0])
    v = (y * cos - x * sin) / size + wide(s["texture_phase"][:, 1])
    w = 2 * math.pi
    cloud = sum(
        wide(s["waves"][:, k, 3]) * (wide(s["waves"][:, k, 0]) * x + wide(s["waves"][:, k, 1]) * y + wide(s["waves"][:, k, 2])).sin()
        for k in range(s["waves"].shape[1])
    )
    kinds = [
        lambda: 0.25 * cloud,
        lambda: torch.tanh(2.5 * (w * u / 26).sin()),
        lambda: torch.tanh(3.0 * (w * u / 42).sin() * (w * v / 42).sin()),
        lambda: torch.tanh(4.0 * ((w * u / 24).cos() + (w * v / 24).cos() - 0.9)),
        lambda: torch.tanh(2.0 * (w * (u + 5 * (w * v / 46).sin()) / 28).sin()),
        lambda: torch.tanh(4.0 * (0.75 - torch.maximum((w * v / 44).sin() ** 8, (w * (u / 52 + 0.25 * torch.tanh(4 * (w * v / 44).sin()))).sin() ** 8))),
        lambda: torch.maximum((w * (u + v) / 36).sin(), (w * (u - v) / 36).sin()),
        lambda: torch.tanh(2.5 * (w * (u + (v.remainder(32) - 16).abs()) / 27).sin()),
        lambda: torch.tanh(3.0 * ((w * u / 31).sin() * (w * v / 37).sin() + (w * (u + 2 * v) / 53).sin() - 0.3)),
    ]
    kind = wide(s["texture"])
    value = kinds[0]()
    for k in range(1, len(kinds) if unseen else len(TEXTURES)):
        value = torch.where(kind == k, kinds[k](), value)
    return 0.5 + 0.24 * value + 0.13 * cloud


@functools.cache
def table(name, device):
    """One of the tables above as a tensor; kept, for a recorded CUDA graph must not copy from the host."""
    return torch.tensor(list(globals()[name].values()), device=device)


def render(s, time, unseen=False):
    """Pictures in -1..1, `[scenes, times, 3, height, width]`, at `time` `[scenes, times]`.

    `unseen` says that scenes may have the textures kept for evaluation, which training need not pay for.
    """
    x, y, scale = to_world(s, time)
    tint = table("TINTS", x.device)[s["tint"]]
    bright = pattern(s, x, y, unseen).clamp(0, 1)[:, :, None]
    dark, light = (tint * 0.55)[:, None, :, None, None], (tint * 1.35 + 0.06)[:, None, :, None, None]
    picture = dark + (light - dark) * bright
    for i in (1, 0):
        distance, u, v = object_distance(s, i, time, x, y, scale)
        cover = (0.5 - distance).clamp(0, 1)
        if i == 1:
            cover = cover * wide(s["two"])
        colour = table("COLOURS", x.device)[s["colour"][:, i]][:, None, :, None, None]
        shade = (0.93 - 0.07 * (u + v)).clamp(0.8, 1.0)[:, :, None]
        picture = picture + cover[:, :, None] * (colour * shade - picture)
    return picture.clamp(0, 1) * 2 - 1


def outline(s, time, stroke=2.0):
    """Sketches of the objects, white strokes on black: 0..1, `[scenes, times, 3, height, width]`."""
    x, y, scale = to_world(s, time)
    sketch = torch.zeros_like(x)
    for i in (0, 1):
        distance = object_distance(s, i, time, x, y, scale)[0]
        line = (0.5 + stroke / 2 - distance.abs()).clamp(0, 1)
        sketch = torch.maximum(sketch, line * wide(s["two"]) if i == 1 else line)
    return sketch[:, :, None].expand(-1, -1, 3, -1, -1)


def silhouettes(s, time):
    """The objects filled with light on a dark ground: pictures in -1..1, as `render` gives them."""
    x, y, scale = to_world(s, time)
    cover = torch.zeros_like(x)
    for i in (0, 1):
        inside = (0.5 - object_distance(s, i, time, x, y, scale)[0]).clamp(0, 1)
        cover = torch.maximum(cover, inside * wide(s["two"]) if i == 1 else inside)
    return (cover * 1.2 - 0.6)[:, :, None].expand(-1, -1, 3, -1, -1)


def captions(scenes, count, seed):
    """`count` captions for each scene: lists of strings."""
    pick = random.Random(seed)
    colours, sizes, tints = list(COLOURS), list(SIZES), list(TINTS)
    columns = {k: scenes[k].tolist() for k in ("shape", "colour", "size", "two", "tint", "texture")}
    return [[caption(pick, columns, n, colours, sizes, tints) for _ in range(count)] for n in range(len(columns["two"]))]


def caption(pick, columns, n, colours, sizes, tints):
    names = []
    for i in range(1 + columns["two"][n]):
        size = sizes[columns["size"][n][i]] + " " if pick.random() < 0.4 else ""
        names.append(f"{size}{colours[columns['colour'][n][i]]} {SHAPES[columns['shape'][n][i]]}")
    pick.shuffle(names)
    tint, texture = tints[columns["tint"][n]], (TEXTURES + UNSEEN_TEXTURES)[columns["texture"][n]]
    background = pick.choice([f"{texture} {tint}", f"{tint} {texture}", tint, f"{texture} {tint}"])
    return pick.choice(TEMPLATES).format(object=" and a ".join(names), background=background)
