"""Fetches the pictures that the model is trained on: `python sources.py --out DIR/pictures.npz`.

Photographs and emoji come out of published packages, each of a fixed version whose hash is checked; SOURCES names them
with their licences. None of them is in the repository. What is needed of them is kept as one file of a few megabytes,
which can be carried to a machine that has no network.
"""

import argparse
import base64
import hashlib
import io
import pathlib
import re
import subprocess
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass

import cv2
import numpy as np

LARGEST = 900  # pixels of a kept photograph's longer side
EMOJI = 96  # pixels of a kept emoji


@dataclass(frozen=True)
class Source:
    """A published package: how to fetch it, its hash, and the files that are taken."""

    command: tuple  # of the package manager, run in an empty folder, where it leaves one file
    digest: str  # SHA-256 of that file
    licence: str
    files: str  # pattern of the names that are taken


SOURCES = {
    "wallpapers": Source(
        ("apt-get", "download", "lomiri-wallpapers-16.04=20.04.0-2"),
        "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
        "CC BY 4.0 (Aitzol Berasategi, Trevor Freespace, Abhishek Mudgal, Jakub Mede), CC0 (Clemens Engelhardt)",
        r"/(aitzgorri|friends|life|picosdeeuropa|sunset|Picture_|seeding|umang|Wine)\w*\.jpg$",
    ),
    "panoramas": Source(
        ("npm", "pack", "--silent", "@pmndrs/assets@1.7.0"),
        "152bd218a3390703f184f0c6ce16e73c8f0a87f32d38530d418a09d33d8208dc",
        "CC0 (photographs of Poly Haven)",
        r"/hdri/\w+\.exr\.js$",
    ),
    "lights": Source(
        ("apt-get", "download", "blender-data=3.4.1+dfsg-2"),
        "5ceaf56a49ba3ded95c751d739aeec3d19e7fad76fba5cb70666986af9303b0e",
        "CC0 (Greg Zaal, HDRI Haven)",
        r"/studiolights/world/\w+\.exr$",
    ),
    "textures": Source(
        ("pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--platform", "manylinux_2_28_x86_64",
         "--python-version", "3.11", "scikit-image==0.26.0"),
        "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
        "CC0 and public domain",
        r"skimage/data/(brick|grass|gravel|hubble_deep_field)\.(png|jpg)$",
    ),
    "samples": Source(
        ("pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--platform", "manylinux_2_28_x86_64",
         "--python-version", "3.11", "scikit-learn==1.9.1"),
        "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
        "CC BY 2.0 (china.jpg: danielbuechele; flower.jpg: vultilion)",
        r"sklearn/datasets/images/\w+\.jpg$",
    ),
    # These two are for the evaluation alone (`../evaluate/draw_footage.py`): training never sees them.
    "kept": Source(
        ("pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--platform", "manylinux_2_28_x86_64",
         "--python-version", "3.11", "scikit-image==0.26.0"),
        "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
        "public domain (astronaut: NASA), CC0 (chelsea: Stefan van der Walt; coffee: Rachel Michetti; rocket: SpaceX)",
        r"skimage/data/(astronaut|chelsea|coffee|rocket)\.(png|jpg)$",
    ),
    "raccoon": Source(
        ("pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--platform", "manylinux_2_17_x86_64",
         "--python-version", "3.11", "scipy==1.9.3"),
        "abaf921531b5aeaafced90157db505e10345e45038c39e5d9b6c7922d68085cb",
        "public domain (raccoon: Judy Weggelaar)",
        r"scipy/misc/face\.dat$",
    ),
    "emoji": Source(
        ("apt-get", "download", "fonts-noto-color-emoji=2.042-0+deb12u1"),
        "a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751",
        "SIL Open Font License 1.1 (Google)",
        r"/NotoColorEmoji\.ttf$",
    ),
}


