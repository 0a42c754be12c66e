"""Completing pictures from one half: what the model is given, and how the outcome is counted."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import jax
import numpy as np
import pytest

from omnijax.data.records import Records
from omnijax.evaluate import completions as inpainting
from omnijax.evaluate.completions import Completed, complete_half, measures, patches_of_half
from omnijax.modalities import PatchImage
from omnijax.sample.generate import Generated

IMAGE = PatchImage()
HALVES = {
    "left": np.s_[:, :4],
    "right": np.s_[:, 4:],
    "top": np.s_[:4],
    "bottom": np.s_[4:],
}


@dataclasses.dataclass(frozen=True)
class Ink:
    """A judge that counts inked rows; `image_model` is added, so that two of them differ."""

    image_model: int = 0

    def image(self, images: np.ndarray) -> np.ndarray:
        return (images > 0).any(axis=2).sum(axis=1) + self.image_model


@pytest.mark.parametrize("half", HALVES)
def test_the_patches_of_a_half_are_those_of_its_pixels(half: str) -> None:
    ink = np.zeros((8, 8), np.uint8)
    ink[HALVES[half]] = 1
    assert patches_of_half(IMAGE, half).tolist() == np.flatnonzero(IMAGE.fragments(ink)).tolist()
    wide = PatchImage(height=4, width=6)  # of three columns the middle one is in both halves
    assert {half: patches_of_half(wide, half).tolist() for half in HALVES} == {
        "left": [0, 1, 3, 4],
        "right": [1, 2, 4, 5],
        "top": [0, 1, 2],
        "bottom": [3, 4, 5],
    }


@pytest.mark.parametrize("half", HALVES)
def test_the_model_gets_one_half_and_what_it_makes_is_judged(half: str, monkeypatch) -> None:
    random = np.random.default_rng(0)
    real = random.integers(1, 17, (4, 8, 8)).astype(np.uint8)
    made = random.integers(1, 17, (4, 8, 8)).astype(np.uint8)
    asked: list[Any] = []

    def complete(target: str, known: Any, key: Any) -> Generated:
        asked.extend(known)
        assert target == "image"
        fragments = [IMAGE.fragments(picture) for picture in made]
        fragments[2] = fragments[2][:3]  # could not be read whole
        return Generated(fragments, np.array([True, True, False, True]), np.zeros(4, np.int64))

    train = Records(**{field.name: np.zeros(1) for field in dataclasses.fields(Records)} | {"images": real})
    fitted: list[Records] = []
    monkeypatch.setattr(inpainting, "fit_image", lambda records: fitted.append(records) or 100)
    generator: Any = types.SimpleNamespace(complete=complete)
    judges: Any = Ink()
    found = complete_half(generator, judges, train, IMAGE, list(IMAGE.fragments(real)), half, jax.random.key(0))

    given = np.zeros((8, 8), bool)
    given[HALVES[half]] = True
    np.testing.assert_array_equal(found.given, given)
    np.testing.assert_array_equal(found.blank, np.where(given, real, 0))
    np.testing.assert_array_equal(found.pictures, np.where(np.array([1, 1, 0, 1])[:, None, None], made, found.blank))
    assert found.judged.tolist() == [8, 8, -1, 8]
    rows_of_half = 8 if half in ("left", "right") else 4
    assert found.judged_blank.tolist() == [rows_of_half] * 4
    assert found.judged_half.tolist() == [100 + rows_of_half] * 4
    np.testing.assert_array_equal(fitted[0].images, found.blank)
    for (positions, ids), picture in zip(asked, real, strict=True):
        whole = np.zeros(16, np.int64)
        whole[positions - 1] = ids
        np.testing.assert_array_equal(IMAGE.signal(whole), np.where(given, picture, 0))


def test_shares_come_with_their_standard_errors() -> None:
    pictures = np.zeros((4, 8, 8), np.uint8)
    labels = np.array([1, 2, 3, 4])
    judged, blank, half = np.array([1, 2, 3, -1]), np.array([1, 0, 0, 0]), labels
    decodable = np.array([True, True, True, False])
    found = measures(Completed(pictures[0] > 0, pictures, pictures, judged, blank, half, decodable), labels)
    assert found == {
        "accuracy": 0.75,
        "standard_error": pytest.approx(np.sqrt(0.75 * 0.25 / 4)),
        "blank_accuracy": 0.25,
        "blank_standard_error": pytest.approx(np.sqrt(0.75 * 0.25 / 4)),
        "half_accuracy": 1.0,
        "half_standard_error": 0.0,
        "examples": 4,
        "decodable": 0.75,
    }
