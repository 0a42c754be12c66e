"""What a base costs: against documents that are really encoded, and against what the compiler counts."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from jaxtyping import Array

from omnijax.config import Config, ModelConfig, Task, Writing
from omnijax.errors import ConfigError, VocabularyError
from omnijax.experiment import load_experiment
from omnijax.modalities import Codes, Modality, Picture, Text
from omnijax.model.flops import TRAINING, backbone_flops, head_flops, row_flops
from omnijax.model.groups import Grouping
from omnijax.model.items import ItemTransformer
from omnijax.model.transformer import Transformer
from omnijax.plan.cost import Cost, Costs, compare_bases, parse_base, to_dict
from omnijax.plan.table import print_costs
from omnijax.source import Source
from omnijax.vocab.cost import (
    Count,
    document_tokens,
    item_digits,
    item_tokens,
    position_tokens,
    rebased,
    segment_tokens,
)
from omnijax.vocab.documents import Documents, Segment
from omnijax.vocab.encode import encode
from omnijax.vocab.ids import GeneralIds, SecondaryIds
from omnijax.vocab.radix import Base, width_of
from omnijax.vocab.vocabulary import Space, Vocabulary

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
pytestmark = pytest.mark.usefixtures("optimised")
BASES: tuple[Base, ...] = (2, 5, 9, 100, (4, 5, 9))
VOCABULARY = Vocabulary(
    general=8,
    positions=8,
    digits=9,
    base=9,
    spaces=(Space("t_pad", 1), Space("image", 120), Space("speech", 20)),
    control=("text", "image", "speech", "eos"),
)


def vocabularies() -> list[Vocabulary]:
    """Every way of writing that changes the number of tokens, as far as it can be read back, in several bases."""
    options = itertools.product(
        ("grouped", "inline"), ("after", "before", "none"), ("minimal", "fixed"), (1, 2), (False, True), (False, True)
    )
    found = []
    for layout, position, width, places, check, end in options:
        if position == "none" and (width == "minimal" or places > 1):
            continue
        parts = {"layout": layout, "position": position, "width": width, "position_places": places}
        control = VOCABULARY.control if end else VOCABULARY.control[:-1]
        found.append(dataclasses.replace(VOCABULARY, **parts, check_digit=check, control=control))
    return found


def segment(vocabulary: Vocabulary, name: str, ids: list[int] | np.ndarray) -> Segment:
    numbers = np.asarray(ids, np.int64)
    return Segment.of(vocabulary, name, GeneralIds(numbers) if name == "text" else SecondaryIds(name, numbers))


# ---------------------------------------------------------------------- tokens


@pytest.mark.parametrize("base", BASES, ids=str)
def test_tokens_are_those_of_encoded_documents(base: Base) -> None:
    """Smallest and largest ids give the least and the most tokens, random ones lie between."""
    random = np.random.default_rng(0)
    sizes = {"text": VOCABULARY.general, "image": 120, "speech": 20}
    for vocabulary in (rebased(v, base) for v in vocabularies()):
        items = {name: Count(1, 3, 5) for name in sizes}
        segments = {name: segment_tokens(vocabulary, name, count) for name, count in items.items()}
        names = ("image", "text", "speech")
        predicted = document_tokens(vocabulary, [segments[name] for name in names])
        documents = [
            [segment(vocabulary, name, [0] * items[name].least) for name in names],
            [segment(vocabulary, name, [sizes[name] - 1] * items[name].most) for name in names],
            *([segment(vocabulary, n, random.integers(0, sizes[n], random.integers(1, 6))) for n in names],) * 20,
        ]
        encoded = encode(vocabulary, Documents.of(documents))
        assert encoded.document_tokens[0] == predicted.least, vocabulary
        assert encoded.document_tokens[1] == predicted.most, vocabulary
        assert (encoded.document_tokens >= predicted.least).all()
        assert (encoded.document_tokens <= predicted.most).all()
        ends = np.array([0, 0, int(vocabulary.end is not None)])
        by_segment = encoded.segment_tokens.reshape(-1, 3) - ends
        assert by_segment[0].tolist() == [segments[name].least for name in names], vocabulary
        assert by_segment[1].tolist() == [segments[name].most for name in names], vocabulary


@pytest.mark.parametrize("base", BASES, ids=str)
def test_means_are_those_over_all_ids(base: Base) -> None:
    for vocabulary in (rebased(v, base) for v in vocabularies()):
        for name, size in (("image", 120), ("speech", 20)):
            every = [[segment(vocabulary, name, [number])] for number in range(size)]
            tokens = encode(vocabulary, Documents.of(every)).document_tokens
            predicted = document_tokens(vocabulary, [segment_tokens(vocabulary, name, Count(1, 1, 1))])
            assert predicted == Count(tokens.min(), pytest.approx(tokens.mean(), rel=1e-12), tokens.max()), vocabulary


@pytest.mark.parametrize("width", ["minimal", "fixed"])
@pytest.mark.parametrize("base", BASES, ids=str)
def test_fragments_without_a_marker_are_counted_on_the_number_line(base: Base, width: str) -> None:
    vocabulary = dataclasses.replace(VOCABULARY, control=("eos",), width=width)
    vocabulary = rebased(vocabulary, base)
    for space in vocabulary.spaces:
        every = [[Segment.of(vocabulary, None, SecondaryIds(space.name, np.array([n])))] for n in range(space.size)]
        tokens = encode(vocabulary, Documents.of(every)).document_tokens - 2  # aos, eos
        predicted = item_tokens(vocabulary, space.name)
        assert predicted == Count(tokens.min(), pytest.approx(tokens.mean()), tokens.max()), space


def test_position_tokens_are_the_fewest_that_reach() -> None:
    """Against all numbers of places and tokens, by trial."""
    for items in [*range(70), 255, 256, 1023, 65535, 65536, 2**40]:
        positions, places = position_tokens(items)
        assert 2 <= positions <= 256
        assert positions**places - 1 >= items
        assert places == 1 or 256 ** (places - 1) - 1 < items
        assert positions == 2 or (positions - 1) ** places - 1 < items


def test_a_general_token_is_one_token() -> None:
    assert item_tokens(VOCABULARY, None) == Count(1, 1, 1)
    assert segment_tokens(VOCABULARY, "text", Count(2, 3, 4)) == Count(4, 5, 6)


@pytest.mark.parametrize("base", [2, 9, 17, 1000, (2**16,) * 16], ids=str)
def test_spaces_without_bounds_are_counted_exactly(base: Base) -> None:
    vocabulary = Vocabulary(positions=2, digits=2**16, base=base, spaces=(Space("patch", 2**256),), control=("patch",))
    most = width_of(2**256 - 1, base)
    radices = base if isinstance(base, tuple) else (base,) * most
    reaches = [math.prod(radices[len(radices) - k :]) for k in range(1, most)]
    expected = most - sum(reaches) / 2**256
    assert item_digits(vocabulary, "patch") == Count(1, pytest.approx(expected, rel=1e-12), most)
    fixed = dataclasses.replace(vocabulary, width="fixed")
    assert item_digits(fixed, "patch") == Count(most, most, most)


def test_another_base_has_the_digit_tokens_that_it_needs() -> None:
    vocabulary = dataclasses.replace(VOCABULARY, digits=12)
    assert rebased(vocabulary, 9) is vocabulary
    assert rebased(vocabulary, 10) == dataclasses.replace(vocabulary, base=10, digits=10)
    assert rebased(vocabulary, (2, 30, 4)) == dataclasses.replace(vocabulary, base=(2, 30, 4), digits=30)


def test_what_can_not_be_written_is_refused() -> None:
    refused = {
        "vocabulary.base": lambda: rebased(VOCABULARY, (2, 3)),
        "vocabulary.digits": lambda: rebased(VOCABULARY, 1),
        "control": lambda: segment_tokens(VOCABULARY, "video", Count(1, 1, 1)),
        "space": lambda: item_digits(VOCABULARY, "video"),
        "items of a segment of image": lambda: segment_tokens(VOCABULARY, "image", Count(1, 4, 8)),
    }
    for field, attempt in refused.items():
        with pytest.raises(VocabularyError) as caught:
            attempt()
        assert caught.value.field == field
    assert segment_tokens(VOCABULARY, "text", Count(1, 4, 8)).most == 10  # general tokens have no positions


# ---------------------------------------------------------------------- FLOPs


def product_flops(jaxpr: Any) -> int:
    """Two for each multiplication of every matrix product in a program, those in loops as often as they run."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda part: hasattr(part, "eqns")):
            if hasattr(inner := getattr(part, "jaxpr", part), "eqns"):
                total += equation.params.get("length", 1) * product_flops(inner)
    return total


