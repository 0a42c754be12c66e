"""Stable prefix: what a vocabulary may become, and a trained model with it, without a change to what is there."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_data
from hypothesis import given, settings
from hypothesis import strategies as st

from omnijax import testing
from omnijax.config import BatchConfig, Config, MeshConfig, Task, Writing
from omnijax.config.writing import vocabulary_of
from omnijax.data.corpus import read_split
from omnijax.errors import CheckpointError, VocabularyError
from omnijax.experiment import load_experiment
from omnijax.modalities import Codes, Modality, Part, Picture, Text
from omnijax.model.transformer import ROWS_MULTIPLE, Transformer
from omnijax.run.directory import METRICS
from omnijax.run.start import start_state
from omnijax.source import TRAIN, Record, Source
from omnijax.step.sharding import make_mesh
from omnijax.step.state import State
from omnijax.train import train
from omnijax.vocab.assemble import assemble
from omnijax.vocab.assignment import Frequency, Gray, Hilbert, Random, Tree
from omnijax.vocab.decode import decode
from omnijax.vocab.documents import GENERAL, UNMARKED, Documents, Segment
from omnijax.vocab.encode import encode
from omnijax.vocab.growth import check_growth
from omnijax.vocab.ids import GeneralIds, PrimaryIds, SecondaryIds
from omnijax.vocab.vocabulary import END, Marker, Space, Vocabulary

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
pytestmark = pytest.mark.usefixtures("steps_kept")
OLD = Vocabulary(
    general=3,
    positions=8,
    digits=6,
    base=5,
    spaces=(Space("image", 20), Space("speech", 7)),
    control=("text", "image", "eos"),
)


def grown(old: Vocabulary = OLD, **changes: Any) -> Vocabulary:
    return dataclasses.replace(old, **changes)


def enlarged(old: Vocabulary, **changes: Any) -> Vocabulary:
    """With another last space."""
    return grown(old, spaces=(*old.spaces[:-1], dataclasses.replace(old.spaces[-1], **changes)))


def documents(v: Vocabulary, seed: int, count: int) -> list[list[Segment]]:
    """Random documents of segments of every sort."""
    random = np.random.default_rng(seed)
    markers = [index for index, name in enumerate(v.control) if name != END]
    sizes = np.array([*(space.size for space in v.spaces), v.general])
    found = []
    for _ in range(count):
        segments = []
        for number in range(random.integers(1, 4)):
            marker = UNMARKED if number == 0 or not markers else int(random.choice(markers))
            if number and marker == UNMARKED:
                break
            typed = 0 if marker == UNMARKED else int(v.contexts.of_control[marker])
            items = int(random.integers(1, 4))
            own = int(v.contexts.spaces[typed])
            spaces = np.sort(random.integers(GENERAL, len(v.spaces), items)) if own < 0 else np.full(items, own)
            segments.append(Segment(marker, spaces.astype(np.int32), random.integers(0, sizes[spaces])))
        found.append(segments)
    return found


def written(v: Vocabulary, documents: list[list[Segment]]) -> list[list[int]] | None:
    """Tokens of each document; None where the vocabulary can't write one of them."""
    try:
        return [part.array.tolist() for part in encode(v, Documents.of(documents)).split()]
    except VocabularyError:
        return None


def single_fragments(v: Vocabulary) -> list[list[Segment]]:
    """Documents that have one fragment, or one general token: all there are."""
    found = [[Segment(UNMARKED, np.array([GENERAL], np.int32), np.array([0]))]] if v.general else []
    openers = [UNMARKED, *(index for index, name in enumerate(v.control) if name != END)]
    for marker in openers:
        typed = 0 if marker == UNMARKED else int(v.contexts.of_control[marker])
        for index in range(len(v.spaces)) if typed == 0 else [int(v.contexts.spaces[typed])]:
            ids = range(v.spaces[index].size)
            found += [[Segment(marker, np.array([index], np.int32), np.array([id_]))] for id_ in ids]
    return found


