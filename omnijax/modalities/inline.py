"""Files as a part of a page: PNGs and data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from etils import epy
from jaxtyping import UInt8

with epy.lazy_imports():  # an extra: pages are drawn with Matplotlib, which needs it, too
    import PIL.Image


def data_uri(mime: str, content: bytes) -> str:
    """`content` as a URI that needs no other file."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def png(pixels: UInt8[np.ndarray, "height width channels"]) -> bytes:
    """A PNG file of grey (1 channel), RGB (3) or RGBA (4) pixels."""
    PIL.Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[..., 0]).save(file := io.BytesIO(), "PNG")
    return file.getvalue()
