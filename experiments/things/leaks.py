"""Finds held-out artists, photographs, words and voices among the records for training, and copies of pictures.

Run it as `python experiments/things/leaks.py data/things.files`.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image
import scipy.fft

from omnijax.source import TRAIN

COPY_BITS = 4
"""Two pictures are copies if their fingerprints differ in at most this many of 63 bits.

Fixed on validation: the closest pairs of a drawing for validation and one for training differ in 6 bits, and of the 29
pairs within 12 bits none is a copy (they were looked at: keys, pencils and violins that two artists have drawn alike).
"""
PICTURE = "picture_file_name"


def fingerprints(pictures: Sequence[PIL.Image.Image]) -> np.ndarray:
    """Which low frequencies are above their median, bool[n, 63] (perceptual hash, C. Zauner 2010, 3.2.1)."""
    grey = np.stack([np.asarray(picture.convert("L").resize((32, 32)), np.float64) for picture in pictures])
    low = scipy.fft.dctn(grey, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(grey), -1)[:, 1:]
    return low > np.median(low, axis=1, keepdims=True)


def copies(folder: pathlib.Path, rows: Sequence[Mapping[str, str]]) -> list[tuple[int, int]]:
    """Pairs of a held-out picture and one for training that is a copy of it, as places in the rows of a table."""
    shown = [place for place, row in enumerate(rows) if PICTURE in row]
    held_out = [place for place in shown if rows[place]["split"] != TRAIN]
    known = [place for place in shown if rows[place]["split"] == TRAIN]
    if not held_out or not known:
        return []
    sides = []
    for places in (held_out, known):
        pictures = []
        for place in places:
            with PIL.Image.open(folder / rows[place][PICTURE]) as picture:
                pictures.append(picture.convert("RGB"))
        sides.append(fingerprints(pictures))
    apart = (sides[0][:, None] != sides[1][None]).sum(-1)
    return [(held_out[one], known[other]) for one, other in np.argwhere(apart <= COPY_BITS).tolist()]


def leaks(folder: pathlib.Path) -> list[str]:
    """One line for each training row that shows something held out."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    keys = {
        "artist": lambda row: row["by"] if PICTURE in row else None,
        "photo": lambda row: row["label"] if row["by"] == "stamp" else None,
        "word": lambda row: (row["by"], row["label"]) if row["by"].startswith("voice") else None,
        "voice": lambda row: row["by"] if row["by"].startswith("voice") else None,
    }
    found = []
    for kind, key in keys.items():
        held_out = {key(row) for row in rows if row["split"].endswith(f"/{kind}")} - {None}
        found += [f"{kind}: {_name(row)}" for row in rows if row["split"] == TRAIN and key(row) in held_out]
    return found + [f"copy: {_name(rows[known])} of {_name(rows[one])}" for one, known in copies(folder, rows)]


def _name(row: Mapping[str, str]) -> str:
    return next(value for name, value in row.items() if name.endswith("_file_name"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="folder with metadata.jsonl, such as data/things.files")
    folder = parser.parse_args().folder
    if not (folder / "metadata.jsonl").is_file():
        parser.error(f"{folder} has no metadata.jsonl: make things makes data/things.files")
    lines = leaks(folder)
    print("\n".join(lines) or "no leak")
    sys.exit(bool(lines))
