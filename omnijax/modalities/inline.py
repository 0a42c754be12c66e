"""Files as a part of a page: PNGs without a library for pictures, and data URIs."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from jaxtyping import UInt8

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}


def data_uri(mime: str, content: bytes) -> str:
    """`content` as a URI that needs no other file."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def png(pixels: UInt8[np.ndarray, "height width channels"]) -> bytes:
    """A PNG file of grey (1 channel), RGB (3) or RGBA (4) pixels, after https://www.w3.org/TR/png-3."""
    height, width, channels = pixels.shape
    lines = np.pad(pixels.reshape(height, width * channels), ((0, 0), (1, 0)))  # each line begins with "no filter"
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
