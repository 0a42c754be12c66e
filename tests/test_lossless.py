"""experiments/lossless/: what is cut out of packages, and the codecs beside it, on data that the test makes."""

from __future__ import annotations

import importlib
import itertools
import pathlib
import sys
from collections.abc import Iterator
from types import ModuleType

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from omnijax.experiment import load_experiment
from omnijax.source import TEST, TRAIN, VALIDATION

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
LOSSLESS = EXPERIMENTS / "lossless"


@pytest.fixture(scope="module")
def making() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        for folder in (EXPERIMENTS, LOSSLESS):
            patch.syspath_prepend(str(folder))
        yield importlib.import_module("make_files")
    for name in ("make_files", "fetch_packages"):
        sys.modules.pop(name, None)


def test_no_photograph_is_in_two_splits(making: ModuleType) -> None:
    names = list(itertools.chain(*making.PHOTOGRAPHS.values()))
    assert len(names) == len(set(names)) == 23
    assert [len(making.PHOTOGRAPHS[split]) for split in (TRAIN, VALIDATION, TEST)] == [15, 4, 4]


@hypothesis.given(st.text(max_size=60), st.integers(4, 20))
def test_stretches_of_a_text_are_all_of_it(making: ModuleType, text: str, most: int) -> None:
    parts = list(making.stretches(text, most))
    assert "".join(parts) == text
    assert all(1 <= len(part.encode()) <= most for part in parts)


def test_stretches_end_with_a_line_or_before_a_space(making: ModuleType) -> None:
    assert list(making.stretches("one two\nthree four", 7)) == ["one", " two\n", "three", " four"]


def test_every_split_gets_some_sounds_and_texts(making: ModuleType) -> None:
    for field, share in making.HELD_OUT.items():
        found = [making.split_of(field, str(number).encode()) for number in range(4000)]
        for split in (VALIDATION, TEST):
            assert found.count(split) == pytest.approx(4000 / share, rel=0.5)


def test_codecs_give_back_what_they_were_given() -> None:
    """`best_of` decodes what it encodes; flat signals take few bits, noise takes all."""
    sys.path.insert(0, str(EXPERIMENTS.parent))
    from experiments.lossless import anchors

    random = np.random.default_rng(0)
    heldout = {
        "picture": [random.integers(0, 256, (32, 32, 3)).astype(np.uint8) for _ in range(8)],
        "sound": [np.full(1024, 128, np.uint8)] * 3,
        "text": [b"one two three four five six seven eight"] * 9,
    }
    found = {f"{one.modality}: {one.name}": one.value for one in anchors.measured(heldout, heldout)}
    assert found["picture: PNG, crops of 32×32"] > 8
    assert found["picture: WebP, one canvas"] > 7.5
    assert found["sound: FLAC, one stream"] < 1
    assert found["text: brotli, one stream"] < found["text: brotli, each alone"]
    assert found["text: xz, one stream after 4 MiB of training"] < found["text: xz, one stream"]


def test_a_sequence_holds_a_picture_or_a_sound() -> None:
    config = load_experiment(LOSSLESS / "experiment.py")
    for field in ("picture", "sound"):
        modality = config.data.fields[field]
        items = sum(most for _, most in modality.limits) + 2 * len(modality.limits) + 1
        assert items <= config.batch.sequence_items
