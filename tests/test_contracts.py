"""What every modality and every source has to do, found by looking: a new one is tested at once."""

from __future__ import annotations

import dataclasses
import functools
import html.parser
import io
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnijax.config import BatchConfig, Config, Task
from omnijax.data.columns import Encoded, segments_of
from omnijax.data.corpus import encode_records
from omnijax.data.sources.memory import Arrays, Generated, HuggingFace
from omnijax.errors import ConfigError, DataError, OmnijaxError
from omnijax.modalities import (
    GENERAL,
    MODALITIES,
    Clip,
    Codes,
    Items,
    Modality,
    PatchCodes,
    Picture,
    Sound,
    Speech,
    Text,
    TextPieces,
)
from omnijax.source import TRAIN, Source
from omnijax.vocab.assemble import assemble
from omnijax.vocab.decode import decode
from omnijax.vocab.encode import encode
from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.numbers import to_ints

RANDOM = np.random.default_rng(0)
WAVES = [np.sin(np.arange(count) * RANDOM.uniform(0.1, 1)).astype(np.float32) for count in (900, 2000, 3111, 5000)]


@dataclasses.dataclass
class Case:
    """A modality, signals that it must take, and signals that it must refuse."""

    modality: Modality
    signals: Sequence[Any]
    wrong: Sequence[Any]


def pictures(modality: Picture, count: int = 5) -> list[np.ndarray]:
    """Random pictures; of different sizes where that is allowed."""
    shapes = [(modality.height, modality.width), (1, 1), (2, 5), (modality.height, 1)]
    kind = np.uint8 if modality.levels <= 256 else np.uint16
    found = []
    for number in range(count):
        height, width = shapes[number % 4] if modality.variable else shapes[0]
        picture = RANDOM.integers(0, modality.levels, (height, width, modality.channels)).astype(kind)
        found.append(picture[..., 0] if modality.channels == 1 else picture)
    return found


def wrong_pictures(modality: Picture) -> list[Any]:
    """Hostile pictures."""
    (good,) = pictures(modality, 1)
    return [
        None,
        "picture",
        good.astype(np.float32),
        np.full(good.shape, np.nan),
        good.astype(bool),
        good.astype(np.int64) - 2**17,
        np.full(good.shape, modality.levels, np.int64),
        np.zeros((0, *good.shape[1:]), np.uint8),
        np.zeros((modality.height + 1, *good.shape[1:]), np.uint8),
        np.zeros((*good.shape, 2), np.uint8),
        [[1, 2], [3]],
        {"array": good},
    ]


def case_of_pictures(**knobs: Any) -> Case:
    """A case of `Picture`."""
    modality = Picture("picture", **knobs)
    return Case(modality, pictures(modality), wrong_pictures(modality))


def case_of_codes() -> Case:
    """A case of `PatchCodes`, of any size."""
    modality = PatchCodes(height=24, width=24, channels=3, variable=True, code=(4, 4, 2))
    modality = modality.bound(modality.fit(pictures(modality), 0, lambda share: None))
    return Case(modality, pictures(modality), wrong_pictures(modality))


def case_of_clips(frame: Picture) -> Case:
    """A case of `Clip`."""
    modality = Clip(frame=frame, most=3)
    shape = (frame.height, frame.width, 3)
    clips = [RANDOM.integers(0, 256, (count, *shape)).astype(np.uint8) for count in (1, 3, 2)]
    modality = modality.bound(modality.fit(clips, 0, lambda share: None)) if modality.learned else modality
    wrong = [None, "x", np.zeros((0, *shape), np.uint8), np.zeros((4, *shape), np.uint8), np.zeros(shape, np.uint8)]
    return Case(modality, clips, [*wrong, np.zeros((2, *shape)), np.zeros((2, 3, 4, 3), np.uint8)])


def case_of_sounds(**knobs: Any) -> Case:
    """A case of `Sound`: lengths that fill their last fragment, and others."""
    modality = Sound(most=20, **knobs)
    low, high, kind = (-(2**15), 2**15, np.int16) if modality.bits == 16 else (0, 2**8, np.uint8)
    shapes = [(count, modality.channels) for count in (1, 4, 7, 30)]
    sounds = [RANDOM.integers(low, high, shape).astype(kind) for shape in shapes]
    wrong = [None, "x", np.zeros((0, modality.channels), kind), np.zeros((10**4, modality.channels), kind)]
    wrong += [np.zeros(4, kind), np.zeros((4, 3), kind), np.zeros((4, modality.channels)), [[1], [2, 3]]]
    return Case(modality, sounds, wrong)


