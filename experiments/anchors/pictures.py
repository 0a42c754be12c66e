"""Lossless codecs on the held-out pictures, in bits per pixel: each picture alone, and all on one sheet.

A picture file has eight bits per pixel, but our pictures have 17 levels. So each codec gets them in several forms, and
the best one counts: the levels themselves, a palette, or planes of single bits.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from experiments.anchors.codecs import (
    FAMILIES,
    Best,
    Codec,
    Writing,
    best_after,
    best_of,
    best_with_dictionary,
    settings,
)
from experiments.anchors.per_unit import of_signals
from omnijax.sweep.anchors import Anchor

LEVELS = 17
"""Number of grey levels of a pixel."""
PLANES = 5
"""Bits per level."""
_LONGEST_SIDE = 16_383  # the longest side of a WebP picture
_DEFLATE = {0: "default", 1: "filtered", 2: "Huffman only", 3: "runs", 4: "fixed codes"}
ALONE, SHEET, STREAM, AFTER = "each alone", "one sheet", "one stream", "after the training split"


def anchors(train: UInt8[np.ndarray, "m 8 8"], heldout: UInt8[np.ndarray, "n 8 8"]) -> Iterator[Anchor]:
    """Picture codecs and general compressors on the held-out pictures, the latter also after the training pictures.

    Raises:
        PlatformError: a codec isn't lossless.
    """
    for codecs in (list(png()), list(webp())):
        family = codecs[0].family
        note = "one whole file a picture, whose head outweighs so small a picture"
        yield _anchor(family, ALONE, best_of(codecs, list(heldout)), heldout, note)
        best, sheet = min(
            ((best_of(codecs, [sheet]), name) for name, sheet in sheets(heldout).items()),
            key=lambda pair: int(pair[0].bits.sum()),
        )
        yield _anchor(family, SHEET, best, heldout, f"all pictures {sheet}, in one file")
    singles = [heldout[k : k + 1] for k in range(len(heldout))]
    for name in FAMILIES:
        yield _anchor(name, ALONE, best_of(settings(name), singles, WRITINGS), heldout, "a bare stream each")
        yield _anchor(name, STREAM, best_of(settings(name), [heldout], WRITINGS), heldout, "all pictures in one")
        best = best_after(settings(name), train, heldout, WRITINGS, most_bytes=2**22)
        yield _anchor(name, f"{STREAM}, {AFTER}", best, heldout, "the training pictures are known to both sides")
    trained = best_with_dictionary([one.tobytes() for one in train], [one.tobytes() for one in heldout])
    if trained is not None:
        note = "the dictionary is known to both sides"
        yield _anchor("zstd", f"{ALONE}, dictionary trained on the training split", trained, heldout, note)


def _anchor(family: str, how: str, best: Best, heldout: np.ndarray, note: str) -> Anchor:
    told = f"{note}; best of several: {best.told}"
    pixels = heldout[0].size
    if len(best.bits) > 1:
        units = np.full(len(heldout), pixels)
        return of_signals(f"{family}, {how}", "image", "bits per pixel", best.bits, units, told)
    value = float(best.bits.sum()) / (len(heldout) * pixels)
    return Anchor(f"{family}, {how}", "image", "bits per pixel", value, None, told)


def sheets(pictures: UInt8[np.ndarray, "n h w"]) -> dict[str, np.ndarray]:
    """All pictures on one sheet: in rows of a square, and below each other if the sheet isn't too high."""
    count, height, width = pictures.shape
    columns = math.ceil(math.sqrt(count))
    grid = np.zeros((columns * columns, height, width), pictures.dtype)
    grid[:count] = pictures
    square = grid.reshape(columns, columns, height, width).swapaxes(1, 2).reshape(columns * height, columns * width)
    square = square[: -(-count // columns) * height]
    found = {"in rows of a square": square}
    if count * height <= _LONGEST_SIDE:
        found["below each other"] = pictures.reshape(count * height, width)
    return found


def packed(levels: np.ndarray) -> np.ndarray:
    """Bits of levels, uint8 [size, 5], the most significant first."""
    return np.unpackbits(levels.reshape(-1, 1), axis=1)[:, 8 - PLANES :]


def unpacked(bits: np.ndarray) -> np.ndarray:
    """Levels of bits, uint8 [size]: the inverse of `packed`."""
    return np.packbits(np.pad(bits, ((0, 0), (8 - PLANES, 0))), axis=1).ravel()


def _write_packed(pictures: np.ndarray) -> bytes:
    return np.packbits(packed(pictures).ravel()).tobytes()


def _read_packed(data: bytes, like: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(data, np.uint8))[: like.size * PLANES]
    return unpacked(bits.reshape(-1, PLANES)).reshape(like.shape)


def _by_place(data: bytes, like: np.ndarray) -> np.ndarray:
    return np.frombuffer(data, np.uint8).reshape(*like.shape[1:], like.shape[0]).transpose(2, 0, 1)


WRITINGS = (
    Writing(
        "one byte a level", np.ndarray.tobytes, lambda data, like: np.frombuffer(data, np.uint8).reshape(like.shape)
    ),
    Writing(f"{PLANES} bits a level", _write_packed, _read_packed),
    Writing("pixel by pixel over all pictures", lambda one: one.transpose(1, 2, 0).tobytes(), _by_place),
)
"""Ways to write pictures, uint8 [n, h, w], as bytes."""


def png() -> Iterator[Codec]:
    """PNG with every way of deflating that the library has, for levels, a palette and planes of bits."""
    for strategy, told in _DEFLATE.items():
        for name in ("levels as they are", "palette"):
            yield Codec("PNG", f"{name}, {told}", _png_writer(strategy, name == "palette"), _read)
        yield Codec("PNG", f"planes of bits, {told}", _png_planes_writer(strategy), _read_planes)


def webp() -> Iterator[Codec]:
    """Lossless WebP, for levels as greys and in one colour only."""
    for told, channels in (("levels as greys", (0, 1, 2)), ("levels in green alone", (1,))):

        def encode(picture: np.ndarray, channels: tuple[int, ...] = channels) -> bytes:
            colours = np.zeros((*picture.shape, 3), np.uint8)
            colours[..., list(channels)] = picture[..., None]
            return _saved(PIL.Image.fromarray(colours), "WEBP", lossless=True, quality=100, method=6, exact=True)

        yield Codec("WebP", told, encode, lambda data: np.asarray(_opened(data).convert("RGB"))[..., 1])


def _png_writer(strategy: int, palette: bool) -> Callable[[np.ndarray], bytes]:
    def encode(picture: np.ndarray) -> bytes:
        image = PIL.Image.fromarray(picture)
        if palette:
            image.putpalette(np.repeat(np.arange(LEVELS, dtype=np.uint8), 3).tobytes())
        return _saved(image, "PNG", optimize=False, compress_level=9, compress_type=strategy)

    return encode


def _png_planes_writer(strategy: int) -> Callable[[np.ndarray], bytes]:
    def encode(picture: np.ndarray) -> bytes:
        planes = packed(picture).T.reshape(PLANES * picture.shape[0], picture.shape[1])
        return _saved(PIL.Image.fromarray(planes.astype(bool)), "PNG", compress_level=9, compress_type=strategy)

    return encode


def _saved(image: PIL.Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _opened(data: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(data))


def _read(data: bytes) -> np.ndarray:
    return np.asarray(_opened(data))


def _read_planes(data: bytes) -> np.ndarray:
    planes = np.asarray(_opened(data)).astype(np.uint8)
    return unpacked(planes.reshape(PLANES, -1).T).reshape(-1, planes.shape[1])
