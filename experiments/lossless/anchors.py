"""Measures codecs, each at its best setting, counting, and runs on the held-out pictures, sounds and texts.

    python experiments/lossless/anchors.py [--run RUN …] [--split test] [--out FILE.csv]

Prints a table, and writes it as CSV. Pictures are crops of 32×32 pixels, the squares of 64×64 that four crops make up,
or all of them on one canvas. "After training" is a stream behind a part of the training split that both sides know. In
a stream and in a run, a text has its end: a byte that no text has, or a token. A run takes as many bits as the payload
that `omnijax compress` writes.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import itertools
import math
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, get_args

import imagecodecs
import numpy as np
import PIL.Image
import rich.console
import soundfile

import omnijax
from omnijax.data.manifest import verify
from omnijax.errors import OmnijaxError
from omnijax.experiment import load_experiment
from omnijax.modalities import colours
from omnijax.modalities.colours import Colours
from omnijax.source import Source, read
from omnijax.sweep.anchors import Anchor, Measure

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))  # experiments/ isn't installed

from experiments.ablations.anchors import print_anchors
from experiments.anchors import write_anchors
from experiments.anchors.codecs import FAMILIES, Best, Codec, Writing, best_after, best_of, settings
from experiments.anchors.per_unit import of_signals
from experiments.lossless import counting

BYTES = (Writing("bytes", bytes, lambda data, like: data),)
MOST_BEFORE = 2**22
"""Bytes of training signals that a compressor knows."""
UNITS: dict[str, Measure] = {"picture": "bits per sub-pixel", "sound": "bits per sample", "text": "bits per byte"}


def measured(train: dict[str, list], heldout: dict[str, list]) -> Iterator[Anchor]:
    """All anchors of pictures uint8[h, w, 3], sounds uint8[samples] and texts (bytes), lists by field."""
    crops = heldout["picture"]
    squares = [np.block([[[one] for one in pair] for pair in ((a, b), (c, d))]) for a, b, c, d in _fours(crops)]
    for codecs in map(list, (png(), webp(), jpeg_ls(), jpeg_xl())):
        for told, some in (("crops of 32×32", crops), ("squares of 64×64", squares), ("one canvas", [canvas(squares)])):
            yield _anchor("picture", told, best_of(codecs, some), [one.size for one in crops])
    sounds = heldout["sound"]
    for told, some in (("each alone", sounds), ("one stream", [np.concatenate(sounds)])):
        yield _anchor("sound", told, best_of(flac(), some), [one.size for one in sounds])
    for field in ("sound", "text"):
        signals = [bytes(one) for one in heldout[field]]
        sizes = [len(one) for one in signals]
        end = counting.END if field == "text" else b""  # sounds are of one length
        stream, before = (b"".join(bytes(one) + end for one in some) for some in (heldout[field], train[field]))
        for family in FAMILIES:
            yield _anchor(field, "each alone", best_of(settings(family), signals, BYTES), sizes)
            yield _anchor(field, "one stream", best_of(settings(family), [stream], BYTES), sizes)
            after = best_after(settings(family), before, stream, BYTES, MOST_BEFORE)
            yield _anchor(field, f"one stream after {MOST_BEFORE >> 20} MiB of training", after, sizes)
    yield from counting.anchors(train, heldout, UNITS)


def of_run(path: pathlib.Path, heldout: dict[str, list]) -> Iterator[Anchor]:
    """The exact bits of a run, for each of its fields."""
    trained = omnijax.load(path)
    known = {task.names[0] for task in trained.config.batch.tasks if task.weights[0] > 0}
    for field in (name for name in UNITS if name in known):
        records = [{field: _told(field, signal)} for signal in heldout[field]]
        bits = [found[field].bits for found in trained.score_batch(records)]
        sizes = [len(one) if field == "text" else one.size for one in heldout[field]]
        note = f"after {trained.step} steps"
        yield of_signals(f"omnijax, {path.name}", field, UNITS[field], np.array(bits), np.array(sizes), note)


def _told(field: str, signal: Any) -> Any:
    """A signal as records have it."""
    if field == "sound":
        return signal[:, None]
    return signal.decode() if field == "text" else signal


def _anchor(field: str, told: str, best: Best, sizes: list[int]) -> Anchor:
    name, note = f"{best.codec.family}, {told}", f"best of several: {best.told}"
    if len(best.bits) == len(sizes):
        return of_signals(name, field, UNITS[field], best.bits, np.array(sizes), note)
    return Anchor(name, field, UNITS[field], float(best.bits.sum()) / sum(sizes), None, note)


def _fours(crops: list[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
    return itertools.batched(crops, 4) if sys.version_info >= (3, 12) else zip(*[iter(crops)] * 4, strict=True)


def canvas(squares: list[np.ndarray]) -> np.ndarray:
    """All squares in rows, uint8[height, width, 3]; black where the last row isn't full."""
    columns = math.ceil(math.sqrt(len(squares)))
    filled = squares + [np.zeros_like(squares[0])] * (-len(squares) % columns)
    return np.concatenate([np.concatenate(row, 1) for row in np.array(filled).reshape(-1, columns, *squares[0].shape)])


