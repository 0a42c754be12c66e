"""Pictures of which one half is known, completed by a model: how often the digit in them is still the right one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int64, PRNGKeyArray, UInt8

from omnijax.data.records import Records
from omnijax.data.sources.spoken_digits.judges import NOT_A_DIGIT, Judges, fit_image
from omnijax.modalities import PatchImage
from omnijax.sample.generate import Generator


class Completed(NamedTuple):
    """What came of one half.

    Attributes:
        given: the pixels that were known, bool[height, width].
        blank: the pictures with nothing in the other half.
        pictures: the pictures as the model completed them; `blank` where nothing could be read.
        judged: the digit in each of `pictures`; -1 where nothing could be read.
        judged_blank: the digit in each of `blank`.
        judged_half: what a judge that was fitted on such halves reads in each of `blank`: what the known half tells.
        decodable: what could be read.
    """

    given: Bool[np.ndarray, "height width"]
    blank: UInt8[np.ndarray, "n height width"]
    pictures: UInt8[np.ndarray, "n height width"]
    judged: Int[np.ndarray, " n"]
    judged_blank: Int[np.ndarray, " n"]
    judged_half: Int[np.ndarray, " n"]
    decodable: Bool[np.ndarray, " n"]


def patches_of_half(image: PatchImage, half: str) -> Int64[np.ndarray, " patches"]:
    """Indices of the patches in one half of a picture, in raster order.

    Args:
        image: how pictures are cut.
        half: left, right, top or bottom; the larger part where the patches don't halve.
    """
    rows, columns = image.height // image.patch, image.width // image.patch
    row, column = np.divmod(np.arange(rows * columns), columns)
    inside = {
        "left": 2 * column < columns,
        "right": 2 * (columns - 1 - column) < columns,
        "top": 2 * row < rows,
        "bottom": 2 * (rows - 1 - row) < rows,
    }
    return np.flatnonzero(inside[half])


def complete_half(
    generator: Generator,
    judges: Judges,
    train: Records,
    image: PatchImage,
    fragments: Sequence[Int64[np.ndarray, " patches"]],
    half: str,
    key: PRNGKeyArray,
) -> Completed:
    """Completes pictures from one half of them.

    Args:
        generator: with an `image` among its targets.
        judges: of digits.
        train: split that they were fitted on.
        image: how pictures are cut.
        fragments: of the whole pictures; the model gets those of the half, with their positions.
        half: what is known.
        key: draws the rest.
    """
    known = patches_of_half(image, half)
    given = image.signal(np.where(np.isin(np.arange(len(fragments[0])), known), image.size - 1, 0)) > 0
    blank = np.stack([image.signal(ids) for ids in fragments]) * given.astype(np.uint8)
    made = generator.complete("image", [(known + 1, ids[known]) for ids in fragments], key)
    pictures = blank.copy()
    for index in np.flatnonzero(made.decodable):
        pictures[index] = image.signal(made.fragments[index])
    judged = np.where(made.decodable, judges.image(pictures), NOT_A_DIGIT)
    halves = dataclasses.replace(train, images=train.images * given.astype(np.uint8))
    judged_half = dataclasses.replace(judges, image_model=fit_image(halves)).image(blank)
    return Completed(given, blank, pictures, judged, judges.image(blank), judged_half, made.decodable)


def measures(completed: Completed, labels: Int[np.ndarray, " n"]) -> dict[str, Any]:
    """For `eval.json`: shares of pictures in which the judges see the right digit, each with its standard error."""
    result: dict[str, Any] = {}
    for name, judged in (
        ("", completed.judged),
        ("blank_", completed.judged_blank),
        ("half_", completed.judged_half),
    ):
        right = float(np.mean(judged == labels))
        result |= {f"{name}accuracy": right, f"{name}standard_error": float(np.sqrt(right * (1 - right) / len(labels)))}
    return result | {"examples": len(labels), "decodable": float(np.mean(completed.decodable))}