def case_of_pieces() -> Case:
    """A case of `TextPieces`."""
    texts = ["the seven houses of the seventh house ", "seven", "", "zwölf", "漢字", "a\r\nb\n", "\0\0\0"]
    modality = TextPieces(most=40, pieces=20)
    modality = modality.bound(modality.fit(texts * 3, 0, lambda share: None))
    return Case(modality, texts, [7, None, "\ud800", b"\1" * 41, 1.5])


@functools.cache
def cases() -> dict[str, Case]:
    """At least one for each modality."""
    speech = Speech(codes=8, griffin_lim_iterations=2)
    speech = speech.bound(speech.fit(WAVES, 0, lambda share: None))
    stages = Speech(codes=4, stages=3, griffin_lim_iterations=2)
    stages = stages.bound(stages.fit(WAVES, 0, lambda share: None))
    spectra = Speech(code=(4, 3, 2), griffin_lim_iterations=2)
    spectra = spectra.bound(spectra.fit(WAVES, 0, lambda share: None))
    codes = Codes(radices=(3, 2**32, 5), most=6)
    return {
        "Text": Case(Text(most=12), ["seven", "", "zwölf", "漢字", "a\r\nb\n"], [7, None, "\ud800", b"x" * 13, 1.5]),
        "Codes": Case(
            codes,
            [np.array([[2, 2**32 - 1, 4]], np.uint32), RANDOM.integers(0, 3, (6, 3), np.uint32)],
            [np.zeros((0, 3), int), np.zeros((7, 3), int), np.zeros(3, int), [[0, 0, 5]], [[-1, 0, 0]], [[0, 0]]]
            + [np.full((2, 3), np.nan), np.ones((2, 3)), None, "codes", [[[1]], [[1, 2]]]],
        ),
        "Speech": Case(
            speech,
            WAVES,
            [np.full(900, np.nan), np.full(900, np.inf), np.zeros((2, 900)), np.zeros(0), np.zeros(10**6), None, "x"]
            + [np.ones(900, np.int32), np.ones(900, np.complex64), np.ones(900, bool)],
        ),
        "Speech in stages": Case(stages, WAVES, [np.full(900, np.nan), np.zeros((2, 900)), np.zeros(0), None, "x"]),
        "Speech by a transform": Case(
            spectra, WAVES, [np.full(900, np.nan), np.zeros((2, 900)), np.zeros(0), None, "x"]
        ),
        "Clip": case_of_clips(Picture(height=6, width=4, channels=3)),
        "Clip in codes": case_of_clips(PatchCodes(height=8, width=16, code=(4, 2))),
        "PatchCodes": case_of_codes(),
        "Sound": case_of_sounds(),
        "Sound in stereo": case_of_sounds(channels=2),
        "Sound of 8 bits": case_of_sounds(bits=8, block=3),
        "Sound as differences": case_of_sounds(channels=2, residuals=True),
        "Sound of 8 bits as differences": case_of_sounds(bits=8, residuals=True),
        "TextPieces": case_of_pieces(),
        "Picture": case_of_pictures(height=8, width=6, levels=17),
        "Picture in colour": case_of_pictures(height=6, width=10, channels=3),
        "Picture of any size": case_of_pictures(height=9, width=7, channels=3, patch=2, variable=True),
        "Picture as green and differences": case_of_pictures(height=6, width=10, channels=3, colours="green"),
        "Picture in YCoCg": case_of_pictures(height=6, width=5, channels=4, colours="ycocg", variable=True),
        "Picture as residuals": case_of_pictures(height=6, width=5, levels=17, variable=True, residuals=True),
        "Picture as residuals of YCoCg": case_of_pictures(
            height=6, width=5, channels=4, colours="ycocg", residuals=True
        ),
        "Picture with opacity": case_of_pictures(height=5, width=5, channels=4, patch=3),
        "Picture of 65,536 levels": case_of_pictures(height=5, width=4, channels=2, levels=2**16),
    }