def fetch(name):
    """The wanted files of a package: pairs of name and bytes, in the order of their names."""
    source = SOURCES[name]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(source.command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (package,) = pathlib.Path(folder).iterdir()
        content = package.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != source.digest:
        raise SystemExit(f"{' '.join(source.command)}: SHA-256 {found}, expected {source.digest}")
    wanted = re.compile(source.files)
    files = {path: read() for path, read in members(content) if wanted.search(path)}
    if not files:
        raise SystemExit(f"{' '.join(source.command)}: no file {source.files}")
    return sorted(files.items())


def members(package):
    """Every file of a wheel, an npm package or a Debian package: its name, and a function that reads it."""
    if package.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(package)) as archive:
            for name in archive.namelist():
                yield name, lambda name=name: archive.read(name)
        return
    if package.startswith(b"!<arch>\n"):
        package = debian_data(package)
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        for member in archive:
            if member.isfile():
                yield member.name, lambda member=member: archive.extractfile(member).read()


def debian_data(package):
    """The archive of installed files inside a Debian package (an `ar` archive)."""
    at = 8
    while at < len(package):
        name, size = package[at : at + 16].decode().strip(" /"), int(package[at + 48 : at + 58])
        if name.startswith("data.tar"):
            return package[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise SystemExit("a Debian package without data")


def photographs():
    """All photographs, 8-bit RGB."""
    for name in ("wallpapers", "panoramas", "lights", "textures", "samples"):
        for path, content in fetch(name):
            if path.endswith(".js"):
                content = base64.b64decode(re.search(r"base64,([^\"'`]+)", content.decode())[1])
            picture = exposed(content) if ".exr" in path else cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
            factor = min(1.0, LARGEST / max(picture.shape))
            yield cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def exposed(content):
    """A panorama of light as a photograph: the middle of its brightness at a third, highlights rolled off."""
    import OpenEXR

    with tempfile.NamedTemporaryFile(suffix=".exr") as file:
        file.write(content)
        file.flush()
        light = np.nan_to_num(OpenEXR.File(file.name).channels()["RGB"].pixels[..., :3].astype(np.float32))
    light = light / np.median(light.mean(-1)) * 0.35
    light = light * (1 + light / 16) / (1 + light)
    return (np.clip(light, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


def emoji(names):
    """The emoji of these code points as 8-bit RGBA, each in the middle of a square."""
    from fontTools.ttLib import TTFont

    ((_, font),) = fetch("emoji")
    font = TTFont(io.BytesIO(font))
    cmap, strikes = font.getBestCmap(), font["CBDT"].strikeData[0]
    for code in names:
        picture = cv2.imdecode(np.frombuffer(strikes[cmap[code]].imageData, np.uint8), cv2.IMREAD_UNCHANGED)
        side = max(picture.shape[:2])
        square = np.zeros((side, side, 4), np.float32)
        y, x = (side - picture.shape[0]) // 2, (side - picture.shape[1]) // 2
        square[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
        square[..., :3] = square[..., 2::-1] * (square[..., 3:] / 255)  # averages must not take in hidden colours
        small = cv2.resize(square, (EMOJI, EMOJI), interpolation=cv2.INTER_AREA)
        small[..., :3] /= np.maximum(small[..., 3:] / 255, 1e-3)
        yield np.clip(small, 0, 255).round().astype(np.uint8)


def collect(path):
    """Fetches everything and writes it to `path`."""
    import things

    kept = {f"photo_{n:03}": encoded(".jpg", p, cv2.IMWRITE_JPEG_QUALITY, 92) for n, p in enumerate(photographs())}
    codes = list(things.EMOJI.values())
    kept |= {f"emoji_{n:03}": encoded(".png", p, cv2.IMWRITE_PNG_COMPRESSION, 9) for n, p in enumerate(emoji(codes))}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part.npz")
    np.savez(beside, **kept)
    beside.rename(path)


def encoded(kind, picture, setting, value):
    order = [2, 1, 0, 3][: picture.shape[2]]
    return cv2.imencode(kind, np.ascontiguousarray(picture[..., order]), [setting, value])[1]


def load(path):
    """Photographs `[height, width, 3]` of their own sizes, and emoji `[count, height, width, 4]`, 8-bit RGB(A)."""
    kept = np.load(path)
    read = lambda name, order: cv2.imdecode(kept[name], cv2.IMREAD_UNCHANGED)[..., order]
    photos = [read(name, [2, 1, 0]) for name in kept.files if name.startswith("photo_")]
    return photos, np.stack([read(name, [2, 1, 0, 3]) for name in kept.files if name.startswith("emoji_")])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    collect(parser.parse_args().out)
