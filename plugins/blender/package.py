#!/usr/bin/env python3
"""Builds the extension's zip: the add-on, with the native library and a bundle inside."""

import argparse
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "motionclone"
REPOSITORY = HERE.parents[1]
# Blender's names for systems, and the names that the libraries have there.
LINUX = ("libmotionclone.so", "libonnxruntime.so", "libonnxruntime_providers_*.so")
PLATFORMS = {
    "linux-x64": LINUX,
    "linux-arm64": LINUX,
    "windows-x64": ("motionclone.dll", "onnxruntime.dll", "onnxruntime_providers_*.dll"),
    "macos-arm64": ("libmotionclone.dylib", "libonnxruntime.dylib", ""),
    "macos-x64": ("libmotionclone.dylib", "libonnxruntime.dylib", ""),
}
# The same files always give the same zip.
TIME = (2000, 1, 1, 0, 0, 0)


def contents(options):
    """Path in the zip -> the file, or its bytes."""
    library, runtime, providers = PLATFORMS[options.platform]
    files = {file.name: file for file in sorted(SOURCE.glob("*.py"))}
    manifest = (SOURCE / "blender_manifest.toml").read_text(encoding="utf-8")
    head, permissions = manifest.split("[permissions]")
    text = f'{head}platforms = ["{options.platform}"]\n\n[permissions]{permissions}'
    files["blender_manifest.toml"] = text.encode()
    for name in ("LICENSE-APACHE", "LICENSE-MIT"):
        files[name] = REPOSITORY / name
    native = [options.libraries / library, options.libraries / runtime]
    native += sorted(options.libraries.glob(providers)) if providers else []
    files.update({f"lib/{file.name}": file for file in native})
    for name, folder in (("bundle", options.bundle), ("licences", options.licences)):
        inside = sorted(file for file in folder.rglob("*") if file.is_file()) if folder else []
        if folder and not inside:
            sys.exit(f"error: {folder} has no files")
        files.update({f"{name}/{file.relative_to(folder).as_posix()}": file for file in inside})
    return files


def build(options):
    """Writes the zip, whole or not at all."""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = options.out.with_suffix(".unfinished")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in contents(options).items():
                entry = zipfile.ZipInfo(name, TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (0o755 if name.startswith("lib/") else 0o644) << 16
                archive.writestr(entry, data if isinstance(data, bytes) else data.read_bytes())
        unfinished.replace(options.out)
    except OSError as error:
        sys.exit(f"error: {error}")
    finally:
        unfinished.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libraries", type=Path, required=True, help="folder with libmotionclone and ONNX Runtime")
    parser.add_argument("--platform", choices=PLATFORMS, required=True, help="the system that they are for")
    parser.add_argument("--bundle", type=Path, help="the bundle that is used where none is chosen")
    parser.add_argument("--licences", type=Path, help="folder with the licences of what is linked in")
    parser.add_argument("--out", type=Path, required=True, help="the zip")
    build(parser.parse_args())


if __name__ == "__main__":
    main()