ACCEPTED = {
    "as it was": grown(),
    "last space enlarged": enlarged(OLD, size=1000),
    "a space without a marker": grown(spaces=(*OLD.spaces, Space("touch", 50))),
    "a space with a marker": grown(spaces=(*OLD.spaces, Space("touch", 50)), control=(*OLD.control, "touch")),
    "a marker": grown(control=(*OLD.control, "video")),
    "a marker of an old space": grown(
        control=(*OLD.control, "painting", "caption"),
        markers=(Marker("painting", "image"), Marker("caption", "speech", general=True)),
    ),
    "both, and beyond 2^31": grown(
        spaces=(OLD.spaces[0], Space("speech", 8), Space("touch", 2**80)), control=(*OLD.control, "touch")
    ),
}
MIXED = grown(base=(6, 5))
FIXED = grown(width="fixed", spaces=(OLD.spaces[0], Space("speech", 7, capacity=100)), check_digit=True)
ACCEPTED_OF = {
    "a place in front": (MIXED, enlarged(grown(MIXED, base=(6, 6, 5)), size=40)),
    "a position in front of it, little": (
        grown(MIXED, digit_order="little", position="before"),
        enlarged(grown(MIXED, digit_order="little", position="before", base=(6, 6, 5)), size=40),
    ),
    "fixed width with capacity": (FIXED, enlarged(FIXED, size=100)),
    "fixed width, a space where there is room": (FIXED, grown(FIXED, spaces=(*FIXED.spaces, Space("touch", 98)))),
    "a table goes on": (
        enlarged(OLD, size=4, assignment=Frequency.of([1, 5, 2, 7])),
        enlarged(OLD, size=9, assignment=Frequency.of([1, 5, 2, 7]).grown(9)),
    ),
    "assignments before the last space": (
        grown(spaces=(Space("image", 27, assignment=Random(key=1)), Space("speech", 7))),
        grown(spaces=(Space("image", 27, assignment=Random(key=1)), Space("speech", 70))),
    ),
}
PAIRS = {name: (OLD, new) for name, new in ACCEPTED.items()} | ACCEPTED_OF


@pytest.mark.parametrize("name", PAIRS)
def test_what_grows_keeps_every_encoding(name: str) -> None:
    old, new = PAIRS[name]
    check_growth(old, new)
    everything = [*single_fragments(old), *documents(old, 0, 50)]
    assert written(old, everything) == written(new, everything) is not None


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a space with a marker", marks=pytest.mark.proof),
        "both, and beyond 2^31",
        "fixed width with capacity",
    ],
)
def test_what_grows_reads_what_was_written(name: str) -> None:
    old, new = PAIRS[name]
    encoded = encode(old, Documents.of(documents(old, 1, 30)))
    rows = np.zeros((30, int(encoded.document_tokens.max())), np.int32)
    for row, part in zip(rows, encoded.split(), strict=True):
        row[: part.array.size] = part.array
    before, after = (assemble(v, decode(v, PrimaryIds(rows))) for v in (old, new))
    for [one], [other] in zip(before, after, strict=True):
        assert [(s.marker, s.spaces.tolist()) for s in one] == [(s.marker, s.spaces.tolist()) for s in other]
        for left, right in zip(one, other, strict=True):
            low = right.ids if right.ids.ndim == 1 else right.ids[:, 0].astype(np.int64)
            assert left.ids.tolist() == low.tolist()
            assert right.ids.ndim == 1 or not right.ids[:, 1:].any()


