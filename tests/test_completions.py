"""Completing pictures from one half: what the model is given, and how the outcome is counted."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from omnijax.config import BatchConfig, Completion, Config, EvalConfig, Task
from omnijax.errors import ConfigError
from omnijax.evaluate import EvaluatedSplit, Trained
from omnijax.evaluate.tasks import measure_completions
from omnijax.modalities import Items, Modality, Picture
from omnijax.sample.generate import Generated
from omnijax.source import Judge, Source

IMAGE = Picture("image", height=8, width=8, levels=17)
HALVES = {
    "left": np.s_[:, :4],
    "right": np.s_[:, 4:],
    "top": np.s_[:4],
    "bottom": np.s_[4:],
}
LABELS = np.array([8, 8, 8, 4])


def inked_rows(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """A judge that counts the rows that have ink."""
    return (np.stack(pictures) > 0).any(axis=2).sum(axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inked(Source):
    """Four pictures without a blank pixel."""

    classes: ClassVar[tuple[str, ...]] = tuple(map(str, range(9)))

    @property
    def fields(self) -> Mapping[str, Modality]:
        return {"image": IMAGE}

    def records(self, split: str) -> Sequence[Mapping[str, Any]]:
        random = np.random.default_rng(0)
        return [{"image": random.integers(1, 17, (8, 8)).astype(np.uint8)} for _ in range(4)]

    def labels(self, split: str) -> np.ndarray:
        return LABELS

    def judges(self) -> Mapping[str, Judge]:
        return {"image": inked_rows}


def config_of(half: str, random_order: float = 1.0) -> Config:
    task = Task(("image",), weights=(1.0,), random_order=(random_order,))
    return Config(Inked(), BatchConfig((task,)), eval=EvalConfig(completions=(Completion("image", half),), show=4))


@pytest.mark.parametrize("half", HALVES)
def test_the_patches_of_a_half_are_those_of_its_pixels(half: str) -> None:
    ink = np.zeros((8, 8), np.uint8)
    ink[HALVES[half]] = 1
    items = IMAGE.encode([ink])
    np.testing.assert_array_equal(IMAGE.given(half, items), items.digits.any(axis=1))
    wide = Picture("image", height=4, width=6, patch=2)  # of three columns the middle one is in both halves
    patches = wide.encode([np.zeros((4, 6), np.uint8)])
    assert {half: np.flatnonzero(wide.given(half, patches)).tolist() for half in HALVES} == {
        "left": [0, 1, 3, 4],
        "right": [1, 2, 4, 5],
        "top": [0, 1, 2],
        "bottom": [3, 4, 5],
    }
    varied = dataclasses.replace(wide, variable=True)  # the header is known; a smaller picture has halves of its own
    patches = varied.encode([np.zeros((2, 4), np.uint8)])
    given = {half: np.flatnonzero(varied.given(half, patches)).tolist() for half in HALVES}
    assert given == {"left": [0, 1], "right": [0, 2], "top": [0, 1, 2], "bottom": [0, 1, 2]}


@pytest.mark.parametrize("half", HALVES)
def test_the_model_gets_one_half_and_what_it_makes_is_judged(half: str) -> None:
    made = np.random.default_rng(1).integers(1, 17, (4, 8, 8)).astype(np.uint8)
    asked: list[Any] = []

    def complete(field: str, items: Any, known: Any, key: Any) -> Generated:
        assert field == "image"
        asked.extend(zip(items, known, strict=True))
        fragments = IMAGE.encode(made).split()
        fragments[2] = Items(fragments[2].part[:3], fragments[2].digits[:3], np.array([3]))  # can't be read whole
        return Generated(fragments, np.array([True, True, False, True]))

    generator: Any = types.SimpleNamespace(complete=complete)
    config = config_of(half)
    found = measure_completions(Trained(config, generator, 0), EvaluatedSplit(config))
    figures, pages = found.figures["completions"][f"image/{half}"], found.shown["completions"][f"image/{half}"]

    given = np.zeros((8, 8), bool)
    given[HALVES[half]] = True
    real = [record["image"] for record in config.data.records("validation")]
    blank = [np.where(given, picture, 0) for picture in real]
    for (items, known), picture, half_blank in zip(asked, real, blank, strict=True):
        np.testing.assert_array_equal(IMAGE.decode(items), picture)
        np.testing.assert_array_equal(IMAGE.decode(items, known), half_blank)
    # Judged: 8, 8, nothing and 8 rows of ink; with the other half left blank 8 or 4 rows in each.
    blank_share = 0.75 if half in ("left", "right") else 0.25
    expected = {"accuracy": 0.5, "blank_accuracy": blank_share, "examples": 4, "decodable": 0.75, "judge": 0.75}
    assert {name: figures[name] for name in expected} == expected
    assert figures["standard_error"] == pytest.approx(0.25)
    assert figures["blank_standard_error"] == pytest.approx(np.sqrt(0.75 * 0.25 / 4))
    confusion = np.array(figures["confusion"])
    assert confusion.shape == (9, 10)
    assert (confusion[8, 8], confusion[8, 9], confusion[4, 8]) == (2, 1, 1)  # the last column is nothing readable
    assert "level_distance" in figures["metrics"]

    by_record = {page["record"]: page for page in pages}
    assert [by_record[number]["judged"] for number in range(4)] == [8, 8, -1, 8]
    for number, page in by_record.items():
        assert page["given"] == IMAGE.html(blank[number], f"given, {half} half")
        assert (page["made"] is None) == (number == 2)


def test_only_halves_of_fields_in_random_order_are_completed() -> None:
    with pytest.raises(ConfigError, match="some of them in random order"):
        config_of("left", random_order=0.0)
    with pytest.raises(ConfigError, match="what can be completed is image/left, image/right, image/top, image/bottom"):
        config_of("middle")
