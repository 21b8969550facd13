"""Clips that look like footage: objects over backgrounds of `paint.py`, moving, seen by a moving camera.

A batch of scenes is a dict of tensors with a row per scene; `Studio` holds the pictures that they refer to and draws
them at any times in 0..1. Lengths are in pixels of the picture, its centre is the origin, y grows downwards. Motion
never depends on what the caption names.
"""

import math
import random

import torch
import torch.nn.functional as F

import paint
import things
import world
from config import FRAMES, SIZE
from paint import SIDE
from world import Draw, eased, take, to, wide

OBJECTS = [*world.SHAPES, *things.EMOJI]  # shapes come first: they are drawn in a colour of the caption
SPRITE = 96  # pixels of an object's picture
RADIUS = {"small": 18.0, "medium": 26.0, "large": 36.0}
CAMERAS = ["still", "pan", "return", "wander", "zoom", "roll", "mixed"]
MOTIONS = ["rest", "line", "return", "orbit", "bounce", "wander", "zoom", "spin"]
MASKS = 128  # soft shapes that show a nearer layer
CUTOUT = 0.35  # of the objects over photographs are cut out of another photograph
# How many backgrounds of each kind the studio holds, and the share of the scenes that has one of them.
KINDS = {"photo": (3072, 0.27), "leaves": (512, 0.05), "fractal": (384, 0.04), "place": (2048, 0.34), "colour": (1280, 0.30)}
FASTEST = 150.0  # pixels that a camera pans in a clip: ten a frame