GRAY_18 = enlarged(OLD, size=18, assignment=Gray())
REFUSED = {
    "general tokens": (OLD, grown(general=4), "general"),
    "position tokens": (OLD, grown(positions=9), "positions"),
    "digit tokens": (OLD, grown(digits=7), "digits"),
    "base": (OLD, grown(base=4), "base"),
    "a place behind": (MIXED, grown(MIXED, base=(6, 5, 5)), "base"),
    "layout": (OLD, grown(layout="inline"), "layout"),
    "position": (OLD, grown(position="before"), "position"),
    "width": (OLD, grown(width="fixed"), "width"),
    "digit order": (OLD, grown(digit_order="little"), "digit_order"),
    "position places": (OLD, grown(position_places=2), "position_places"),
    "check digit": (OLD, grown(check_digit=True), "check_digit"),
    "a larger radix to check": (
        grown(check_digit=True, base=(2, 5, 5)),
        grown(check_digit=True, base=(6, 2, 5, 5)),
        "base",
    ),
    "a marker inserted": (OLD, grown(control=("text", "video", "image", "eos")), "control"),
    "a marker taken away": (OLD, grown(control=("text", "image")), "control"),
    "eos appended": (grown(control=("text", "image")), grown(control=("text", "image", "eos")), "control"),
    "a space inserted": (OLD, grown(spaces=(OLD.spaces[0], Space("touch", 2), OLD.spaces[1])), "spaces"),
    "a space taken away": (OLD, grown(spaces=OLD.spaces[:1]), "spaces"),
    "a space before the last": (OLD, grown(spaces=(Space("image", 21), OLD.spaces[1])), "spaces.image.size"),
    "a smaller space": (OLD, enlarged(OLD, size=6), "spaces.speech.size"),
    "a name that opens segments": (OLD, grown(spaces=(*OLD.spaces, Space("text", 9))), "spaces"),
    "a marker that opens another space": (
        grown(control=("a",), markers=(Marker("a", "image"),)),
        grown(control=("a",), markers=(Marker("a", "speech"),)),
        "markers",
    ),
    "a marker that lets general tokens in": (OLD, grown(markers=(Marker("image", "image", general=True),)), "markers"),
    "one digit more": (
        grown(width="fixed", control=("speech",)),
        enlarged(grown(width="fixed", control=("speech",)), size=26),
        "spaces.speech",
    ),
    "one digit more where there is no marker": (
        grown(width="fixed", spaces=(Space("speech", 5),), control=("speech",)),
        grown(width="fixed", spaces=(Space("speech", 5), Space("touch", 1)), control=("speech",)),
        "spaces",
    ),
    "no room for another space": (FIXED, grown(FIXED, spaces=(*FIXED.spaces, Space("touch", 99))), "spaces"),
    "no capacity any more": (
        grown(FIXED, control=("speech",)),
        enlarged(grown(FIXED, control=("speech",)), capacity=0),
        "spaces.speech",
    ),
    "a shuffle": (OLD, enlarged(OLD, assignment=Random(key=1)), "spaces.speech.assignment"),
    "a larger shuffle": (
        enlarged(OLD, assignment=Random(key=1)),
        enlarged(OLD, size=70, assignment=Random(key=1)),
        "spaces.speech.assignment",
    ),
    "a larger curve": (
        enlarged(OLD, size=16, assignment=Hilbert(sides=(4, 4))),
        enlarged(OLD, size=64, assignment=Hilbert(sides=(8, 8))),
        "spaces.speech.assignment",
    ),
    "a larger Gray code": (GRAY_18, enlarged(GRAY_18, size=125), "spaces.speech.assignment"),
    "another table": (
        enlarged(OLD, size=4, assignment=Frequency.of([1, 5, 2, 7])),
        enlarged(OLD, size=5, assignment=Frequency.of([1, 5, 2, 7, 9])),
        "spaces.speech.assignment",
    ),
    "another tree": (
        enlarged(OLD, size=25, assignment=Tree.of(np.eye(25), 5)),
        enlarged(OLD, size=25, assignment=Tree.of(np.eye(25)[::-1], 5)),
        "spaces.speech.assignment",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_written_otherwise_is_refused(name: str) -> None:
    old, new, field = REFUSED[name]
    with pytest.raises(VocabularyError) as caught:
        check_growth(old, new)
    assert caught.value.field == f"vocabulary.{field}"
    assert caught.value.fix
    assert written(old, single_fragments(old)) not in (None, written(new, single_fragments(old)))


def test_a_refusal_says_what_would_change() -> None:
    def rule(name: str) -> str:
        old, new, _ = REFUSED[name]
        with pytest.raises(VocabularyError) as caught:
            check_growth(old, new)
        return caught.value.rule

    assert "it was 3" in rule("general tokens")
    assert "the first 3 were text, image, eos" in rule("a marker inserted")
    assert "it was 20, and the fragments of the spaces behind it" in rule("a space before the last")
    assert "fragments of speech are written with 3 digits, and would be with 2" in rule("no capacity any more")


def test_names_of_general_tokens_are_part_of_what_they_mean() -> None:
    with pytest.raises(VocabularyError, match="general_names"):
        check_growth(grown(general_names=("A", "B", "C")), grown(general_names=("A", "C", "B")))


WAYS = st.fixed_dictionaries(
    {
        "layout": st.sampled_from(["grouped", "inline"]),
        "position": st.sampled_from(["after", "before", "none"]),
        "width": st.sampled_from(["minimal", "fixed"]),
        "digit_order": st.sampled_from(["big", "little"]),
        "position_places": st.integers(1, 2),
        "check_digit": st.booleans(),
        "base": st.sampled_from([2, 5, (3, 2, 5, 4, 5), (2, 5)]),
        "control": st.sampled_from([("a", "eos"), ("m", "a", "b"), ("b", "m")]),
    }
)
KINDS = st.sampled_from(["identity", "identity", "gray", "random"])


def _space(data: Any, name: str, most: int) -> Space:
    kind = data.draw(KINDS)
    assignment = {"gray": Gray(), "random": Random(key=1)}.get(kind, Space(name, 1).assignment)
    return Space(name, data.draw(st.integers(1, most)), assignment=assignment)


@settings(max_examples=250, deadline=None)
@given(way=WAYS, data=st.data())
def test_growth_is_accepted_where_and_only_where_nothing_changes(way: dict[str, Any], data: Any) -> None:
    def attempt(spaces: tuple[Space, ...], **changes: Any) -> Vocabulary | None:
        try:
            return Vocabulary(general=2, positions=4, digits=5, spaces=spaces, **(way | changes))
        except VocabularyError:
            return None

    spaces = (_space(data, "a", 30), _space(data, "b", 30))
    if way["width"] == "fixed":
        spaces = (spaces[0], dataclasses.replace(spaces[1], capacity=data.draw(st.sampled_from([0, 30, 60]))))
    last = dataclasses.replace(spaces[1], size=data.draw(st.integers(1, 30)))
    last = data.draw(st.sampled_from([spaces[1], last]))
    more = (_space(data, data.draw(st.sampled_from(["c", "m"])), 20),) if data.draw(st.booleans()) else ()
    added = data.draw(st.sampled_from([(), ("c",), ("eos",), ("n",)]))
    front = (5,) if isinstance(way["base"], tuple) and data.draw(st.booleans()) else ()
    base = (*front, *way["base"]) if front else way["base"]
    old = attempt(spaces)
    new = attempt((spaces[0], last, *more), control=(*way["control"], *added), base=base)
    if old is None or new is None:
        return
    everything = [*single_fragments(old), *documents(old, 0, 20)]
    before = written(old, everything)
    assert before is not None
    try:
        check_growth(old, new)
    except VocabularyError as error:
        if error.value not in ("random", "gray"):  # a larger space may give the old ids the same numbers by chance
            assert written(new, everything) != before
    else:
        assert written(new, everything) == before


# ---------------------------------------------------------------------------------------------------- a trained model


@dataclasses.dataclass(frozen=True)
class Alphabet(testing.Letters):
    """45 general tokens make 64 tokens in all: the next one takes the embedding beyond the rows it is padded to."""

    general: ClassVar[int] = 45


@dataclasses.dataclass(frozen=True)
class Roomy(Codes):
    """Codes whose space has room for more fragments (`capacity`)."""

    capacity: int = 0

    @property
    def parts(self) -> tuple[Part, ...]:
        return (dataclasses.replace(super().parts[0], capacity=self.capacity),)


SENSES = (Alphabet(), Codes("image", (100,), most=7), Roomy("speech", (20,), most=7, capacity=200))


@dataclasses.dataclass(frozen=True)
class Senses(Source):
    """Random records: a field for each modality, and fields that share the modality of another one."""

    modalities: tuple[Modality, ...] = SENSES
    echoes: tuple[str, ...] = ()

    @property
    def fields(self) -> Mapping[str, Modality]:
        own = {modality.name: modality for modality in self.modalities}
        return own | dict.fromkeys(self.echoes, own["speech"])

    def records(self, split: str) -> list[Record]:
        random = np.random.default_rng((self.seed, self.splits.index(split)))

        def signal(modality: Modality) -> np.ndarray:
            sizes = [part.fragments for part in modality.parts] or [modality.general]
            items = random.integers(0, sizes[0], random.integers(1, 8))
            return items[:, None] if modality.parts else items

        return [{name: signal(modality) for name, modality in self.fields.items()} for _ in range(200)]


TASKS = (Task(("image", "text"), weights=(1.0, 1.0)), Task(("text", "speech"), weights=(1.0, 1.0)))
MORE_TASKS = (
    *TASKS,
    Task(("touch", "image"), weights=(1.0, 1.0), repeats=2),
    Task(("echo", "text"), weights=(1.0, 1.0)),
)
TOUCHED = Senses(modalities=(*SENSES, Codes("touch", (60,), most=7)), echoes=("echo",))


def with_senses(config: Config, data: Senses, tasks: tuple[Task, ...], **changes: Any) -> Config:
    small = testing.shrink(config, pathlib.Path("unused"))
    return Config(
        data,
        BatchConfig(tasks, size=8, sequence_length=72),
        dataclasses.replace(small.model, depth=1),
        Writing(base=5, positions=8, t_pad=False),
        small.optim,
        dataclasses.replace(small.train, steps=30, **changes),
    )


@pytest.fixture(scope="module")
def old_config() -> Config:
    return with_senses(load_experiment(DIGITS), Senses(), TASKS)


@pytest.fixture(scope="module")
def old_run(old_config: Config, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    run = tmp_path_factory.mktemp("old") / "run"
    train(old_config, run)
    return run


@pytest.fixture(scope="module")
def old_params(old_config: Config, old_run: pathlib.Path) -> Any:
    """As the checkpoint has them, padding rows included."""
    return jax.device_get(train(old_config, old_run).state.params)  # it is finished: nothing but restored


@pytest.fixture(scope="module")
def new_config(old_config: Config, old_run: pathlib.Path) -> Config:
    return with_senses(old_config, TOUCHED, MORE_TASKS, start_from=str(old_run))


def test_a_field_and_a_modality_appended_to_a_source_move_no_token(old_config: Config, new_config: Config) -> None:
    old, new = old_config.vocabulary, new_config.vocabulary
    check_growth(old, new)
    assert new.symbols()[: old.size] == old.symbols()
    assert {"touch", "echo"} <= set(new.control) - set(old.control)
    everything = [*single_fragments(old), *documents(old, 0, 50)]
    assert written(old, everything) == written(new, everything) is not None
    fields = tuple(old_config.data.fields)
    read = [read_split(config, TRAIN, fields).corpus() for config in (old_config, new_config)]
    assert set(read[1].columns) == set(fields)


def test_parts_of_a_modality_stay_where_they_are_when_a_field_is_appended() -> None:
    """The size of a variable picture is a header: a part with its own marker."""
    pictures, sound = Picture("photo", patch=1, levels=4, variable=True), Codes("sound", (50,))
    few = {"caption": Text(), "photo": pictures}
    writing = Writing(base=256, positions=64)
    for more in ({"second": pictures}, {"sound": sound}, {"second": pictures, "sound": sound}):
        old, new = vocabulary_of(writing, few), vocabulary_of(writing, few | more)
        assert new.symbols()[: old.size] == old.symbols()
        check_growth(old, new)


def begun(config: Config, mesh: MeshConfig | None = None) -> State:
    model = Transformer(config.model, config.vocabulary.size)
    return start_state(config, model, make_mesh(mesh or config.mesh))


@pytest.fixture(scope="module")
def state(new_config: Config) -> State:
    """What the new run begins with."""
    return begun(new_config)


def test_every_old_parameter_is_there_bit_for_bit(
    old_config: Config, old_params: Any, new_config: Config, state: State
) -> None:
    params, old, new = jax.device_get(state.params), old_config.vocabulary.size, new_config.vocabulary.size
    assert (old, new) == (ROWS_MULTIPLE, ROWS_MULTIPLE + 2)
    assert params["ends"]["embed"].shape[0] == 2 * ROWS_MULTIPLE
    np.testing.assert_array_equal(params["ends"]["embed"][:old], old_params["ends"]["embed"][:old])
    np.testing.assert_array_equal(params["ends"]["head"][:, :old], old_params["ends"]["head"][:, :old])
    rest, old_rest = ({**tree, "ends": tree["ends"]["norm"]} for tree in (params, old_params))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, rest, old_rest)))
    fresh = begun(dataclasses.replace(new_config, train=dataclasses.replace(new_config.train, start_from="")))
    for name, rows in (("embed", np.s_[old:]), ("head", np.s_[:, old:])):
        np.testing.assert_array_equal(params["ends"][name][rows], jax.device_get(fresh.params["ends"][name])[rows])
    assert int(state.step) == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(jax.device_get(state.opt_state)))


