"""Backgrounds: pictures of SIDE × SIDE pixels, of which a camera sees a part.

Photographs are cut out of those that `sources.py` fetched. Dead leaves and fractal noise have the statistics of
photographs without being any. Places that prompts can name, and plain or patterned colours, are painted. All of it is
drawn in batches on one device from a seed; colours are 0..1.
"""

import math

import torch
import torch.nn.functional as F

import things
import world

SIDE = 320


class Brush:
    """Seeded draws for `count` pictures, and what all paintings are made of."""

    def __init__(self, count, seed, device):
        self.count, self.device = count, device
        self.generator = torch.Generator(device).manual_seed(seed)
        line = torch.linspace(0, 1, SIDE, device=device)
        self.x, self.y = line[None, None, :], line[None, :, None]

    def uniform(self, low, high, *shape):
        return low + (high - low) * torch.rand(self.count, *shape, generator=self.generator, device=self.device)

    def spread(self, low, high):
        """One value a picture, ready to meet `[count, height, width]`."""
        return self.uniform(low, high, 1, 1)

    def noise(self, power, stretch=1.0, ridge=False):
        """Gaussian noise with amplitudes falling by `power` over frequency, deviation 1: `[count, SIDE, SIDE]`, or with
        `ridge` along x alone, `[count, 1, SIDE]`. `stretch` draws it out along x."""
        height = 1 if ridge else SIDE
        white = torch.randn(self.count, height, SIDE, generator=self.generator, device=self.device)
        fy = torch.fft.fftfreq(height, device=self.device)[:, None] * SIDE
        fx = torch.fft.rfftfreq(SIDE, device=self.device)[None] * SIDE * stretch
        radius = (fx**2 + fy**2).sqrt()
        weight = torch.where(radius > 0, radius.clamp(min=1.0) ** -power, 0.0)
        made = torch.fft.irfft2(torch.fft.rfft2(white) * weight, s=(height, SIDE))
        return made / made.std(dim=(1, 2), keepdim=True).clamp(min=1e-6)

    def dots(self, share, radius):
        """Soft dots at random places, 0..1."""
        at = (torch.rand(self.count, SIDE, SIDE, generator=self.generator, device=self.device) < share).float()
        at = at * torch.rand(self.count, SIDE, SIDE, generator=self.generator, device=self.device).sqrt()
        reach = max(1, math.ceil(2 * radius))
        k = torch.arange(-reach, reach + 1, device=self.device)
        kernel = torch.exp(-(k[:, None] ** 2 + k[None] ** 2) / (2 * radius**2))
        return F.conv2d(at[:, None], kernel[None, None], padding=reach)[:, 0].clamp(0, 1)

    def colour(self, *rgb, vary=0.06):
        """A colour, a little different in each picture: `[count, 3, 1, 1]`."""
        base = torch.tensor(rgb, device=self.device)[None, :, None, None]
        return (base + self.uniform(-vary, vary, 3, 1, 1) + self.uniform(-vary, vary, 1, 1, 1)).clamp(0, 1)

    def gradient(self, top, bottom, low=0.0, high=1.0):
        return mix(top, bottom, ((self.y - low) / (high - low)).clamp(0, 1).expand(self.count, SIDE, SIDE))

    def sky(self, horizon, clouds=1.0):
        """Blue, lighter towards the horizon, with clouds."""
        picture = self.gradient(self.colour(0.25, 0.52, 0.90), self.colour(0.70, 0.85, 0.97), 0.0, 0.5)
        cloud = (self.noise(1.7, 1.7) * 0.9 + self.spread(-0.9, 0.3) * clouds).clamp(0, 1)
        return mix(picture, self.colour(0.97, 0.97, 0.98, vary=0.02), cloud * 0.9 * (self.y < horizon))

    def stars(self):
        return (self.dots(0.004, 0.6) + self.dots(0.0006, 1.1)).clamp(0, 1)


def mix(a, b, share):
    """From `a` to `b` where `share` `[count, height, width]` is 1."""
    share = share[:, None] if share.dim() == 3 else share
    return a + (b - a) * share


def edge(distance, width=1.5 / SIDE):
    """0 above a line, 1 below it, with a smooth edge; `distance` grows downwards."""
    return (distance / width + 0.5).clamp(0, 1)


