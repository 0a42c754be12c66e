"""experiments/lossless/: what is cut out of packages, and the codecs beside it, on data that the test makes."""

from __future__ import annotations

import dataclasses
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
from sampling import untrained

from omnijax.experiment import load_experiment
from omnijax.modalities import colours, predict
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
    assert found["picture: context counts"] < 8  # the same noise was counted
    assert found["text: context counts"] < found["text: xz, one stream"]
    assert {one.partition(": ")[0] for one in found} == {"picture", "sound", "text"}


@pytest.fixture(scope="module")
def counting() -> ModuleType:
    sys.path.insert(0, str(EXPERIMENTS.parent))
    return importlib.import_module("experiments.lossless.counting")


def test_chances_of_all_bytes_sum_to_one_and_are_those_of_a_slow_count(counting: ModuleType) -> None:
    random = np.random.default_rng(3)
    texts = [bytes(random.integers(97, 101, random.integers(1, 30)).astype(np.uint8)) for _ in range(20)]
    train = counting.of_texts(texts)

    def slow(context: bytes, byte: int) -> float:
        chance = 1 / 256
        for order in range(counting.ORDERS + 1):
            seen = [after for text in texts for before, after in _pairs(text, order) if before == context[5 - order :]]
            if seen:
                kinds = len(set(seen))
                chance = (seen.count(byte) + kinds * chance) / (len(seen) + kinds)
        return chance

    def _pairs(text: bytes, order: int) -> list[tuple[bytes, int]]:
        padded = bytes(5) + text + counting.END
        return [(padded[place - order : place], padded[place]) for place in range(5, len(padded))]

    for context in (b"abcda", b"\0\0\0ab", b"zzzzz", b"\0\0\0\0\0"):
        every = np.arange(256, dtype=np.uint8)
        columns = [np.frombuffer(context[5 - order :], np.uint8) for order in range(6)]
        asked = [np.full(256, int.from_bytes(bytes(column[::-1]), "big"), np.int64) for column in columns]
        chances = 2.0 ** -counting.bits(train, counting.Signals(every, asked))
        assert chances.sum() == pytest.approx(1)
        for byte in (97, 99, 0):
            assert chances[byte] == pytest.approx(slow(context, byte)), (context, byte)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(st.integers(0, 2**32 - 1))
def test_contexts_know_nothing_of_what_comes_later(counting: ModuleType, seed: int) -> None:
    random = np.random.default_rng(seed)
    picture, sound = random.integers(0, 256, (4, 5, 3)).astype(np.uint8), random.integers(0, 256, 30).astype(np.uint8)
    row, column, channel = random.integers(4), random.integers(5), random.integers(3)
    changed = picture.copy()
    changed[row, column, [1, 0, 2][channel] :: 3] += np.uint8(1 + random.integers(255))  # green, red, blue
    before = np.arange(4 * 5 * 3) <= (row * 5 + column) * 3 + channel
    found, again = counting.of_pictures([picture]), counting.of_pictures([changed])
    for one, two in zip(found.contexts, again.contexts, strict=True):
        assert (one[before] == two[before]).all()
    other = random.integers(0, 256, 1)
    for field, signal in (("sound", sound), ("text", sound.tobytes())):
        place = int(random.integers(30))
        later = bytearray(signal)
        later[place] = int(other[0])
        again = np.array(later) if field == "sound" else bytes(later)
        for one, two in zip(
            counting.MODELS[field]([signal]).contexts, counting.MODELS[field]([again]).contexts, strict=True
        ):
            assert (one[: place + 1] == two[: place + 1]).all()


def test_a_run_is_measured_on_its_own_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits of each signal alone, with its end, for each sub-pixel, sample or byte."""
    sys.path.insert(0, str(EXPERIMENTS.parent))
    from experiments.lossless import anchors

    config = load_experiment(LOSSLESS / "experiment.py")
    model = dataclasses.replace(config.model, depth=1, width=16, heads=2, kv_heads=1, head_size=8, mlp_width=16)
    batch = dataclasses.replace(config.batch, tasks=config.batch.tasks[1:])
    run = untrained(dataclasses.replace(config, model=model, batch=batch))
    monkeypatch.setattr(anchors.omnijax, "load", lambda path: run)
    random = np.random.default_rng(0)
    sounds = [random.integers(0, 256, 1024).astype(np.uint8) for _ in range(2)]
    texts = [b"one two", "\u00e9\U0001f993".encode(), b"three"]
    found = {one.modality: one for one in anchors.of_run(pathlib.Path("runs/it"), {"sound": sounds, "text": texts})}
    assert list(found) == ["sound", "text"]
    assert {one.name for one in found.values()} == {"omnijax, it"}
    records = {"sound": [{"sound": one[:, None]} for one in sounds], "text": [{"text": one.decode()} for one in texts]}
    for field, size in (("sound", 2048), ("text", 7 + 6 + 5)):
        bits = sum(run.score(record)[field].bits for record in records[field])
        assert found[field].value == pytest.approx(bits / size, rel=1e-4)


def test_a_sequence_holds_a_picture_or_a_sound() -> None:
    config = load_experiment(LOSSLESS / "experiment.py")
    for field in ("picture", "sound"):
        modality = config.data.fields[field]
        items = sum(most for _, most in modality.limits) + 2 * len(modality.limits) + 1
        assert items <= config.batch.sequence_items


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(st.integers(0, 2**32 - 1))
def test_what_is_counted_is_all_of_a_signal(counting: ModuleType, seed: int) -> None:
    random = np.random.default_rng(seed)
    picture = random.integers(0, 256, (5, 4, 3)).astype(np.uint8)
    residuals = counting.of_pictures([picture]).values.reshape(1, 5, 4, 3)
    assert (colours.original(predict.original(residuals, 256), "green", 256)[0] == picture).all()
    sound, last = random.integers(0, 256, 20).astype(np.uint8), [counting.SILENCE] * 2
    for value in counting.of_sounds([sound]).values.tolist():
        last.append((value + 2 * last[-1] - last[-2]) % 256)
    assert last[2:] == sound.tolist()
    texts = [b"", b"one", "zwei ß".encode()]
    assert bytes(counting.of_texts(texts).values) == b"".join(text + counting.END for text in texts)


def test_bits_of_texts_of_several_lengths_are_theirs_and_have_their_ends(counting: ModuleType) -> None:
    train = {"picture": [np.zeros((2, 2, 3), np.uint8)] * 2, "sound": [np.full(8, 128, np.uint8)] * 2}
    train["text"] = [b"aaaa", b"ab"]
    heldout = train | {"text": [b"a", b"bbb"]}
    units = {"picture": "bits per sub-pixel", "sound": "bits per sample", "text": "bits per byte"}
    *_, text = counting.anchors(train, heldout, units)
    each = counting.bits(counting.of_texts(train["text"]), counting.of_texts(heldout["text"]))
    assert len(each) == 2 + 4
    assert text.value == pytest.approx(each.sum() / 4)


def test_files_of_some_fields_need_only_their_packages(making: ModuleType, tmp_path, monkeypatch) -> None:
    asked = []

    def gather(packages, *_) -> list:
        asked.extend(packages)
        return packages

    monkeypatch.setattr(making, "gather", gather)
    monkeypatch.setattr(making, "_texts", lambda folder, language, path: iter([{"text_file_name": language}]))
    (tmp_path / "some").mkdir()
    making.make(tmp_path / "some", fields=("text",))
    assert asked == list(making.TEXTS.values())
