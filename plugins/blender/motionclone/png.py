"""PNG files with text inside, written with the standard library: Blender's own writer takes no text from a script."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode(rgb, width, height, texts=None):
    """A PNG of 8-bit RGB samples without gaps, first row on top. `texts` are UTF-8 texts by their keyword (iTXt)."""
    row = width * 3
    if len(rgb) != row * height:
        raise ValueError(f"{width}x{height} pixels are {row * height} bytes, not {len(rgb)}")
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"sRGB", b"\0")]
    for keyword, text in (texts or {}).items():
        chunks.append((b"iTXt", keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode()))
    # A filter byte of 0 (none) before each row.
    rows = b"".join(b"\0" + rgb[y * row : (y + 1) * row] for y in range(height))
    chunks += [(b"IDAT", zlib.compress(rows, 6)), (b"IEND", b"")]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def texts(data):
    """The texts of a PNG that `encode` made."""
    found, at = {}, len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"iTXt":
            keyword, rest = data[at + 8 : at + 8 + length].split(b"\0", 1)
            found[keyword.decode("latin-1")] = rest[4:].decode()
        at += 12 + length
    return found