def firs(b, base, height, number):
    """Cover of a row of firs that stand at `base`, `[count, SIDE, SIDE]`."""
    place = b.x * number + b.uniform(0, 1, 1, 1) + 0.15 * b.noise(1.0, ridge=True)
    tree = place.floor()
    across = (place - tree - 0.5).abs() * 2
    tall = height * (0.55 + 0.45 * (torch.sin(tree * 12.9898 + b.spread(0, 6)) * 43758.5453).remainder(1.0))
    up = ((base - b.y) / tall).clamp(0, 1)
    teeth = 0.12 * ((up * 7).remainder(1.0) - 0.5)
    return edge((1 - up - across + teeth) * 0.03) * (b.y <= base) * (up < 1)


def water(b, deep, light, horizon):
    wave = b.noise(1.1, 6.0) * 0.16 + b.noise(1.6, 4.0) * 0.1
    near = ((b.y - horizon) / 0.5).clamp(0, 1)
    return mix(mix(deep, light, (0.35 + wave * (0.5 + near)).clamp(0, 1)), torch.ones_like(deep), (wave * 2.2 - 0.75).clamp(0, 0.8))


def beach(b):
    horizon = b.spread(0.36, 0.46)
    shore = horizon + b.spread(0.08, 0.16) + 0.012 * b.noise(1.6, ridge=True)
    picture = b.sky(horizon)
    picture = mix(picture, water(b, b.colour(0.08, 0.42, 0.66), b.colour(0.22, 0.70, 0.78), horizon), edge(b.y - horizon))
    sand = b.colour(0.92, 0.80, 0.56) * (1 + 0.05 * b.noise(0.5) + 0.06 * b.noise(1.6, 3.0))[:, None]
    picture = mix(picture, sand, edge(b.y - shore))
    foam = torch.exp(-(((b.y - shore + 0.004) / 0.009) ** 2)) * (0.75 + 0.3 * b.noise(0.8, 2.0)).clamp(0, 1)
    return mix(picture, torch.ones_like(picture), foam)


def sea(b):
    horizon = b.spread(0.38, 0.52)
    picture = b.sky(horizon)
    return mix(picture, water(b, b.colour(0.03, 0.25, 0.48), b.colour(0.14, 0.48, 0.68), horizon), edge(b.y - horizon))


def forest(b):
    picture = b.gradient(b.colour(0.72, 0.84, 0.76), b.colour(0.52, 0.68, 0.52), 0.1, 0.6)
    for k in range(3):
        base = 0.52 + 0.06 * k + b.spread(-0.02, 0.02)
        green = b.colour(0.38 - 0.13 * k, 0.55 - 0.15 * k, 0.40 - 0.12 * k)
        trees = firs(b, base, 0.26 + 0.05 * k, 13 - 3 * k)
        leaves = green * (1 + 0.16 * b.noise(0.4))[:, None]
        picture = mix(mix(picture, leaves, trees), leaves * 0.92, edge(b.y - base))
    ground = b.colour(0.24, 0.36, 0.14) * (1 + 0.16 * b.noise(0.7) + 0.10 * b.noise(1.5, 2.0))[:, None]
    return mix(picture, ground, edge(b.y - b.spread(0.64, 0.70)))


def mountains(b):
    picture = b.sky(0.6)
    for k in range(3):
        power, tall = (1.5, 0.075) if k < 2 else (1.8, 0.03)
        top = 0.36 + 0.12 * k + tall * b.noise(power, ridge=True) + b.spread(-0.03, 0.03)
        rock = b.colour(0.52 - 0.14 * k, 0.57 - 0.13 * k, 0.68 - 0.18 * k)
        if k == 2:
            rock = b.colour(0.22, 0.38, 0.18)
        relief = b.noise(1.3)
        body = rock * (1 + 0.14 * relief + 0.10 * b.noise(0.5))[:, None]
        if k < 2:
            snow = edge(top + 0.055 - 0.03 * k + 0.03 * relief - b.y, 0.01)
            body = mix(body, b.colour(0.95, 0.96, 0.99, vary=0.02) * (1 + 0.05 * relief)[:, None], snow)
        picture = mix(picture, body, edge(b.y - top))
    return picture


def desert(b):
    picture = b.gradient(b.colour(0.40, 0.66, 0.90), b.colour(0.96, 0.86, 0.68), 0.1, 0.5)
    for k in range(3):
        ridge = b.noise(2.6, ridge=True)
        top = 0.46 + 0.11 * k + 0.03 * ridge + b.spread(-0.02, 0.02)
        slope = F.pad(ridge[..., 1:] - ridge[..., :-1], (0, 1)) * 30
        lit = 0.5 - 0.5 * torch.tanh(slope) + ((b.y - top) * 1.5).clamp(0, 0.5)
        sand = mix(b.colour(0.72, 0.42, 0.18), b.colour(0.95, 0.72, 0.38), lit.clamp(0, 1).expand(b.count, SIDE, SIDE))
        ripple = torch.sin((b.y + 0.02 * b.noise(2.0)) * b.spread(180, 260))
        picture = mix(picture, sand * (1 + 0.04 * ripple + 0.04 * b.noise(0.4))[:, None], edge(b.y - top))
    return picture