def test_padding_of_the_old_embedding_is_no_parameter_of_a_new_token(old_config: Config, old_params: Any) -> None:
    """Where the new tokens find room among the rows of padding."""
    model = Transformer(old_config.model, 40)
    shapes = jax.eval_shape(model.init, jax.random.key(5))
    fresh = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 7.0), shapes)
    grown_ = model.grown(old_params, 30, fresh)["ends"]
    np.testing.assert_array_equal(grown_["embed"][:30], old_params["ends"]["embed"][:30])
    np.testing.assert_array_equal(grown_["embed"][30:], fresh["ends"]["embed"][30:])
    np.testing.assert_array_equal(grown_["head"][:, 30:], fresh["ends"]["head"][:, 30:])


def test_what_the_model_says_of_old_tokens_is_what_it_said(
    old_config: Config, old_params: Any, new_config: Config, state: State
) -> None:
    old, new = old_config.vocabulary, new_config.vocabulary
    batch = random_data.batches_of(random_data.random_corpus(old, 50, 7, seed=3), old_config.batch)[0]

    def logits(v: Vocabulary, params: Any) -> np.ndarray:
        model = Transformer(old_config.model, v.size)
        return np.asarray(jax.jit(model)(params, batch["tokens"], batch["positions"], batch["documents"]))

    before, after = logits(old, old_params), logits(new, jax.device_get(state.params))
    assert after.shape[-1] == before.shape[-1] + 2
    np.testing.assert_allclose(after[..., : old.size], before, rtol=0, atol=1e-6)
    assert np.abs(before).max() > 1