each = pytest.mark.parametrize("name", sorted(cases()))


def test_every_modality_of_the_package_has_a_case() -> None:
    assert {type(case.modality) for case in cases().values()} == set(MODALITIES)


def same_items(left: Items, right: Items) -> bool:
    """Same parts, counts and digits; zeros behind the digits don't count."""
    places = max(left.digits.shape[1], right.digits.shape[1])
    digits = [np.pad(one.digits, ((0, 0), (0, places - one.digits.shape[1]))) for one in (left, right)]
    return (
        np.array_equal(left.part, right.part) and np.array_equal(left.counts, right.counts) and np.array_equal(*digits)
    )


def same_signal(left: Any, right: Any) -> bool:
    """Same kind of signal, same content."""
    if isinstance(left, np.ndarray):
        return left.dtype.kind == right.dtype.kind and np.array_equal(left, right)
    return type(left) is type(right) and bool(left == right)


# ---------------------------------------------------------------------- modalities


@each
def test_items_are_those_that_the_modality_declares(name: str) -> None:
    modality, signals = cases()[name].modality, cases()[name].signals
    modality.check("data.field")
    items = modality.encode(signals)
    assert (items.part.dtype, items.digits.dtype, items.counts.dtype) == (np.int8, np.uint32, np.int64)
    assert len(items) == len(signals)
    assert items.counts.sum() == len(items.part) == len(items.digits)
    assert (items.part >= (GENERAL if modality.general else 0)).all()
    for number, part in enumerate(modality.parts):
        digits = items.of(number, len(part.radices))
        assert (digits < np.array(part.radices, np.uint64)).all()
        numbers = part.numbers(digits)
        assert all(0 <= one < part.fragments for one in to_ints(numbers))
        np.testing.assert_array_equal(part.digits(numbers), digits)
    assert len({part.name for part in modality.parts}) == len(modality.parts)
    assert len(modality.encode([])) == 0


@each
def test_what_is_lossless_comes_back(name: str) -> None:
    modality, signals = cases()[name].modality, cases()[name].signals
    for signal, items in zip(signals, modality.encode(signals).split(), strict=True):
        back = modality.decode(items)
        if modality.lossless:
            assert same_signal(back, signal)
        assert same_items(modality.encode([back]), items) or not modality.lossless


@each
def test_signals_are_encoded_independently_of_the_batch(name: str) -> None:
    modality, signals = cases()[name].modality, cases()[name].signals
    together = modality.encode(signals).split()
    for items, signal in zip(together, signals, strict=True):
        assert same_items(modality.encode([signal]), items)
    backwards = modality.encode(list(signals)[::-1]).split()[::-1]
    assert all(same_items(one, other) for one, other in zip(together, backwards, strict=True))


@each
def test_bounds_and_limits_hold_what_encode_gives(name: str) -> None:
    modality, signals = cases()[name].modality, cases()[name].signals
    assert len(modality.limits) == max(1, len(modality.parts))
    for items in modality.encode(signals).split():
        before = items.reordered(np.zeros(0, np.int64))
        for number in range(len(modality.limits)):
            segment = np.maximum(items.part, 0) == number if modality.parts else np.ones(len(items.part), bool)
            least, most = modality.bounds(before)
            assert modality.limits[number][0] <= least <= segment.sum() <= most <= modality.limits[number][1]
            through = np.maximum(items.part, 0) <= number
            before = Items(items.part[through], items.digits[through], np.array([through.sum()]))
        assert (np.diff(items.part) >= 0).all() or len(modality.parts) < 2


@each
def test_missing_items_leave_the_others_as_they_are(name: str) -> None:
    modality, signals = cases()[name].modality, cases()[name].signals
    for items in modality.encode(signals).split():
        every = np.ones(len(items.part), bool)
        whole = modality.decode(items)
        assert same_signal(modality.decode(items, every), whole)
        kept = every.copy()
        kept[-1:] = False
        for present in [kept, *(modality.given(half, items) for half in modality.halves)]:
            assert present.shape == every.shape
            assert present.dtype == bool
            part = modality.decode(items, present)
            assert np.shape(part) == np.shape(whole) or modality.general