def blocks(b, base, low, high, number):
    """A skyline: cover, and where its windows are lit."""
    place = b.x * number + b.spread(0, 1) + 0.1 * torch.sin(b.x * 40)
    house = place.floor()
    chance = (torch.sin(house * 91.17 + b.spread(0, 6)) * 4375.85).remainder(1.0)
    cover = edge(b.y - (base - low - (high - low) * chance)) * (place - house < 0.94)
    column, row = (place - house) * 6, b.y * 46
    odd = (torch.sin(column.floor() * 12.99 + row.floor() * 78.23 + house * 37.7) * 43758.54).remainder(1.0)
    pane = ((column.remainder(1.0) - 0.5).abs() < 0.28) & ((row.remainder(1.0) - 0.5).abs() < 0.3)
    return cover, cover * pane * (odd > 0.35)


def city(b, lit=0.35):
    picture = b.gradient(b.colour(0.52, 0.68, 0.86), b.colour(0.93, 0.86, 0.80), 0.1, 0.6)
    picture = mix(picture, torch.ones_like(picture), (b.noise(1.8, 1.8) * 0.4 - 0.2).clamp(0, 0.6))
    lamp = torch.tensor([1.0, 0.90, 0.55], device=b.device)[None, :, None, None]
    for k in range(2):
        wall = b.colour(0.56 - 0.24 * k, 0.60 - 0.24 * k, 0.70 - 0.24 * k)
        cover, window = blocks(b, 0.66, 0.10, 0.40 - 0.12 * k, 9 - 2 * k)
        picture = mix(picture, wall * (1 + 0.05 * b.noise(1.0))[:, None], cover)
        picture = mix(picture, lamp, window * (lit + 0.25 * k))
    street = b.colour(0.33, 0.33, 0.36) * (1 + 0.07 * b.noise(0.5))[:, None]
    picture = mix(picture, street, edge(b.y - 0.66))
    dash = ((b.y - 0.76).abs() < 0.008) & ((b.x * 12).remainder(1.0) < 0.5)
    return mix(picture, torch.ones_like(picture), dash.float().expand(b.count, SIDE, SIDE) * 0.8)


def snow(b):
    picture = b.gradient(b.colour(0.62, 0.74, 0.88), b.colour(0.90, 0.93, 0.96), 0.1, 0.55)
    for k in range(3):
        top = 0.44 + 0.09 * k + 0.016 * b.noise(2.0, ridge=True)
        white = b.colour(0.88 + 0.03 * k, 0.92 + 0.02 * k, 0.97, vary=0.02)
        relief = b.noise(1.8)
        trees = firs(b, top + 0.02, 0.12 + 0.04 * k, 15 - 4 * k) * (b.noise(1.5, ridge=True) > 0.2)
        fir = mix(b.colour(0.16, 0.30, 0.28), torch.ones_like(white), (b.noise(0.6) * 0.6 - 0.1).clamp(0, 0.9))
        picture = mix(picture, fir, trees)
        picture = mix(picture, white * (1 + 0.05 * relief + 0.03 * b.noise(0.3))[:, None].clamp(max=1.1), edge(b.y - top))
    return mix(picture, torch.ones_like(picture), b.dots(0.003, 1.0))


def meadow(b):
    horizon = b.spread(0.38, 0.48) + 0.012 * b.noise(2.0, ridge=True)
    near = ((b.y - horizon) / 0.5).clamp(0, 1)
    grass = mix(b.colour(0.48, 0.72, 0.30), b.colour(0.22, 0.52, 0.14), near) * (1 + 0.22 * b.noise(0.4, 0.35) + 0.08 * b.noise(1.5))[:, None]
    picture = mix(b.sky(horizon), grass, edge(b.y - horizon))
    for rgb in ((0.98, 0.92, 0.30), (0.95, 0.40, 0.50), (0.97, 0.97, 0.97)):
        flowers = b.dots(0.0012, 1.4) * (b.y > horizon + 0.05)
        picture = mix(picture, b.colour(*rgb), (flowers * 1.6).clamp(0, 1))
    return picture


