#!/usr/bin/env python3
"""Builds the extension's zip with the native library inside.

    package.py LIBRARY_FOLDER OUT_FOLDER PLATFORM

LIBRARY_FOLDER is the folder `lib` of the tree that `cargo xtask dist` makes: its libmotionclone, ONNX Runtime and
providers go into the zip. PLATFORM is Blender's name for the system that they are for: linux-x64, windows-x64,
macos-arm64, macos-x64.
"""

import sys
import tomllib
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "motionclone"
REPOSITORY = HERE.parents[1]
PLATFORMS = {
    "linux-x64": ("libmotionclone.so", "libonnxruntime.so", "libonnxruntime_providers_*.so"),
    "windows-x64": ("motionclone.dll", "onnxruntime.dll", "onnxruntime_providers_*.dll"),
    "macos-arm64": ("libmotionclone.dylib", "libonnxruntime.dylib", ""),
    "macos-x64": ("libmotionclone.dylib", "libonnxruntime.dylib", ""),
}
# The same files always give the same zip.
TIME = (2000, 1, 1, 0, 0, 0)


def contents(libraries, platform):
    """Path in the zip -> bytes."""
    library, runtime, providers = PLATFORMS[platform]
    files = {file.name: file.read_bytes() for file in sorted(SOURCE.glob("*.py"))}
    manifest = (SOURCE / "blender_manifest.toml").read_text(encoding="utf-8")
    head, permissions = manifest.split("[permissions]")
    files["blender_manifest.toml"] = f'{head}platforms = ["{platform}"]\n\n[permissions]{permissions}'.encode()
    for name in ("LICENSE-APACHE", "LICENSE-MIT"):
        files[name] = (REPOSITORY / name).read_bytes()
    files["README.md"] = (HERE / "README.md").read_bytes()
    native = [libraries / library, libraries / runtime, *(sorted(libraries.glob(providers)) if providers else [])]
    for file in native:
        if not file.is_file():
            sys.exit(f"error: {file} is missing")
        files[f"lib/{file.name}"] = file.read_bytes()
    return files


def build(libraries, out, platform):
    """Writes the zip, whole or not at all; gives its path."""
    files = contents(libraries, platform)
    version = tomllib.loads(files["blender_manifest.toml"].decode())["version"]
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"motionclone-{version}-{platform}.zip"
    unfinished = path.with_suffix(".unfinished")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                entry = zipfile.ZipInfo(name, TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (0o755 if name.startswith("lib/") else 0o644) << 16
                archive.writestr(entry, data)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def main(arguments):
    if len(arguments) != 3 or arguments[2] not in PLATFORMS:
        sys.exit(__doc__)
    print(build(Path(arguments[0]), Path(arguments[1]), arguments[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