@each
def test_wrong_signals_are_refused_with_what_is_wrong_and_what_to_do(name: str) -> None:
    case = cases()[name]
    config = config_of(case)
    for number, signal in enumerate(case.wrong):
        records = [{"field": [one]} for one in (case.signals[0], signal)]
        with pytest.raises(DataError) as caught:
            encode_records(config, records, ["field"], {"field": case.modality})
        error = caught.value
        assert error.field.startswith("record 1: field"), (number, error)
        assert error.rule
        assert error.fix


@each
def test_wrong_items_are_refused(name: str) -> None:
    modality, signals = cases()[name].modality, cases()[name].signals
    (items,) = modality.encode(signals[:1]).split()
    with pytest.raises(DataError) as caught:
        modality.decode(dataclasses.replace(items, part=np.full_like(items.part, len(modality.parts))))
    assert modality.name in caught.value.field
    with pytest.raises(DataError) as caught:
        modality.decode(dataclasses.replace(items, digits=np.full_like(items.digits, 2**32 - 1)))
    assert modality.name in caught.value.field


class Reader(html.parser.HTMLParser):
    """Reads a piece of a page, whose tags must all be closed."""

    EMPTY = ("img", "input", "br", "path", "source")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


@each
def test_html_is_well_formed_and_escapes(name: str) -> None:
    modality, signals = cases()[name].modality, cases()[name].signals
    hostile = ["<script>\"&'", *(["<b>&</b>"] if isinstance(signals[0], str) else [])]
    for signal in [*signals, *hostile[1:]]:
        reader = Reader()
        text = modality.html(signal, hostile[0])
        reader.feed(text)
        reader.close()
        assert reader.open == []
        assert reader.seen
        assert not {"script", "b"} & set(reader.seen)
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


@each
def test_files_come_back(name: str) -> None:
    modality, signals = cases()[name].modality, cases()[name].signals
    for signal in signals:
        file = io.BytesIO()
        modality.write(signal, file)
        back = modality.read(io.BytesIO(file.getvalue()))
        if modality.lossless and getattr(modality, "levels", 0) <= 256:  # files of pictures have 8 bits a channel
            assert same_signal(back, signal)
        elif not modality.lossless:
            np.testing.assert_allclose(back, signal, atol=2**-14)
    sheet = io.BytesIO()
    modality.sheet(signals, sheet)
    assert sheet.getvalue()


@each
def test_a_damaged_file_is_refused(name: str) -> None:
    modality = cases()[name].modality
    for content in (b"\xff\xfe\x00 no file", *([b""] if modality.suffix else [])):
        with pytest.raises(DataError) as caught:
            modality.read(io.BytesIO(content))
        assert modality.name in caught.value.field


@each
def test_views_follow_from_the_seed_and_the_place_of_a_record(name: str) -> None:
    modality, signals = cases()[name].modality, cases()[name].signals
    places = np.arange(3, 3 + len(signals))
    for view in modality.views:
        together = modality.view(view, signals, 5, places, 40)
        assert len(modality.encode(list(together))) == len(signals)
        for signal, place, other in zip(signals, places, together, strict=True):
            (alone,) = modality.view(view, [signal], 5, np.array([place]), 40)
            assert same_signal(alone, other)
    with pytest.raises(ConfigError):
        modality.view("nothing", signals, 5, places, 40)


@each
def test_units_metrics_and_anchors_are_numbers(name: str) -> None:
    modality, signals = cases()[name].modality, cases()[name].signals
    units = [modality.units(signal) for signal in signals]
    assert all(unit is not None for unit in units) or not modality.lossless
    assert len({unit[1] for unit in units if unit}) <= 1
    made = [modality.decode(items) for items in modality.encode(signals).split()]
    assert all(np.isfinite(value) for value in modality.metrics(signals, made).values())
    assert modality.metrics([], []) == {}
    assert all(value > 0 for value in modality.anchors(signals).values())