def test_it_begins_on_any_mesh(new_config: Config, state: State) -> None:
    other = begun(new_config, MeshConfig(2, 2, 1, 2))
    assert other.params["ends"]["embed"].sharding.spec == jax.sharding.PartitionSpec(None, "fsdp")
    for left, right in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


def losses(run: pathlib.Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / METRICS).read_text().splitlines()]


def test_it_goes_on_training_with_the_new_space(
    old_run: pathlib.Path, new_config: Config, tmp_path: pathlib.Path
) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in old_run.rglob("*"))
    outcome = train(new_config, tmp_path / "new")
    assert outcome.step == 30
    found = losses(tmp_path / "new")
    assert found[0] < 0.8 * np.log(new_config.vocabulary.size)  # it knows what it was taught before
    assert np.mean(found[-5:]) < 0.9 * np.mean(found[:3])
    assert sorted((path, path.stat().st_mtime_ns) for path in old_run.rglob("*")) == before
    again = train(new_config, tmp_path / "new")  # from its own checkpoint, not from the other run
    for left, right in zip(jax.tree.leaves(outcome.state), jax.tree.leaves(again.state), strict=True):
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


@pytest.mark.parametrize(
    "data, rule",
    [
        (
            Senses(modalities=(*SENSES[:2], Roomy("speech", (20,), most=7, capacity=10**6))),
            "fragments of speech are written with",
        ),
        (
            Senses(modalities=(SENSES[0], Codes("touch", (60,)), *SENSES[1:])),
            "the first 4 were eos, text, image, speech",
        ),
        (Senses(modalities=(testing.Letters(), *SENSES[1:])), "it was 45"),
    ],
    ids=["more digits", "a field in between", "fewer general tokens"],
)
def test_a_wrong_growth_leaves_nothing_behind(
    new_config: Config, tmp_path: pathlib.Path, data: Senses, rule: str
) -> None:
    wrong = dataclasses.replace(new_config, data=data, batch=dataclasses.replace(new_config.batch, tasks=TASKS))
    with pytest.raises(CheckpointError, match=rule) as caught:
        train(wrong, tmp_path / "run")
    assert caught.value.field == "train.start_from"
    assert not (tmp_path / "run").exists()