def png() -> Iterator[Codec]:
    """PNG with every way of deflating that the library has."""
    for strategy in range(5):
        yield _file("PNG", f"strategy {strategy}", "PNG", compress_level=9, compress_type=strategy)


def webp() -> Iterator[Codec]:
    """Lossless WebP at its slowest."""
    yield _file("WebP", "method 6", "WEBP", lossless=True, quality=100, method=6, exact=True)


def jpeg_ls() -> Iterator[Codec]:
    """JPEG-LS with each colour transform. `Picture.residuals` uses the same predictor."""
    for name in get_args(Colours):

        def encode(pixels: np.ndarray, name: Colours = name) -> bytes:
            written = pixels if name == "rgb" else colours.written(pixels, name, 256)
            return imagecodecs.jpegls_encode(written, out=2 * pixels.size + 1024)  # noise takes more than its pixels

        def decode(data: bytes, name: Colours = name) -> np.ndarray:
            written = imagecodecs.jpegls_decode(data)
            return written if name == "rgb" else colours.original(written, name, 256)

        yield Codec("JPEG-LS", name, encode, decode)


def jpeg_xl() -> Iterator[Codec]:
    """Lossless JPEG XL at efforts 7, 9 and 10, without a container."""
    for effort in (7, 9, 10):
        encode = functools.partial(imagecodecs.jpegxl_encode, lossless=True, effort=effort, usecontainer=False)
        yield Codec("JPEG XL", f"effort {effort}", encode, imagecodecs.jpegxl_decode)


def _file(family: str, told: str, kind: str, **options: object) -> Codec:
    def encode(pixels: np.ndarray) -> bytes:
        PIL.Image.fromarray(pixels).save(buffer := io.BytesIO(), kind, **options)
        return buffer.getvalue()

    return Codec(family, told, encode, lambda data: np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB")))


def flac() -> Iterator[Codec]:
    """FLAC of 8-bit samples at its lowest, default and highest compression level."""
    for level in (0, 5, 8):

        def encode(samples: np.ndarray, level: int = level) -> bytes:
            wide = ((samples.astype(np.int32) - 128) << 8).astype(np.int16)
            options = {"format": "FLAC", "subtype": "PCM_S8", "compression_level": level / 8}
            soundfile.write(buffer := io.BytesIO(), wide, 16_000, **options)
            return buffer.getvalue()

        def decode(data: bytes) -> np.ndarray:
            return ((soundfile.read(io.BytesIO(data), dtype="int16")[0] >> 8) + 128).astype(np.uint8)

        yield Codec("FLAC", f"level {level}", encode, decode)


def signals_of(source: Source, split: str) -> dict[str, list]:
    """The signals of a split, by field; texts in UTF-8."""
    records = source.records(split)
    rows = read(records, range(len(records)))
    fields = {field: [row[field] for row in rows if field in row] for field in UNITS}
    return fields | {"sound": [one[:, 0] for one in fields["sound"]], "text": [one.encode() for one in fields["text"]]}


def main() -> None:
    """Measures, prints and writes the anchors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", default="validation", help="%(default)s by default")
    parser.add_argument("--run", type=pathlib.Path, nargs="*", default=[], help="directories of runs")
    parser.add_argument("--out", type=pathlib.Path, help="a table, as CSV")
    parser.add_argument("--data.directory", dest="directory", default="data/lossless", help="the data set")
    arguments = parser.parse_args()
    source = load_experiment(pathlib.Path(__file__).with_name("experiment.py")).data
    source = dataclasses.replace(source, directory=arguments.directory)
    try:
        verify(source)
        heldout = signals_of(source, arguments.split)
        found = [one for run in arguments.run for one in of_run(run, heldout)]
        found += measured(signals_of(source, "train"), heldout)
    except OmnijaxError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print_anchors(found, rich.console.Console())
    if arguments.out:
        write_anchors(found, arguments.out)


if __name__ == "__main__":
    main()