SHAPES = {
    "demo": (ModelConfig(depth=2, width=128, heads=4, kv_heads=2, head_size=32, mlp_width=320, unroll=2), 311, 95),
    "wide head": (ModelConfig(depth=1, width=96, heads=6, kv_heads=6, head_size=16, mlp_width=200), 1300, 40),
    "long": (ModelConfig(depth=1, width=128, heads=4, kv_heads=1, head_size=64, mlp_width=256), 64, 300),
}


def forward(model: ModelConfig, tokens: int, length: int, rows: int = 2) -> tuple[Transformer, list]:
    """A model that attends in whole squares, as FLOPs are counted, and the shapes of its arguments."""
    transformer = Transformer(dataclasses.replace(model, attention="reference"), tokens)
    inputs = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    return transformer, [jax.eval_shape(transformer.init, jax.random.key(0)), inputs, inputs, inputs]


def xla_flops(function: Callable[..., Array], arguments: list, compiled: bool) -> float:
    """By XLA; it counts the body of a loop once, so that layers have to be unrolled."""
    program: Any = jax.jit(function).lower(*arguments)
    if compiled:  # without the passes of LLVM, which take long and change no count
        program = program.compile({"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True})
    return program.cost_analysis()["flops"]


@pytest.mark.parametrize("name", SHAPES)
def test_forward_flops_are_those_of_the_matrix_products_and_near_what_xla_counts(name: str) -> None:
    """XLA also counts norms, rotations, masks and softmax: never less, and at most 5 % more."""
    model, tokens, length = SHAPES[name]
    transformer, arguments = forward(model, tokens, length)
    padded = arguments[0]["ends"]["head"].shape[1]
    predicted = 2 * row_flops(model, padded, length)
    assert product_flops(jax.make_jaxpr(transformer.__call__)(*arguments).jaxpr) == predicted
    assert predicted <= xla_flops(transformer.__call__, arguments, compiled=True) <= 1.05 * predicted


def test_training_flops_are_three_times_as_many() -> None:
    model, tokens, length = SHAPES["demo"]
    transformer, arguments = forward(model, tokens, length)
    predicted = TRAINING * 2 * row_flops(model, arguments[0]["ends"]["head"].shape[1], length)

    def loss(*arguments) -> Array:
        return jax.nn.log_softmax(transformer(*arguments)).mean()

    assert product_flops(jax.make_jaxpr(jax.grad(loss))(*arguments).jaxpr) == predicted
    assert predicted <= xla_flops(jax.grad(loss), arguments, compiled=False) <= 1.05 * predicted


def test_row_flops_are_those_of_a_model_that_steps_once_an_item() -> None:
    shape = ModelConfig(head="depth", head_depth=2, depth=2, width=128, mlp_width=320, unroll=2, attention="reference")
    model = ItemTransformer(shape, 311, Grouping(257, 300, (5, 5, 3)))
    params = jax.eval_shape(model.init, jax.random.key(0))
    inputs = [jax.ShapeDtypeStruct((2, 95), jnp.int32)] * 3

    def logits(params: Any, *inputs: Array) -> Array:
        return model(params, *inputs, most_items=30)

    predicted = 2 * row_flops(shape, params["ends"]["head"].shape[1], 95, items=30, places=5)
    assert product_flops(jax.make_jaxpr(logits)(params, *inputs).jaxpr) == predicted
    token = dataclasses.replace(shape, head="token")
    assert row_flops(token, 320, 95) == 95 * (backbone_flops(token, 95) + head_flops(token, 320))


# ---------------------------------------------------------------------- an experiment


@dataclasses.dataclass(frozen=True)
class Shown(Source):
    """The fields of the demo, whatever becomes of those."""

    @property
    def fields(self) -> Mapping[str, Modality]:
        picture, sound = Picture("image", height=8, width=8, levels=17), Codes("speech", (289,), least=1, most=30)
        return {"text": Text(least=3, most=5), "image": picture, "speech": sound}


@pytest.fixture(scope="module")
def config() -> Config:
    """Like the shipped demo, and not changed by what is found out about that one."""
    shipped = load_experiment(DIGITS)
    tasks = (
        Task(("image/moved", "text"), weights=(1.0, 20.0), repeats=2),
        Task(("speech", "text"), weights=(1.0, 20.0)),
        Task(("text", "speech"), weights=(0.1, 1.0)),
    )
    return dataclasses.replace(
        shipped,
        data=Shown(),
        writing=Writing(base=17, positions=32),
        batch=dataclasses.replace(shipped.batch, tasks=tasks, size=24, sequence_length=96),
        model=ModelConfig(depth=4, width=128, heads=4, kv_heads=2, head_size=32, mlp_width=320, unroll=4),
    )


@pytest.fixture(scope="module")
def costs(config: Config) -> Costs:
    return compare_bases(config, [(4, 64, 4096), (17, 17)])


def cost(costs: Costs, base: Base) -> Cost:
    return costs.costs[base]


def test_a_cost_is_what_one_reckons_by_hand(config: Config, costs: Costs) -> None:
    own = cost(costs, 17)
    assert own.digits == {"image": Count(4, 4, 4), "speech": Count(2, 2, 2)}
    assert own.steps["image"] == Count(5, 5, 5)
    assert own.segments == {"image": Count(82, 82, 82), "text": Count(5, 6, 7), "speech": Count(5, 48.5, 92)}
    assert own.documents["image->text"] == Count(88, 89, 90)
    assert own.documents["text->speech"] == Count(11, 55.5, 100)
    assert own.longest == 100
    layer = 2 * 128 * 32 * 12 + 4 * 4 * 32 * 95 + 6 * 128 * 320
    assert own.item_flops["image"] == 5 * (4 * layer + 2 * 128 * 320)
    assert own.document_flops["image->text"] == 89 * (4 * layer + 2 * 128 * 320)
    assert own.training_flops == 3 * (2 * 89 + 2 * 55.5) / 4 * (4 * layer + 2 * 128 * 320)
    assert (own.softmax_rows, own.padded_rows, own.sequence_length) == (311, 320, 96)
    assert own.logits_bytes == 24 * 95 * 320 * 4


def test_rows_and_logits_are_what_the_model_allocates(config: Config, costs: Costs) -> None:
    for base in (17, 289, 4096):
        vocabulary = rebased(config.vocabulary, base)
        transformer, arguments = forward(
            config.model, vocabulary.size, config.batch.sequence_length - 1, config.batch.size
        )
        assert cost(costs, base).softmax_rows == vocabulary.size
        assert cost(costs, base).padded_rows == arguments[0]["ends"]["head"].shape[1]
        products = [
            e for e in jax.make_jaxpr(transformer.__call__)(*arguments).eqns if e.primitive.name == "dot_general"
        ]
        logits = products[-1].outvars[0].aval
        assert cost(costs, base).logits_bytes == logits.size * logits.dtype.itemsize


def test_micro_batches_share_the_memory(config: Config, costs: Costs) -> None:
    halves = dataclasses.replace(config, optim=dataclasses.replace(config.optim, accumulate=2))
    assert 2 * cost(compare_bases(halves), 17).logits_bytes == cost(costs, 17).logits_bytes


def test_the_cheapest_base_has_the_fewest_training_flops(costs: Costs) -> None:
    possible = [base for base, one in costs.costs.items() if one.sequence_length == 96]
    assert costs.cheapest == min(possible, key=lambda base: cost(costs, base).training_flops) == 289


def test_bases_that_can_not_be_are_listed_with_the_reason(config: Config, costs: Costs) -> None:
    assert (17, 17) not in costs.costs
    assert "its digits write 289 ids" in costs.refused[(17, 17)]
    assert cost(costs, 16).sequence_length == cost(costs, 16).longest == 130
    longer = dataclasses.replace(config, batch=dataclasses.replace(config.batch, sequence_length=130))
    assert cost(compare_bases(longer), 16).sequence_length == 130
    text = printed(costs, config, 200)
    assert "base 2 (310), 3 (220), 4 (190), 8 (130), 9 (130), 10 (130), 16 (130)." in text
    assert "Not possible: base 17,17. vocabulary.base = (17, 17): its digits write 289 ids" in text
    assert "a document won't fit in a sequence of 96: base 17 (100), 32 (100)" in text


def test_an_own_base_that_does_not_fit_is_no_crash(config: Config) -> None:
    narrow = dataclasses.replace(config, batch=dataclasses.replace(config.batch, sequence_length=20))
    costs = compare_bases(narrow)
    assert costs.cheapest is None
    assert "No base is possible." in printed(costs, narrow, 80)


def test_an_experiment_of_mixed_radix_is_among_its_candidates(config: Config) -> None:
    mixed = dataclasses.replace(config, writing=dataclasses.replace(config.writing, base=(5, 17, 17, 17, 17)))
    costs = compare_bases(mixed)
    assert list(costs.costs)[-1] == costs.chosen == (5, 17, 17, 17, 17)
    own = cost(costs, costs.chosen)
    assert own == dataclasses.replace(cost(compare_bases(config), 17), digits=own.digits, steps=own.steps)


def test_an_experiment_with_too_few_positions_is_refused(config: Config) -> None:
    few = dataclasses.replace(config, writing=dataclasses.replace(config.writing, positions=16))
    with pytest.raises(VocabularyError, match="the last position that can be written is 15"):
        compare_bases(few)


@pytest.mark.parametrize("text, base", [("17", 17), ("64,64,4096", (64, 64, 4096)), ("2,3", (2, 3))])
def test_bases_are_read(text: str, base: Base) -> None:
    assert parse_base(text) == base


@pytest.mark.parametrize("text", ["", "x", "2,", "1.5", "2;3"])
def test_what_is_no_base_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_base(text)
    assert (caught.value.field, caught.value.value) == ("--bases", text)


def printed(costs: Costs, config: Config, width: int) -> str:
    console = rich.console.Console(file=io.StringIO(), width=width)
    print_costs(costs, config, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 110, 160])
def test_the_table_can_be_read(config: Config, costs: Costs, width: int) -> None:
    text = printed(costs, config, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    rows = [line.split() for line in lines]
    assert ["17", "5", "(4)", "3", "(2)", "82", "6", "48.5", "89", "55.5", "55.5"] in rows
    assert ["17", "311", "320", "2.78", "MiB", "8.26", "M", "4.96", "M", "358", "M", "1.00", "chosen"] in rows
    assert ["289"] in [row[:1] for row in rows if row[-1:] == ["cheapest"]]
    assert sum(row[-2:] == ["too", "long"] for row in rows) == 7


def test_as_json_nothing_is_missing(config: Config, costs: Costs) -> None:
    found = to_dict(costs)
    assert (list(found["costs"])[-1], list(found["refused"])) == ("4,64,4096", ["17,17"])
    own = found["costs"]["17"]
    assert own["documents"]["image->text"] == {"least": 88, "mean": 89, "most": 90}
    assert found["items"]["speech"] == {"least": 1, "mean": 15.5, "most": 30}
    assert set(own) == {field.name for field in dataclasses.fields(Cost)}
    assert (found["chosen"], found["cheapest"]) == (17, 289)