@pytest.mark.parametrize(
    "modality, knob",
    [
        (Picture(height=0), "height"),
        (Picture(levels=1), "levels"),
        (Picture(levels=2**16 + 1), "levels"),
        (Picture(channels=0), "channels"),
        (Picture(patch=9), "patch"),
        (Text(least=3, most=2), "least"),
        (Text(least=-1), "least"),
        (Codes(radices=()), "radices"),
        (Codes(radices=(1,)), "radices"),
        (Codes(size=257), "size"),
        (Codes(least=9, most=8), "least"),
        (Speech(hop_samples=0), "hop_samples"),
        (Speech(hop_samples=300), "hop_samples"),
        (Speech(mels=200), "mels"),
        (Speech(frames=0), "frames"),
        (Speech(codes=1), "codes"),
        (Speech(code=(4,) * 161), "code"),
        (Speech(code=(4, 1)), "code"),
        (Speech(sample_rate_hz=100), "sample_rate_hz"),
    ],
)
def test_knobs_that_can_not_work_are_refused_by_their_name(modality: Modality, knob: str) -> None:
    with pytest.raises(ConfigError) as caught:
        modality.check("data.field")
    assert caught.value.field == f"data.field.{knob}"


# ---------------------------------------------------------------------- pictures through the vocabulary


@st.composite
def picture_cases(draw: st.DrawFn) -> tuple[Picture, list[np.ndarray]]:
    """Pictures of any size up to 33, 1 to 4 channels, 2 to 65,536 levels, any patch."""
    height, width, channels = draw(st.integers(1, 33)), draw(st.integers(1, 33)), draw(st.integers(1, 4))
    levels, patch = draw(st.sampled_from([2, 3, 17, 255, 256, 257, 1000, 2**16])), draw(st.integers(1, 4))
    variable = draw(st.booleans())
    colours = draw(st.sampled_from(["rgb", "green", "ycocg"] if channels > 2 else ["rgb"]))
    modality = Picture("p", height, width, channels, levels, min(patch, max(height, width)), variable, colours=colours)
    random, found = np.random.default_rng(draw(st.integers(0, 2**32))), []
    for _ in range(draw(st.integers(1, 3))):
        size = random.integers(1, [height + 1, width + 1]) if variable else (height, width)
        picture = random.integers(0, levels, (*size, channels)).astype(np.uint8 if levels <= 256 else np.uint16)
        found.append(picture[..., 0] if channels == 1 and draw(st.booleans()) else picture)
    return modality, found


@settings(max_examples=150)
@given(picture_cases())
def test_pictures_come_back_without_loss(case: tuple[Picture, list[np.ndarray]]) -> None:
    modality, signals = case
    modality.check("data.p")
    part = modality.parts[-1]
    for items, signal in zip(modality.encode(signals).split(), signals, strict=True):
        digits = items.of(len(modality.parts) - 1, len(part.radices))
        np.testing.assert_array_equal(part.digits(part.numbers(digits)), digits)
        back = modality.decode(items)
        np.testing.assert_array_equal(back, signal.reshape(back.shape))
        assert back.dtype == signal.dtype


def config_of(case: Case, base: int = 256) -> Config:
    """A configuration whose data has one field of this modality, and text beside it where that has no tokens."""
    text = {} if case.modality.general else {"text": Text()}
    source = Arrays({"field": case.modality, **text}, rows=[{"field": [signal]} for signal in case.signals])
    config = Config(source, BatchConfig((Task(("field",), (1.0,)),), sequence_length=4096))
    return dataclasses.replace(config, writing=dataclasses.replace(config.writing, base=base))


@each
def test_signals_come_back_through_tokens(name: str) -> None:
    """Signals to items, to tokens, and all the way back."""
    case = cases()[name]
    config = config_of(case, base=2**16)  # few digits compile faster
    corpus = encode_records(config, config.data.entries, ["field"], {"field": case.modality})
    documents = corpus.documents(range(len(case.signals)), ["field"])
    rows = [row.array for row in encode(config.vocabulary, documents).split()]
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, found in zip(rows, tokens, strict=True):
        found[: len(row)] = row
    read = assemble(config.vocabulary, decode(config.vocabulary, PrimaryIds(tokens)))
    for (document, *_), expected in zip(read, documents.to_list(), strict=True):
        assert document[: len(expected)] == expected


