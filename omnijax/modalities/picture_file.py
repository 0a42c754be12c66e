"""Reads picture files as they look. The table `READ_AS` says how each of Pillow's modes is read."""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
from etils import epy
from jaxtyping import Float32, UInt8

from omnijax.errors import DataError

with epy.lazy_imports():  # an extra
    from PIL import Image, ImageOps

READ_AS = {
    **dict.fromkeys(("1", "L"), "L"),
    **dict.fromkeys(("LA", "La"), "LA"),
    **dict.fromkeys(("RGB", "RGBX", "P", "CMYK", "YCbCr", "HSV"), "RGB"),
    **dict.fromkeys(("RGBA", "RGBa", "PA"), "RGBA"),
    **{mode: mode for mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")},
}
"""The mode that each mode of Pillow is converted to. Other modes are refused."""
FULL_SCALE = {"L": 255, "LA": 255, "RGB": 255, "RGBA": 255, "F": 1}
"""Value of full brightness, by mode. Other modes have 16 bits, even where Pillow stores them in 32."""
_EXACT = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
MOST_PIXELS = 2**26
_BITS, _INTERPRETATION, _FORMAT, _ORIENTATION = 258, 262, 339, 274
"""Tags of TIFF and EXIF: bits per sample, whether 0 is white, whether samples are signed, how it was turned."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in the luma (ITU-R BT.601), as Pillow has them."""
_RAISED = (OSError, RuntimeError, ValueError, TypeError, AttributeError, SyntaxError, LookupError, EOFError)
"""Exceptions of Pillow for damaged files. It also raises its own, and those of zlib and struct."""


def read_picture(
    name: str, stream: BinaryIO, channels: int, levels: int, background: float, size: Callable[[int, int], tuple]
) -> Float32[np.ndarray, "height width channels"]:
    """The picture in a file, with values from 0 to 1.

    Its EXIF orientation is applied. With 1 or 3 channels, transparent parts show the `background`; with 2 or 4 channels
    the last one is the opacity. Colour becomes grey by its luma. Channels are resized by the mean over a pixel's area.

    Args:
        name: name of the modality, for errors.
        stream: the file.
        channels: 1 for grey, 2 for grey and opacity, 3 for RGB, 4 for RGB and opacity.
        levels: number of levels that the caller rounds the values to.
        background: brightness behind transparent parts, from 0 for black to 1 for white.
        size: computes width and height of the result, in pixels, from those of the picture.

    Raises:
        DataError: the file can't be read, has several pictures, a mode that isn't in `READ_AS`, more than 2^26 pixels,
            values out of range, or more bits than Pillow reads, where `levels` needs them.
    """
    with _errors(name, stream):
        with Image.open(stream) as picture:
            picture.verify()  # the checksums of a PNG file
        stream.seek(0)
        with Image.open(stream) as picture:
            _check(name, picture, levels)
            return _layers(name, ImageOps.exif_transpose(picture), channels, background, size)


def read_pixels(name: str, stream: BinaryIO, channels: int) -> UInt8[np.ndarray, "height width channels"]:
    """The stored pixels of a file, 8 bits for each of 1 to 4 channels; nothing is converted, turned or made visible.

    Raises a `DataError` as `read_picture`, and for pixels of another form.
    """
    with _errors(name, stream):
        with Image.open(stream) as picture:
            picture.verify()
        stream.seek(0)
        with Image.open(stream) as picture:
            _check(name, picture, 2)
            reduced = any(";" in str(tile) for tile in getattr(picture, "tile", ()))
            turned = picture.getexif().get(_ORIENTATION, 1) != 1
            hidden = picture.has_transparency_data and picture.mode not in ("LA", "RGBA")
            if picture.mode != _EXACT.get(channels) or reduced or turned or hidden:
                kind = f"mode {picture.mode}{', not 8 bits' * reduced}{', turned' * turned}{', transparent' * hidden}"
                rule = f"a file must have {channels} channels of 8 bits, upright, so that nothing is changed"
                raise DataError(name, kind, rule, "convert it, for example to a PNG file without EXIF data")
            return np.asarray(picture).reshape(picture.height, picture.width, channels)


def probe_picture(name: str, stream: BinaryIO) -> dict[str, int | float]:
    """Width and height in pixels as it is shown, channels (2 and 4 with opacity), and whether parts may be transparent.

    Raises a `DataError` if it is no picture, or one that `read_picture` refuses by its header.
    """
    with _errors(name, stream), Image.open(stream) as picture:
        _check(name, picture, 2)
        mode, transparent = READ_AS[picture.mode], bool(picture.has_transparency_data)
        turned = picture.getexif().get(_ORIENTATION, 1) >= 5
        width, height = (picture.height, picture.width) if turned else picture.size
        channels = {"LA": 2, "RGB": 3, "RGBA": 4}.get(mode, 1) + (transparent and mode == "RGB")
        return {"width": width, "height": height, "channels": channels, "transparent": int(transparent)}


@contextlib.contextmanager
def _errors(name: str, stream: BinaryIO) -> Iterator[None]:
    """Turns what Pillow raises into a `DataError`, and drops its warnings, for example about unknown tags."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (*_RAISED, zlib.error, struct.error, Image.DecompressionBombError) as error:
        why = str(error).replace(repr(stream), "the file").replace("image file the file", "it as a picture")
        raise DataError(name, "file", f"it can't be read ({why})", "give a picture, for example a PNG file") from error


def _check(name: str, picture: Image.Image, levels: int) -> None:
    """Raises a `DataError` for a picture that can't be read as it looks. Its pixels aren't decoded yet."""
    if picture.width * picture.height > MOST_PIXELS:
        size = f"{picture.width} × {picture.height} pixels"
        raise DataError(name, size, f"a picture has at most {MOST_PIXELS:,} pixels", "make it smaller")
    if picture.mode not in READ_AS:
        raise DataError(name, f"mode {picture.mode}", f"the mode must be one of {', '.join(READ_AS)}", "save it as RGB")
    tags = getattr(picture, "tag_v2", {})  # of a TIFF file
    bits, signed = set(tags.get(_BITS, ())), 2 in tags.get(_FORMAT, ()) and 32 not in tags.get(_BITS, ())
    inverted = tags.get(_INTERPRETATION) == 0 and picture.mode not in ("1", "L")
    if signed or inverted or not bits <= {1, 2, 4, 8, 16, 32}:
        kind = f"TIFF with {max(bits)} bits{', signed' * signed}{', 0 is white' * inverted}"
        raise DataError(name, kind, "Pillow reads its levels wrongly", "save it with 8 or 16 bits, and 0 as black")
    deep = [tile for tile in map(str, getattr(picture, "tile", ())) if ";" in tile]
    if "transparency" in picture.info and picture.mode != "P" and deep:
        rule = "Pillow doesn't read the transparent level of a picture of other than 8 bits"
        raise DataError(name, f"mode {picture.mode}", rule, "save the transparency as a channel")
    if getattr(picture, "is_animated", False) and picture.format != "MPO":  # MPO: a photo and its preview
        count = f"{getattr(picture, 'n_frames', 'several')} pictures"
        raise DataError(name, count, "the file must hold one picture", "save one of them in a file of its own")
    reduced = picture.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile) for tile in getattr(picture, "tile", ()))
    if levels > 256 and reduced:
        fix = "give arrays from Python, or a picture in grey"
        raise DataError(name, f"16 bits, mode {picture.mode}", "Pillow reads colour with 8 bits a channel", fix)


def _layers(
    name: str, picture: Image.Image, channels: int, background: float, size: Callable[[int, int], tuple]
) -> Float32[np.ndarray, "height width channels"]:
    mode = READ_AS[picture.mode]
    if picture.has_transparency_data and mode != "LA":
        mode = "RGBA"  # also where a palette or one colour says what is transparent
    values = np.asarray(picture if mode == picture.mode else picture.convert(mode)).astype(np.float32)
    values = values.reshape(picture.height, picture.width, -1) / np.float32(FULL_SCALE.get(mode, 65535))
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        top = FULL_SCALE.get(mode, 65535)
        found = f"mode {mode}, values {values.min() * top:g} … {values.max() * top:g}"
        raise DataError(name, found, f"values must be finite numbers in 0 … {top}", "scale the picture")
    opaque = np.ones((picture.height, picture.width, 1), np.float32)
    colour, opacity = (values[..., :-1], values[..., -1:]) if mode in ("LA", "RGBA") else (values, opaque)
    if channels <= 2 and colour.shape[2] == 3:
        colour = (colour @ _LUMA)[..., None]
    elif channels > 2 and colour.shape[2] == 1:
        colour = np.repeat(colour, 3, axis=2)
    with_opacity = channels in (2, 4)
    seen = np.concatenate([colour, opacity], 2) if with_opacity else colour * opacity + background * (1 - opacity)
    fitting = size(picture.width, picture.height)
    bands = (Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(seen.astype(np.float32), 2, 0))
    return np.stack([np.asarray(band.resize(fitting, Image.Resampling.BOX)) for band in bands], axis=-1)