def sky(b):
    picture = b.gradient(b.colour(0.20, 0.48, 0.90), b.colour(0.62, 0.82, 0.97))
    thick = b.noise(1.7, 1.5)
    cloud = (thick * 0.9 + b.spread(-0.2, 0.4)).clamp(0, 1)
    white = b.colour(0.98, 0.98, 0.99, vary=0.02) * (1 - 0.14 * (thick - 0.8).clamp(0, 1))[:, None]
    return mix(picture, white, cloud)


def night_sky(b):
    picture = b.gradient(b.colour(0.02, 0.03, 0.12, vary=0.02), b.colour(0.10, 0.14, 0.36, vary=0.03))
    picture = picture * (1 + 0.25 * b.noise(1.7))[:, None].clamp(min=0)
    picture = mix(picture, torch.ones_like(picture), b.stars())
    hills = 0.72 + 0.04 * b.noise(2.0, ridge=True) + b.spread(0, 0.12)
    return mix(picture, b.colour(0.02, 0.03, 0.06, vary=0.01), edge(b.y - hills))


def space(b):
    glow = (b.noise(1.6) * 0.5).clamp(0, 1.2)[:, None] * b.uniform(0.05, 0.55, 3, 1, 1)
    glow = glow + (b.noise(1.6) * 0.5).clamp(0, 1.2)[:, None] * b.uniform(0.05, 0.5, 3, 1, 1)
    return mix(b.colour(0.02, 0.02, 0.05, vary=0.01) + glow * 0.8, torch.ones_like(glow), (b.stars() * 1.2).clamp(0, 1)).clamp(0, 1)


def sunset(b):
    horizon = b.spread(0.50, 0.60)
    picture = b.gradient(b.colour(0.42, 0.24, 0.52), b.colour(0.99, 0.62, 0.25), 0.05, 0.55)
    picture = mix(picture, b.colour(0.92, 0.36, 0.36), (b.noise(1.6, 3.0) * 0.45).clamp(0, 0.8))
    away = ((b.x - b.spread(0.35, 0.65)) ** 2 + (b.y - horizon + b.spread(0.02, 0.10)) ** 2).sqrt()
    picture = mix(picture, b.colour(1.0, 0.90, 0.55, vary=0.02), edge(0.055 - away, 0.008))
    picture = mix(picture, b.colour(1.0, 0.75, 0.40, vary=0.02), torch.exp(-((away / 0.14) ** 2)) * 0.6)
    return mix(picture, water(b, b.colour(0.30, 0.14, 0.26), b.colour(0.85, 0.42, 0.28), horizon), edge(b.y - horizon))


def underwater(b):
    picture = b.gradient(b.colour(0.30, 0.75, 0.85), b.colour(0.02, 0.18, 0.42), 0.1, 0.8)
    slant = b.x + 0.35 * b.y
    ray = torch.sin(slant * b.spread(30, 50) + b.spread(0, 6)) * torch.sin(slant * b.spread(12, 20) + b.spread(0, 6))
    picture = mix(picture, torch.ones_like(picture), (ray * 0.22 * (1 - b.y)).clamp(0, 0.3).expand(b.count, SIDE, SIDE))
    picture = picture * (1 + 0.06 * b.noise(1.2))[:, None]
    floor = 0.72 + 0.03 * b.noise(1.8, ridge=True)
    sand = b.colour(0.35, 0.46, 0.42) * (1 + 0.12 * b.noise(0.6, 2.0))[:, None]
    weed = firs(b, floor + 0.02, 0.12, 16) * (b.noise(1.2, ridge=True) > 0.4)
    picture = mix(mix(picture, b.colour(0.06, 0.34, 0.26), weed), sand, edge(b.y - floor))
    return mix(picture, torch.ones_like(picture), b.dots(0.0010, 1.6) * 0.6)


PAINTERS = {
    "beach": beach, "sea": sea, "forest": forest, "mountains": mountains, "desert": desert, "city": city, "snow": snow,
    "meadow": meadow, "sky": sky, "night sky": night_sky, "sunset": sunset, "space": space, "underwater": underwater,
}  # fmt: skip
assert PAINTERS.keys() == things.PLACES.keys()


def place(name, count, seed, device, night=False):
    """Paintings of a place, by day or by night."""
    b = Brush(count, seed, device)
    if not night:
        return PAINTERS[name](b).clamp(0, 1)
    picture = city(b, lit=0.0) if name == "city" else PAINTERS[name](b)
    dark = picture.clamp(0, 1) * b.colour(0.26, 0.34, 0.60, vary=0.04) + b.colour(0.01, 0.02, 0.07, vary=0.01)
    if name == "city":
        lamps = Brush(count, seed + 1, device)
        for k in range(2):
            cover, window = blocks(lamps, 0.66, 0.10, 0.36 - 0.12 * k, 9 - 2 * k)
            dark = mix(mix(dark, lamps.colour(0.05, 0.06, 0.12, vary=0.02), cover), lamps.colour(1.0, 0.86, 0.45), window)
    return mix(dark, torch.ones_like(dark), b.stars() * (b.y < 0.34)).clamp(0, 1)