class Studio:
    """Backgrounds, objects and masks on one device; `scale` makes fewer backgrounds, for trials."""

    def __init__(self, photos, emoji, seed, device, scale=1.0):
        self.device, self.labels, pictures = device, [], []
        number = {kind: max(2, int(count * scale)) for kind, (count, _) in KINDS.items()}

        def add(kind, label, picture):
            pictures.append((picture * 255).round().byte())
            self.labels.extend([(kind, label)] * len(picture))

        each = -(-number["photo"] // len(photos))
        for n, photo in enumerate(photos):
            add("photo", None, paint.crops(photo, each, seed + n, device))
        for kind, draw in (("leaves", paint.leaves), ("fractal", paint.fractal)):
            for n in range(-(-number[kind] // 64)):
                add(kind, None, draw(min(64, number[kind]), seed + 100 + n, device))
        places = [(name, False) for name in things.PLACES] * 2 + [(name, True) for name in things.BY_NIGHT]
        each = -(-number["place"] // len(places))
        for n, (name, night) in enumerate(places):
            add("place", (name, night), paint.place(name, each, seed + 200 + n, device, night))
        for name, picture in coloured(number["colour"], seed + 300, device):
            add("colour", name, picture)
        self.backgrounds = torch.cat(pictures)
        kinds = torch.tensor([list(KINDS).index(kind) for kind, _ in self.labels])
        counts = torch.bincount(kinds, minlength=len(KINDS))
        self.chance = torch.tensor([share for _, share in KINDS.values()])[kinds] / counts[kinds]
        self.natural = torch.nonzero(kinds < 3)[:, 0]
        self.sprites = sprites(emoji, device)
        b = paint.Brush(MASKS, seed + 400, device)
        self.masks = ((b.noise(2.2) + b.spread(-0.9, 0.3)) * 25).clamp(0, 1)[:, None]


def coloured(count, seed, device):
    """Plain and textured backgrounds of every colour word: pairs of the words and pictures."""
    tints = {name: ([0.55 * v for v in rgb], [1.35 * v + 0.06 for v in rgb]) for name, rgb in world.TINTS.items()}
    bright = {name: ([0.66 * v for v in rgb], [1.05 * v + 0.04 for v in rgb]) for name, rgb in things.COLOURS.items()}
    dark = {name: rgb for name, rgb in world.TINTS.items() if name not in things.COLOURS}
    each = -(-count // (2 * len(things.COLOURS) + 2 * len(tints)))
    for n, (name, rgb) in enumerate({**things.COLOURS, **dark}.items()):
        yield (name, None), paint.plain(rgb, each, seed + n, device)
    for n, (name, (low, high)) in enumerate([*tints.items(), *tints.items(), *bright.items()]):
        scenes = world.to(world.sample(each, seed + 50 + n), device)
        colours = [torch.tensor(c, device=device).expand(each, 3) for c in (low, high)]
        pictures = paint.patterned(scenes, *colours)
        for texture in range(len(world.TEXTURES)):
            chosen = scenes["texture"] == texture
            if chosen.any():
                yield (name, world.TEXTURES[texture]), pictures[chosen]


def sprites(emoji, device):
    """Pictures of all objects, colours multiplied by cover: `[OBJECTS, 4, SPRITE, SPRITE]`; shapes are white."""
    line = (torch.arange(SPRITE, device=device) - (SPRITE - 1) / 2) * (2.2 / SPRITE)
    cover = [(0.5 - d * SPRITE / 2.2).clamp(0, 1) for d in world.distances(line[None, :], line[:, None])]
    shapes = torch.stack(cover)[:, None].expand(-1, 4, -1, -1)
    drawn = torch.from_numpy(emoji).to(device).permute(0, 3, 1, 2).float() / 255
    drawn = torch.cat([drawn[:, :3] * drawn[:, 3:], drawn[:, 3:]], dim=1)
    drawn = F.pad(F.interpolate(drawn, size=(SPRITE - 6, SPRITE - 6), mode="bilinear", antialias=True), (3, 3, 3, 3))
    return torch.cat([shapes, drawn])


def sample(studio, count, seed):
    """Draws `count` scenes."""
    d = Draw(count, seed)
    natural = studio.natural
    background = torch.multinomial(studio.chance, count, True, generator=d.generator)
    kind = torch.tensor([list(KINDS).index(k) for k, _ in studio.labels])[background]
    photo = kind < 3
    camera = d.choose([0.30, 0.33, 0.07, 0.07, 0.09, 0.08, 0.06])
    is_camera = lambda *names: sum((camera == CAMERAS.index(n)) for n in names).bool()
    reach = torch.exp(d.uniform(math.log(8), math.log(FASTEST)))
    any_way = d.uniform(0, 2 * math.pi)
    way = torch.where((d.uniform(0, 1) < 0.5)[:, None], d.direction(), torch.stack([any_way.cos(), any_way.sin()], dim=-1))
    reach = torch.where(is_camera("return"), reach.clamp(max=70), torch.where(is_camera("mixed"), reach.clamp(max=60), reach))
    two = d.uniform(0, 1) < 0.18
    objects = torch.where(d.uniform(0, 1) < torch.where(photo, 0.45, 0.10), 0, 1 + two.long())
    two = objects == 2
    motion = d.choose([0.24, 0.28, 0.08, 0.09, 0.09, 0.08, 0.07, 0.07], 2)
    idle = (camera == 0) & (motion[:, 0] == 0) & (d.uniform(0, 1) > 0.2)
    motion[:, 0] = torch.where(idle, d.choose([0.0, 0.4, 0.1, 0.12, 0.12, 0.1, 0.08, 0.08]), motion[:, 0])
    is_motion = lambda name: motion == MOTIONS.index(name)
    side = d.uniform(0, 2 * math.pi)
    apart = torch.stack([side.cos(), side.sin()], dim=-1) * d.uniform(26, 36)[:, None]
    place = d.uniform(-16, 16, 2, 2) * torch.where(two, 0.3, 1.0)[:, None, None]
    place = place + torch.stack([apart, -apart], dim=1) * two[:, None, None]
    line_way = d.uniform(0, 2 * math.pi, 2)
    line_way = torch.where((d.uniform(0, 1, 2) < 0.5)[..., None], d.direction(2), torch.stack([line_way.cos(), line_way.sin()], dim=-1))
    line = torch.exp(d.uniform(math.log(14), math.log(105), 2)) * torch.where(two, 0.55, 1.0)[:, None]
    line = torch.where(is_motion("return"), line.clamp(max=70), line)
    far = torch.where(is_camera("pan", "return", "wander", "mixed"), reach, 0.0)
    follow = d.uniform(0, 1) < ((far - 30) / 60).clamp(0, 1)
    sizes = d.choose([0.22, 0.43, 0.35], 2)
    cut = photo[:, None] & (d.uniform(0, 1, 2) < CUTOUT)
    shape = d.choose([1.0] * len(world.SHAPES), 2)
    things_ = d.choose([1.0] * len(things.EMOJI), 2) + len(world.SHAPES)
    plain = torch.where(photo, 0.15, torch.where(kind == list(KINDS).index("colour"), 0.45, 0.2))
    thing = torch.where((d.uniform(0, 1, 2) < plain[:, None]) | cut, shape, things_)
    grown = d.uniform(0.2, 1.0)
    turned = d.uniform(0.25, 1.5)
    zoom = torch.where(is_camera("zoom"), grown, torch.where(is_camera("mixed"), 0.5 * grown, 0.0)) * d.sign()
    roll = torch.where(is_camera("roll"), turned, torch.where(is_camera("mixed"), 0.4 * turned, 0.0)) * d.sign()
    return {
        "background": background,
        "kind": kind,
        "offset": d.uniform(-30, 30, 2),
        "turn": d.uniform(-0.2, 0.2) * photo,
        "camera": camera,
        "camera_move": way * far[:, None],
        "camera_wander": wandering(d, 1)[:, 0],
        "camera_zoom": zoom,
        "camera_roll": roll,
        "camera_ease": d.choose([0.45, 0.25, 0.15, 0.15]),
        "camera_bend": d.uniform(0.3, 1.0),
        "shake": d.uniform(0.2, 2.0)[:, None] * d.uniform(0.4, 1.0, 6) * (d.uniform(0, 1) < 0.25)[:, None],
        "shake_rate": d.uniform(1.5, 6.0, 6),
        "shake_phase": d.uniform(0, 2 * math.pi, 6),
        "layer": natural[torch.randint(len(natural), (count,), generator=d.generator)],
        "layered": photo & (d.uniform(0, 1) < 0.3),
        "layer_depth": d.uniform(1.25, 2.2),
        "mask": torch.randint(MASKS, (count,), generator=d.generator),
        "blurred": d.uniform(0, 1) < torch.where(photo, 0.35, 0.1),
        "grain": d.uniform(0.0, 0.035) * (photo & (d.uniform(0, 1) < 0.6)),
        "pressed": d.uniform(0.5, 3.0) * (photo & (d.uniform(0, 1) < 0.35)),
        "objects": objects,
        "thing": thing,
        "tint": d.choose([1.0] * len(things.COLOURS), 2),
        "cut": cut,
        "cut_from": natural[torch.randint(len(natural), (count, 2), generator=d.generator)],
        "size": torch.where(two[:, None], sizes.clamp(max=1), sizes),
        "place": place,
        "follow": follow,
        "tilt": d.uniform(-0.25, 0.25, 2),
        "shadow": d.uniform(0.0, 0.5),
        "motion": motion,
        "move": line_way * torch.where(is_motion("line") | is_motion("return"), line, 0.0)[..., None],
        "orbit": d.uniform(15, 34, 2) * torch.where(two, 0.6, 1.0)[:, None] * is_motion("orbit"),
        "orbit_turns": d.sign(2) * d.uniform(0.5, 1.2, 2),
        "orbit_start": d.uniform(0, 2 * math.pi, 2),
        "bounce": d.uniform(22, 55, 2) * torch.where(two, 0.6, 1.0)[:, None] * is_motion("bounce"),
        "bounce_count": d.choose([0.5, 0.5], 2) + 1.0,
        "wander": wandering(d, 2),
        "zoom": d.sign(2) * d.uniform(0.4, 1.2, 2) * is_motion("zoom"),
        "spin": d.sign(2) * d.uniform(1.0, 4.5, 2) * is_motion("spin"),
        "ease": d.choose([0.45, 0.25, 0.15, 0.15], 2),
        "bend": d.uniform(0.3, 1.0, 2),
    }


def wandering(d, number):
    """A random smooth path for each of `number` things: reach, rate and phase of a wave on x and on y."""
    return torch.stack([d.uniform(10, 36, number, 2), d.uniform(0.35, 1.1, number, 2), d.uniform(0, 2 * math.pi, number, 2)], dim=-1)


def wandered(path, e):
    """The place on a path of `wandering` at progress `e`."""
    reach, rate, phase = (path[:, None, :, k] for k in range(3))
    angle = lambda at: 2 * math.pi * rate * at + phase
    return reach * (angle(e[..., None]).sin() - angle(torch.full_like(e, 0.5)[..., None]).sin())


def along(move, returning, e):
    """Where something on a straight way is at progress `e`; it may go there and back."""
    there = torch.where(returning[:, None], (math.pi * e).sin() - 0.5, e - 0.5)
    return move[:, None] * there[..., None]


def camera_pose(s, time):
    """Angle, scale and centre of the camera, `[scenes, times]` each (the centre has two)."""
    e = eased(time, s["camera_ease"][:, None], s["camera_bend"][:, None])
    centre = along(s["camera_move"], s["camera"] == CAMERAS.index("return"), e)
    wander = (s["camera"] == CAMERAS.index("wander"))[:, None, None]
    centre = torch.where(wander, wandered(s["camera_wander"], e), centre)
    shake = s["shake"][:, None] * (2 * math.pi * s["shake_rate"][:, None] * time[..., None] + s["shake_phase"][:, None]).sin()
    centre = centre + shake.unflatten(-1, (2, 3)).sum(-1)
    return s["camera_roll"][:, None] * (e - 0.5), torch.exp(s["camera_zoom"][:, None] * (e - 0.5)), centre


def object_pose(s, i, time, centre):
    """Place, scale and angle of object `i` in the world, `[scenes, times]` each (the place has two)."""
    e = eased(time, s["ease"][:, i, None], s["bend"][:, i, None])
    place = along(s["move"][:, i], s["motion"][:, i] == MOTIONS.index("return"), e)
    turn = s["orbit_start"][:, i, None] + 2 * math.pi * s["orbit_turns"][:, i, None] * e
    hop = (math.pi * s["bounce_count"][:, i, None] * e).sin().abs() - 0.5
    x = s["orbit"][:, i, None] * turn.cos()
    y = s["orbit"][:, i, None] * turn.sin() - s["bounce"][:, i, None] * hop
    wander = wandered(s["wander"][:, i], e) * (s["motion"][:, i] == MOTIONS.index("wander"))[:, None, None]
    place = s["place"][:, i, None] + place + wander + torch.stack([x, y], dim=-1) + centre * s["follow"][:, None, None]
    angle = s["tilt"][:, i, None] + s["spin"][:, i, None] * (e - 0.5)
    return place, torch.exp(s["zoom"][:, i, None] * (e - 0.5)), angle


def look(pictures, x, y, padding):
    """Samples a picture `[scenes, channels, height, width]` at pixels from its centre, `[scenes, times, SIZE, SIZE]`:
    `[scenes, times, channels, SIZE, SIZE]`."""
    half = (pictures.shape[-1] - 1) / 2
    grid = torch.stack([x / half, y / half], dim=-1).flatten(1, 2)
    made = F.grid_sample(pictures, grid.to(pictures.dtype), mode="bilinear", padding_mode=padding, align_corners=True)
    return made.unflatten(2, (x.shape[1], SIZE)).transpose(1, 2)


def seen_from(angle, scale, centre):
    """World coordinates of every pixel."""
    x, y = world.pixel_grid(angle.device)
    cos, sin = wide(angle.cos() / scale), wide(angle.sin() / scale)
    return x * cos - y * sin + wide(centre[..., 0]), x * sin + y * cos + wide(centre[..., 1])


def background(studio, s, time):
    """The background alone, with the nearer layer where there is one."""
    angle, scale, centre = camera_pose(s, time)
    turn = angle + s["turn"][:, None]
    picture = lambda key: studio.backgrounds[s[key]].float() / 255
    made = look(picture("background"), *seen_from(turn, scale, centre + s["offset"][:, None]), "reflection")
    if s["layered"].any():
        near = seen_from(turn, scale, centre * s["layer_depth"][:, None, None] + s["offset"][:, None])
        cover = look(studio.masks[s["mask"]], *near, "reflection") * wide(s["layered"])[:, :, None]
        made = made + cover * (look(picture("layer"), *near, "reflection") - made)
    return made


def local(s, i, time, shift=0.0):
    """Coordinates of every pixel in object `i`'s own picture, in its pixels; radius in pixels of the world."""
    angle, scale, centre = camera_pose(s, time)
    place, size, turn = object_pose(s, i, time, centre)
    radius = torch.tensor(list(RADIUS.values()), device=time.device)[s["size"][:, i]][:, None] * size
    x, y = seen_from(angle, scale, centre)
    dx, dy = x - wide(place[..., 0]) - shift, y - wide(place[..., 1]) - shift
    grow = SPRITE / 2.2 / radius
    cos, sin = wide(turn.cos() * grow), wide(turn.sin() * grow)
    return dx * cos + dy * sin, dy * cos - dx * sin


def cover(studio, s, i, time):
    """How much of each pixel object `i` covers, `[scenes, times, 1, SIZE, SIZE]`."""
    made = look(studio.sprites[s["thing"][:, i], 3:], *local(s, i, time), "zeros")
    return made * wide(s["objects"] > i)[:, :, None]


def still_picture(studio, s, time):
    """Pictures in 0..1 without what a lens and a recording add."""
    made = background(studio, s, time)
    tints = torch.tensor(list(things.COLOURS.values()), device=time.device)
    for i in (1, 0):
        if not (s["objects"] > i).any():
            continue
        u, v = local(s, i, time)
        there = wide(s["objects"] > i)[:, :, None]
        dark = look(F.avg_pool2d(studio.sprites[s["thing"][:, i], 3:], 13, 1, 6), *local(s, i, time, 3.0), "zeros")
        made = made * (1 - dark * there * wide(s["shadow"])[:, :, None])
        sprite = look(studio.sprites[s["thing"][:, i]], u, v, "zeros") * there
        tint = torch.where((s["thing"][:, i] < len(world.SHAPES))[:, None], tints[s["tint"][:, i]], 1.0)
        colour = sprite[:, :, :3] * tint[:, None, :, None, None]
        colour = colour * (0.96 - 0.10 * (u + v) / (SPRITE / 2)).clamp(0.78, 1.08)[:, :, None]
        if s["cut"][:, i].any():
            other = look(studio.backgrounds[s["cut_from"][:, i]].float() / 255, u, v, "reflection") * sprite[:, :, 3:]
            colour = torch.where(wide(s["cut"][:, i])[:, :, None], other, colour)
        made = made * (1 - sprite[:, :, 3:]) + colour
    return made.clamp(0, 1)


def render(studio, s, time, noise=None):
    """Pictures in -1..1, `[scenes, times, 3, SIZE, SIZE]`, at `time` `[scenes, times]`. Scenes with motion blur are an
    exposure of half a frame; grain comes from the generator `noise`."""
    made = still_picture(studio, s, time)
    if s["blurred"].any():
        part = take(s, s["blurred"])
        step = 0.5 / (FRAMES - 1) / 3
        moments = [still_picture(studio, part, time[s["blurred"]] + k * step) for k in (-1, 1)]
        made[s["blurred"]] = (made[s["blurred"]] + sum(moments)) / 3
    grain = torch.randn(made[:, :, :1].shape, device=made.device, generator=noise)
    made = made + grain * wide(s["grain"])[:, :, None]
    if (s["pressed"] > 0).any():
        part = s["pressed"] > 0
        made[part] = pressed(made[part], s["pressed"][part])
    return made.clamp(0, 1) * 2 - 1


def pressed(pictures, strength):
    """Rounds the cosine transform of 8 × 8 blocks as JPEG does, the finer the detail the coarser."""
    k = torch.arange(8, device=pictures.device)
    basis = torch.cos(math.pi * (k[None, :] + 0.5) * k[:, None] / 8) * torch.where(k == 0, 0.5**0.5, 1.0)[:, None] / 2
    blocks = pictures.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8))  # … rows, 8, columns, 8
    spectrum = torch.einsum("ai,...ricj,bj->...racb", basis, blocks, basis)
    step = (8 + 5 * (k[:, None] + k[None, :])).float() / 255 * strength[:, None, None]
    step = step[:, None, None, None, :, None, :]
    blocks = torch.einsum("ai,...racb,bj->...ricj", basis, (spectrum / step).round() * step, basis)
    return blocks.flatten(-4, -3).flatten(-2, -1)


def edges(cover, width):
    """Strokes along the edge of a cover `[scenes, times, 1, SIZE, SIZE]`, about `width` pixels wide."""
    flat = cover.flatten(0, 1)
    grown = F.max_pool2d(flat, 3, 1, 1) + F.max_pool2d(-flat, 3, 1, 1)
    return (F.avg_pool2d(grown, 3, 1, 1).view_as(cover) * width).clamp(0, 1)


def outline(studio, s, time, stroke=2.0):
    """Sketches of the objects, white strokes on black: 0..1, `[scenes, times, 3, SIZE, SIZE]`."""
    first, second = (edges(cover(studio, s, i, time), stroke) for i in (0, 1))
    return torch.maximum(first, second).expand(-1, -1, 3, -1, -1)


def silhouettes(studio, s, time):
    """The objects filled with light on a dark ground: pictures in -1..1, as `render` gives them."""
    filled = torch.maximum(cover(studio, s, 0, time), cover(studio, s, 1, time))
    return (filled * 1.2 - 0.6).expand(-1, -1, 3, -1, -1)


def captions(studio, scenes, count, seed):
    """`count` captions for each scene: lists of strings."""
    pick = random.Random(seed)
    columns = {k: scenes[k].tolist() for k in ("background", "objects", "thing", "tint", "size", "cut")}
    return [[caption(pick, studio.labels, columns, n) for _ in range(count)] for n in range(len(columns["objects"]))]


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def caption(pick, labels, columns, n):
    """A caption as people write them; an object cut out of a photograph is a thing."""
    names = []
    for i in range(columns["objects"][n]):
        thing = columns["thing"][n][i]
        name = OBJECTS[thing]
        if columns["cut"][n][i]:
            name = "thing"
        elif thing < len(world.SHAPES):
            name = f"{list(things.COLOURS)[columns['tint'][n][i]]} {name}"
        if pick.random() < 0.3:
            name = f"{list(RADIUS)[columns['size'][n][i]]} {name}"
        names.append(name)
    pick.shuffle(names)
    kind, label = labels[columns["background"][n]]
    articles = pick.random() < 0.75
    named = [article(name) if articles else name for name in names]
    object_ = pick.choice([" and ", " and ", ", "]).join(named)
    where, there = setting(pick, kind, label)
    if not names:
        return pick.choice([there, where, f"an empty {there}"])
    forms = [f"{object_} {where}", f"{object_} {where}", f"{object_}, {there}", f"{there}, {object_}", f"{there} with {object_}"]
    text = pick.choice(forms)
    return pick.choice(["a picture of ", "a video of ", "the "]) + text if pick.random() < 0.12 and text == forms[0] and articles else text


def setting(pick, kind, label):
    """Where a scene takes place: as an adverbial, and as a noun."""
    if kind == "place":
        name, night = label
        late = " at night" if night else ""
        return pick.choice(things.PLACES[name]) + late, name + late
    if kind == "colour":
        colour, texture = label
        words = pick.choice([f"{texture} {colour}", f"{colour} {texture}", f"{texture} {colour}"]) if texture else pick.choice([colour, colour, f"plain {colour}"])
        noun = words + " " + pick.choice(["background", "background", "wall"])
        return pick.choice([f"on {article(noun)}", f"over {article(noun)}", f"in front of {article(noun)}", f"on {words}"]), noun
    noun = "photo" if kind == "photo" else "abstract picture"
    return pick.choice([f"on {article(noun)}", f"over {article(noun)}", f"in front of {article(noun)}"]), noun


def words():
    """Every word of the captions, in a fixed order."""
    fixed = "a an the and on over in front of with at plain background wall photo abstract picture video empty thing"
    names = [*OBJECTS, *things.COLOURS, *world.TINTS, *world.TEXTURES, *RADIUS, *things.PLACES, fixed, "night"]
    names += [w for ways in things.PLACES.values() for w in ways]
    return sorted(set(" ".join(names).split()))