def test_a_run_that_can_not_be_begun_from_is_refused(
    new_config: Config, old_run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    def refused(config: Config) -> str:
        with pytest.raises(CheckpointError) as caught:
            train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return str(caught.value)

    def start_from(run: pathlib.Path) -> Config:
        return dataclasses.replace(new_config, train=dataclasses.replace(new_config.train, start_from=str(run)))

    assert "config.json" in refused(start_from(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text((old_run / "config.json").read_text())
    assert "no checkpoint yet" in refused(start_from(tmp_path / "empty"))
    wider = dataclasses.replace(new_config, model=dataclasses.replace(new_config.model, width=48))
    assert "use the model of the run" in refused(wider)


def test_growth_without_the_number_line() -> None:
    """Where untyped segments hold no fragments, any space can grow, and a new one can have more digits."""
    small = Vocabulary(
        positions=9,
        digits=256,
        base=256,
        spaces=(Space("piece", 300), Space("code", 200)),
        control=("bytes", "caption", "code", "eos"),
        markers=(Marker("caption", "piece", general=True),),
        width="fixed",
    )
    spaces = (Space("piece", 2**16), small.spaces[1], Space("patch", 2**96))
    control, markers = (*small.control, "photo"), (*small.markers, Marker("photo", "patch"))
    large = dataclasses.replace(small, spaces=spaces, control=control, markers=markers)
    with pytest.raises(VocabularyError):
        check_growth(small, large)
    check_growth(small, large, number_line=False)
    text = Segment.of(small, "bytes", GeneralIds(np.arange(5)))
    caption = Segment.of(small, "caption", GeneralIds(np.arange(2)), SecondaryIds("piece", np.arange(297, 300)))
    code = Segment.of(small, "code", SecondaryIds("code", np.array([199])))
    assert written(small, [[text, caption, code]]) == written(large, [[text, caption, code]])
    wider = dataclasses.replace(large, spaces=(Space("piece", 2**16 + 1), *spaces[1:]))
    with pytest.raises(VocabularyError, match=r"spaces\.piece"):
        check_growth(small, wider, number_line=False)