def plain(rgb, count, seed, device):
    """A colour with soft light and grain of paper."""
    b = Brush(count, seed, device)
    light = 1 + 0.07 * b.noise(1.9) + 0.025 * b.noise(0.6)
    return (b.colour(*rgb, vary=0.03) * light[:, None]).clamp(0, 1)


def patterned(scenes, dark, light):
    """The textures of `world.py`, from a dark to a light colour `[count, 3]`."""
    line = torch.arange(SIDE, device=dark.device) - (SIDE - 1) / 2
    bright = world.pattern(scenes, line[None, None, None, :], line[None, None, :, None], False).clamp(0, 1)
    return mix(dark[:, :, None, None], light[:, :, None, None], bright[:, 0]).clamp(0, 1)


def fractal(count, seed, device):
    """Noise of natural spectra in random colours."""
    b = Brush(count, seed, device)
    power = b.uniform(0.9, 1.7, 1, 1)
    layers = torch.stack([b.noise(1.0) * (1.7 - power) + b.noise(1.6) * (power - 0.9) for _ in range(3)], dim=1)
    turn = torch.linalg.qr(torch.randn(count, 3, 3, generator=b.generator, device=device))[0] * torch.tensor([0.30, 0.10, 0.06], device=device)
    picture = torch.einsum("nij,njhw->nihw", turn, layers / layers.std(dim=(2, 3), keepdim=True)) + b.uniform(0.25, 0.75, 3, 1, 1)
    return picture.clamp(0, 1)


def leaves(count, seed, device, number=140):
    """Dead leaves: opaque ellipses and polygons of many sizes over each other, each with a texture of its own."""
    b = Brush(count, seed, device)
    picture, grain = fractal(count, seed + 1, device), b.noise(0.8)
    hue = b.uniform(0, 1, 3, 1, 1)
    for k in range(number):
        radius = 0.5 * (0.05 + 0.95 * (1 - k / number)) * b.spread(0.15, 0.6)  # large ones first
        turn, flat = b.spread(0, math.pi), b.spread(0.4, 1.0)
        x, y = b.x - b.spread(-0.05, 1.05), b.y - b.spread(-0.05, 1.05)
        u, v = x * turn.cos() + y * turn.sin(), (y * turn.cos() - x * turn.sin()) / flat
        corner = b.spread(0, 1)
        away = torch.where(corner < 0.6, (u**2 + v**2).sqrt(), torch.maximum(u.abs(), v.abs()) * 1.1)
        colour = (hue * 0.35 + b.uniform(0, 0.65, 3, 1, 1)) * (1 + 0.2 * grain + b.spread(-0.6, 0.6) * (u / radius))[:, None]
        picture = mix(picture, colour.clamp(0, 1), edge(radius - away))
    return picture


def crops(photo, count, seed, device):
    """Parts of a photograph `[height, width, 3]` of 8 bits, at several sizes, mirrored, with other light and colours."""
    b = Brush(count, seed, device)
    whole = torch.from_numpy(photo).to(device).permute(2, 0, 1)[None].float() / 255
    height, width = whole.shape[2:]
    most = min(height, width)
    least = min(most, max(170, int(most * 0.35)))
    side = (least + (most - least) * torch.rand(count, generator=torch.Generator().manual_seed(seed))).int().tolist()
    made = []
    for n, (s, px, py) in enumerate(zip(side, b.uniform(0, 1).tolist(), b.uniform(0, 1).tolist())):
        x, y = int(px * (width - s)), int(py * (height - s))
        part = F.interpolate(whole[:, :, y : y + s, x : x + s], size=(SIDE, SIDE), mode="bicubic", antialias=True)
        made.append(part.flip(3) if n % 2 else part)
    picture = torch.cat(made).clamp(0, 1)
    gray = picture.mean(1, keepdim=True)
    picture = gray + (picture - gray) * b.uniform(0.3, 1.5, 1, 1, 1)
    picture = picture.clamp(0, 1) ** b.uniform(0.7, 1.4, 1, 1, 1)
    return (picture * b.uniform(0.8, 1.2, 3, 1, 1) * b.uniform(0.75, 1.15, 1, 1, 1)).clamp(0, 1)