def test_colour_patches_below_2_to_the_96_pass_through_without_a_python_integer_for_an_item() -> None:
    """A million fragments take a bounded number of Python objects."""
    modality = Picture("photo", height=32, width=32, channels=3)
    photos = np.random.default_rng(0).integers(0, 256, (512, 32, 32, 3), np.uint8)
    config = config_of(Case(modality, photos, ()))
    assert modality.parts[0].fragments == 2**96
    tracemalloc.start()
    corpus = encode_records(config, config.data.entries, ["field"], {"field": modality})
    blocks = sum(one.count for one in tracemalloc.take_snapshot().statistics("filename"))
    tracemalloc.stop()
    items = corpus.columns["field"].items.sum()
    assert items == 512 * 256
    assert blocks < items / 10
    documents = corpus.columns["field"].take(np.arange(512))
    assert (documents.ids.dtype, documents.ids.shape) == (np.uint32, (items, 3))
    back = modality.parts[0].digits(documents.ids).reshape(512, 16, 16, 2, 2, 3)
    np.testing.assert_array_equal(back.swapaxes(2, 3).reshape(photos.shape), photos)


def test_items_out_of_the_order_of_the_parts_are_refused() -> None:
    case = cases()["Picture of any size"]
    config = config_of(case)
    (items,) = case.modality.encode(case.signals[:1]).split()
    turned = Items(items.part[::-1], items.digits[::-1], items.counts)
    with pytest.raises(DataError, match="in the order of the parts"):
        segments_of(config.vocabulary, case.modality, Encoded("field", turned, np.zeros(1, int), np.zeros(1, int)))


# ---------------------------------------------------------------------- sources


class Table:
    """What `datasets.Dataset` offers, in memory."""

    def __init__(self, columns: dict[str, list[Any]]):
        self._columns = columns
        self.features = dict.fromkeys(columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, name: str) -> list[Any]:
        return self._columns[name]


def words(count: int = 40) -> list[dict[str, Any]]:
    """Records with a text, a speaker and a class."""
    return [{"text": f"word {k}", "speaker": f"s{k % 11}", "kind": k % 3} for k in range(count)]


SOURCES: dict[str, Callable[[], Source]] = {
    "Arrays, rows": lambda: Arrays({"text": Text()}, rows=words(), groups=("speaker",), label="kind"),
    "Arrays, columns": lambda: Arrays(
        {"photo": Picture("photo", 4, 4), "text": Text()},
        columns={"photo": np.arange(640, dtype=np.uint8).reshape(40, 4, 4), "text": [str(k) for k in range(40)]},
    ),
    "Generated": lambda: Generated({"text": Text()}, lambda: iter(words())),
    "HuggingFace": lambda: HuggingFace(
        {"text": Text()}, Table({name: [w[name] for w in words()] for name in words()[0]})
    ),
}
each_source = pytest.mark.parametrize("name", sorted(SOURCES))


@each_source
def test_records_are_read_at_random_and_always_alike(name: str) -> None:
    source = SOURCES[name]()
    source.check()
    assert source == SOURCES[name]()
    assert hash(source) == hash(SOURCES[name]())
    total = sum(source.excluded().values())
    for split in source.splits:
        records, again = source.records(split), SOURCES[name]().records(split)
        total += len(records)
        for place in reversed(range(len(records))):
            record = records[place]
            assert set(record) >= set(source.fields)
            assert all(same_signal(record[field], again[place][field]) for field in source.fields)
        labels = source.labels(split)
        assert labels is None or len(labels) == len(records)
    assert total == 40
    assert len(source.records(TRAIN)) > 20


@each_source
def test_a_source_has_fields_splits_and_a_configuration(name: str) -> None:
    source = SOURCES[name]()
    assert TRAIN in source.splits
    for field, modality in source.fields.items():
        modality.check(f"data.{field}")
    changed = dataclasses.replace(source, seed=7)
    assert changed != source
    assert changed.fields == source.fields
    assert isinstance(source.judges(), dict)
    assert source.small("somewhere").splits == source.splits


def test_an_error_of_this_package_says_field_value_rule_and_fix() -> None:
    error = OmnijaxError("data.seed", -1, "must be 0 or more", "use 0")
    assert str(error) == "data.seed = -1: must be 0 or more. Fix: use 0."
