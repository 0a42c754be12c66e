"""The legal next tokens: exactly those that some document goes on with, of which small vocabularies have few."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from reference import GENERAL, UNMARKED, VOCABULARIES, WAYS

from omnijax.errors import VocabularyError
from omnijax.vocab.grammar import Grammar, SegmentRule
from omnijax.vocab.grammar_tables import digit_tables
from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.vocabulary import PAD, Marker, Space, Vocabulary

ROWS, TOKENS = 64, 40

Tokens = tuple[int, ...]
Follows = dict[Tokens, set[int]]


def all_writings(v: Vocabulary, marker: int, counts: range, holds: str = "any", order: str = "raster") -> set[Tokens]:
    """Every way to write every segment of so many items, `counts`, that this marker opens."""
    choices = [(GENERAL, number) for number in range(v.general)] if holds != "fragments" else []
    if holds != "general":
        choices += [(space, number) for space in range(len(v.spaces)) for number in range(v.spaces[space].size)]
    found = set()
    for count in counts:
        orders = [list(one) for one in itertools.permutations(range(count))] if order == "any" else [None]
        for items, one in itertools.product(itertools.product(choices, repeat=count), orders):
            try:
                found.add(tuple(reference.encode_segment(v, (marker, list(items)), one)))
            except ValueError:
                continue
    return found


def differences(grammar: Grammar, follows: Follows, longest: int | None = None) -> list[str]:
    """Where the mask behind a prefix isn't what follows it; the prefixes of one length side by side, without `jit`.

    Compiling a program for each of hundreds of grammars takes longer than to run it operation by operation.
    """
    symbols = grammar.vocabulary.symbols()
    prefixes = sorted(follows, key=len)
    levels = [list(level) for _, level in itertools.groupby(prefixes, key=len)]
    rows = max(1024, *(len(level) for level in levels))
    state, before, found = grammar.start_state(rows), {}, []
    for level in levels[: None if longest is None else longest + 1]:
        if level[0]:
            parent, token = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
            parent[: len(level)] = [before[prefix[:-1]] for prefix in level]
            token[: len(level)] = [prefix[-1] for prefix in level]
            behind = type(state)(*(jnp.asarray(np.asarray(part)[parent]) for part in state))
            state = grammar.advance(behind, jnp.asarray(token))
        mask = np.asarray(grammar.mask(state))
        for row, prefix in enumerate(level):
            legal = set(np.flatnonzero(mask[row]).tolist())
            if legal != follows[prefix]:
                words = [
                    [symbols[t] for t in part] for part in (prefix, legal - follows[prefix], follows[prefix] - legal)
                ]
                found.append("after {}: too many {}, missing {}".format(*words))
        before = {prefix: row for row, prefix in enumerate(level)}
    return found


WRITINGS = [
    (digit_order, base, check) for digit_order in ("big", "little") for base in (2, (2, 3)) for check in (False, True)
]
PLACES = [
    (way, places, order)
    for way in WAYS
    for places in (1, 2)
    for order in ("raster", "any")
    if way[1] != "none" or (places, order) == (1, "raster")
]


def tiny(way: tuple[str, str, str], writing: tuple[str, Any, bool] = ("big", 2, False), **changes: Any) -> Vocabulary:
    """Of a space with ids of one and of two digits, and another one that only untyped segments write."""
    layout, position, width = way
    digit_order, base, check = writing
    parts: dict[str, Any] = {
        "general": 1,
        "positions": 3,
        "digits": 4,
        "base": base,
        "spaces": (Space("a", 3 if base == 2 else 4), Space("b", 1)),
        "control": ("a", "mixed", "eos"),
        "check_digit": check,
    }
    return Vocabulary(
        **{**parts, "layout": layout, "position": position, "width": width, "digit_order": digit_order, **changes}
    )


@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.proof)])
@pytest.mark.parametrize("way, places, order", PLACES, ids=str)
def test_legal_is_what_some_document_goes_on_with(way: Any, places: int, order: Any, step: int) -> None:
    """All documents of one segment of at most two items, in one of the ways to write its ids, or in every way."""
    first = PLACES.index((way, places, order)) % step
    for writing in WRITINGS[first::step]:
        v = tiny(way, writing, position_places=places)
        rules = (SegmentRule("a", 2, 2, then=("eos",)), SegmentRule("mixed", 0, 2, then=("eos",)))
        grammar = Grammar(v, rules, ("a", "mixed"), order)
        segments = all_writings(v, 0, range(2, 3), order=order) | all_writings(v, 1, range(3), order=order)
        follows = reference.legal_next(v, [[*segment, v.token("eos")] for segment in segments])
        assert differences(grammar, follows) == [], writing


ORDERS = [(way, order) for way in WAYS for order in ("raster", "any") if way[1] != "none" or order == "raster"]
QUICK = [
    (("grouped", "after", "minimal"), "any"),
    (("grouped", "before", "fixed"), "raster"),
    (("inline", "before", "minimal"), "any"),
    (("inline", "after", "fixed"), "raster"),
    (("inline", "none", "fixed"), "raster"),
]
"""Each value of each option occurs in at least one of these cases. The proofs run all combinations."""
ways_and_orders = pytest.mark.parametrize(
    "way, order",
    [*QUICK, *(pytest.param(*one, marks=pytest.mark.proof) for one in ORDERS if one not in QUICK)],
    ids=str,
)


@ways_and_orders
def test_what_is_asked_of_segments(way: Any, order: Any) -> None:
    """Numbers of items, kinds of items, and what follows what."""
    v = tiny(way, control=("a", "mixed", "text", "eos"), spaces=(Space("a", 2),))
    rules = (
        SegmentRule("text", 0, 2, holds="general", then=("mixed", "a")),
        SegmentRule("mixed", 3, 3, then=("eos",)),  # one more than there are positions
        SegmentRule("a", 1, 1, then=("eos",)),
    )
    text, a = all_writings(v, 2, range(3), "general"), all_writings(v, 0, range(1, 2), order=order)
    mixed = all_writings(v, 1, range(3, 4), order=order)
    follows = reference.legal_next(v, [[*one, *other, v.token("eos")] for one in text for other in a | mixed])
    assert differences(Grammar(v, rules, ("text",), order), follows) == []


@ways_and_orders
def test_segments_of_fragments_alone(way: Any, order: Any) -> None:
    v = tiny(way, spaces=(Space("a", 2), Space("b", 1)))
    rules = (SegmentRule("mixed", 2, 2, holds="fragments", then=("eos",)),)
    mixed = all_writings(v, 1, range(2, 3), "fragments", order)
    follows = reference.legal_next(v, [[*one, v.token("eos")] for one in mixed])
    assert differences(Grammar(v, rules, ("mixed",), order), follows) == []


@pytest.mark.parametrize("way, places, order", [one for one in PLACES if one[0][1] != "none"], ids=str)
def test_without_rules_and_control_tokens(way: Any, places: int, order: Any) -> None:
    """Positions bound the items then, and padding closes a document."""
    writing = WRITINGS[(3 * places + WAYS.index(way)) % len(WRITINGS)]
    v = tiny(way, writing, control=(), general=0, positions=4 - places, digits=2 + places, position_places=places)
    segments = all_writings(v, UNMARKED, range(v.last_position + 1), order=order)
    follows = reference.legal_next(v, [list(one) for one in segments if one])
    assert differences(Grammar(v, order=order), follows) == []


def all_documents(v: Vocabulary, most_tokens: int, order: str) -> Iterator[list[int]]:
    """Every document of at most so many tokens, `eos` not counted, and four items a segment."""
    markers = [UNMARKED, *reference.markers(v)]
    written = {marker: all_writings(v, marker, range(5), order=order) for marker in markers}
    fitting = {marker: [one for one in written[marker] if 0 < len(one) <= most_tokens] for marker in markers}
    waiting = [one for marker in markers for one in fitting[marker]]
    while waiting:
        tokens = waiting.pop()
        yield [*tokens, *reference.encode(v, [])]
        waiting += [
            (*tokens, *one)
            for marker in markers[1:]
            for one in fitting[marker]
            if len(tokens) + len(one) <= most_tokens
        ]


@ways_and_orders
def test_segments_of_general_tokens_and_one_space(way: Any, order: Any) -> None:
    """A marker with general tokens: no `aos`, items in order, fragments in the digits of their own space."""
    control, markers = ("word", "caption", "eos"), (Marker("word", "b"), Marker("caption", "b", general=True))
    v = tiny(way, spaces=(Space("a", 9), Space("b", 3)), control=control, markers=markers)
    rules = (SegmentRule("word", 1, 1, then=("caption",)), SegmentRule("caption", 1, 3, then=("eos",)))
    word = all_writings(v, 0, range(1, 2), order=order)
    caption = all_writings(v, 1, range(1, 4), order=order)
    follows = reference.legal_next(v, [[*one, *other, v.token("eos")] for one in word for other in caption])
    assert differences(Grammar(v, rules, ("word",), order), follows) == []


@ways_and_orders
def test_without_rules(way: Any, order: Any) -> None:
    """What can follow three tokens can be completed with two more, `eos` not counted."""
    v = tiny(way, spaces=(Space("a", 2),))
    follows = reference.legal_next(v, list(all_documents(v, 6 if order == "raster" else 7, order)))
    assert differences(Grammar(v, order=order), follows, 3) == []


SIZES = [1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 13, 20, 23, 24]


@pytest.mark.parametrize("width, capacity", [("minimal", 0), ("fixed", 0), ("fixed", 24)])
@pytest.mark.parametrize("check", [False, True], ids=["plain", "checked"])
def test_a_number_is_legal_when_it_is_below_the_size(width: Any, capacity: int, check: bool) -> None:
    """All ids of spaces whose sizes are products of the radices, and of others; with room for more, too."""
    spaces = tuple(Space(f"s{size}", size, capacity) for size in SIZES)
    names = tuple(space.name for space in spaces)
    rules = tuple(SegmentRule(name, 1, 1, then=("eos",)) for name in names)
    room = Space("room", 250)  # for the number line, which no segment of this grammar writes on
    for base, digit_order in itertools.product([3, (9, 2, 4, 2, 3)], ["big", "little"]):
        v = Vocabulary(
            general=0,
            positions=2,
            digits=9,
            base=base,
            spaces=(*spaces, room),
            control=(*names, "eos"),
            layout="inline",
            position="before",
            width=width,
            digit_order=digit_order,
            check_digit=check,
        )
        segments = [one for marker in range(len(SIZES)) for one in all_writings(v, marker, range(1, 2))]
        follows = reference.legal_next(v, [[*one, v.token("eos")] for one in segments])
        assert differences(Grammar(v, rules, names), follows) == [], (base, digit_order)


def spelled(v: Vocabulary, number: int, width: int) -> list[int]:
    """Digits of a number in the order of writing, without a check digit."""
    digits = reference.digits_of(number, v.base)
    if v.width == "fixed":
        digits = [0] * (width - len(digits)) + digits
    return digits if v.digit_order == "big" else digits[::-1]


@st.composite
def wide_spaces(draw: st.DrawFn) -> tuple[Vocabulary, list[int]]:
    """One space of up to 2^256 fragments, and numbers below its size and not."""
    size = draw(st.one_of(st.integers(1, 300), st.integers(1, 2**256), st.sampled_from([2**96, 2**255, 2**256])))
    mixed = st.tuples(st.lists(st.integers(2, 9), max_size=4), st.lists(st.just(2**16), min_size=16, max_size=16))
    base = draw(st.one_of(st.sampled_from([2, 3, 10, 256, 1000, 65536]), mixed.map(lambda two: (*two[0], *two[1]))))
    width, digit_order = draw(st.sampled_from(["minimal", "fixed"])), draw(st.sampled_from(["big", "little"]))
    v = Vocabulary(
        positions=2, digits=65536, base=base, spaces=(Space("a", size),), width=width, digit_order=digit_order
    )
    near = st.integers(-3, 3).map(lambda by: size + by)
    numbers = draw(
        st.lists(st.one_of(near, st.integers(0, 2 * size), st.integers(0, size - 1)), min_size=8, max_size=8)
    )
    longest = v.most_digits
    reach = 2 * size if not isinstance(base, tuple) else int(np.prod(np.array(base, object)))
    return v, [
        number for number in numbers if 0 <= number < reach and len(reference.digits_of(number, base)) <= longest
    ]


@hypothesis.settings(max_examples=40)
@hypothesis.given(wide_spaces())
def test_ids_of_any_size(case: tuple[Vocabulary, list[int]]) -> None:
    """The digit automaton, read by a loop: an id is accepted when it is below the size."""
    v, numbers = case
    tables = digit_tables(v)
    for number in numbers:
        row, legal = int(tables.starts[0]), True
        for digit in spelled(v, number, v.most_digits):
            legal &= bool(tables.rows.low[row] <= digit <= tables.rows.high[row])
            row = int(tables.following[row, (tables.breaks[row] <= digit).sum()])
        assert (legal and bool(tables.rows.stops[row])) == (number < v.spaces[0].size)


@functools.partial(jax.jit, static_argnums=0)
def look(grammar: Grammar, state: Any) -> Any:
    mask = grammar.mask(state)
    return mask, grammar.forced(mask)


@functools.partial(jax.jit, static_argnums=0)
def follow(grammar: Grammar, state: Any, token: Any) -> Any:
    state = grammar.advance(state, token)
    return state, *look(grammar, state)


def walk(grammar: Grammar, source: np.random.Generator, rows: int, tokens: int) -> np.ndarray:
    """Random documents under the mask, int32[rows, tokens]; each kind of token as likely as any other."""
    v = grammar.vocabulary
    edges = np.array([0, 1, v.position_start, v.digit_start, v.aos, v.control_start, v.size])
    state, written = grammar.start_state(rows), []
    masks, forced = look(grammar, state)
    for _ in range(tokens):
        chosen = np.zeros(rows, np.int32)
        for row, legal in enumerate(np.asarray(masks)):
            kinds = [legal[low:high].nonzero()[0] + low for low, high in itertools.pairwise(edges)]
            kinds = [kind for kind in kinds if kind.size]
            kind = kinds[source.integers(len(kinds))]
            chosen[row] = kind[source.choice([0, -1, source.integers(kind.size)])]
            assert forced[row] == (chosen[row] if legal.sum() == 1 else -1)
        written.append(chosen)
        state, masks, forced = follow(grammar, state, jnp.asarray(chosen))
    return np.stack(written, axis=1)


def streams_of(documents: list[list[int]], tokens: int = TOKENS) -> PrimaryIds:
    array = np.zeros((len(documents), tokens), np.int32)
    for row, document in zip(array, documents):
        row[: len(document)] = document
    return PrimaryIds(array)


WALKED = [
    ("marked grouped after minimal", "any"),
    ("marked grouped none fixed", "raster"),
    ("plain grouped after minimal", "any"),
    ("typed grouped none fixed", "raster"),
    ("mixed radix, little, two position places", "any"),
    ("mixed radix, check, before, two position places", "raster"),
    ("little, check", "raster"),
    ("wide, two position places", "any"),
    ("wide, little, check", "raster"),
    ("wide, mixed radix, room to grow", "raster"),
]


@pytest.mark.parametrize("name, order", WALKED)
def test_random_walks_are_documents(name: str, order: Any) -> None:
    """A document is what the slow reader reads without an error, and in raster order what it writes itself again."""
    v, tokens = VOCABULARIES[name], 48
    grammar = Grammar(v, order=order)
    ended = 0
    for row in walk(grammar, np.random.default_rng(7), 12, tokens).tolist():
        closed = (v.end in row) if v.end is not None else PAD in row
        document = row[: row.index(PAD)] if PAD in row else row
        assert not any(row[len(document) :])
        rows = reference.read(v, document)
        if closed:
            ended += 1
            assert not any(one.error for one in rows), document
            if order == "raster":
                assert reference.encode(v, reference.document_of(v, rows)) == document
    assert ended > 0


def mutated(v: Vocabulary, document: list[int], source: random.Random) -> list[int]:
    """One token more, one less, another one, or two that changed places."""
    changed, at = list(document), source.randrange(len(document))
    way = source.randrange(4)
    if way == 0:
        changed.insert(at, source.randrange(1, v.size))
    elif way == 1:
        del changed[at]
    elif way == 2:
        changed[at] = source.randrange(1, v.size)
    else:
        other = source.randrange(len(document))
        changed[at], changed[other] = changed[other], changed[at]
    return changed


ACCEPTED = [
    "marked grouped after minimal",
    "marked inline before fixed",
    "typed grouped after minimal",
    "typed inline before minimal",
    "mixed radix, little, two position places",
    "mixed radix, check, room to grow",
    "little, check, none",
    "wide, little, check",
    "narrow",
]


@pytest.mark.parametrize("name", ACCEPTED)
def test_data_is_accepted_when_it_is_a_document(name: str) -> None:
    """What the encoder writes; and of what is almost that, no more than what reads and writes as itself."""
    v, source = VOCABULARIES[name], random.Random(6)
    written = [reference.encode(v, reference.random_document(v, source, TOKENS - 1)) for _ in range(ROWS)]
    changed = [mutated(v, document, source) for document in written]
    accepts = jax.jit(Grammar(v).accepts)
    assert np.asarray(accepts(streams_of(written))).all()

    def valid(document: list[int]) -> bool:
        rows = reference.read(v, document)
        if not document or any(row.error for row in rows):
            return False
        if v.layout == "inline" and reference.document_of(v, rows)[0] == (UNMARKED, []):
            return False  # a segment without a trace is none
        try:
            return reference.encode(v, reference.document_of(v, rows)) == document
        except (ValueError, StopIteration):
            return False

    expected = [valid(document) for document in changed]
    assert np.asarray(accepts(streams_of(changed))).tolist() == expected
    assert not all(expected)


def test_what_is_no_token_is_not_accepted() -> None:
    v = tiny(WAYS[0])
    grammar = Grammar(v)
    a, mixed, eos = (v.token(name) for name in ("a", "mixed", "eos"))
    rows = np.array([[a, v.aos, eos, PAD]] * 7, np.int64)
    rows[1, 2] = -1
    rows[2, 1] += 2**32
    rows[3, 2] = v.size
    rows[4, 3] = -(2**40)
    # Without padding behind it, too, a document has to be whole.
    rows[5:] = [[mixed, 1, v.aos, eos], [mixed, 1, 1, v.aos]]
    assert np.asarray(grammar.accepts(PrimaryIds(rows))).tolist() == [True, *[False] * 4, True, False]
    with pytest.raises(VocabularyError):
        grammar.accepts(rows)
    with pytest.raises(VocabularyError):
        grammar.accepts(PrimaryIds(rows.astype(np.float32)))


def test_a_picture_in_any_order() -> None:
    """Each of more positions than a word has bits comes once; the last item's position is forced."""
    v = Vocabulary(
        positions=7,
        position_places=2,
        digits=3,
        base=3,
        spaces=(Space("image", 3),),
        control=("image", "eos"),
        position="before",
        width="fixed",
    )
    grammar = Grammar(v, (SegmentRule("image", 40, 40, then=("eos",)),), ("image",), "any")
    state = grammar.start_state(4)
    source = np.random.default_rng(3)
    tokens = walk(grammar, source, 4, 2 + 40 * 3 + 1)
    assert (tokens[:, -1] == v.end).all()
    parts = tokens[:, 2:-1].reshape(4, 40, 3) - v.position_start
    places = parts[..., 0] * 7 + parts[..., 1]
    assert (np.sort(places, axis=1) == np.arange(1, 41)).all()
    assert not (places == np.sort(places, axis=1)).all(axis=1).any()
    state, masks = jax.jit(grammar.read)(state, PrimaryIds(tokens[:, :-4]))
    assert masks.shape == (4, tokens.shape[1] - 4, v.size)
    assert (np.asarray(grammar.forced(grammar.mask(state))) == tokens[:, -4]).all()


def test_reading_in_parts() -> None:
    v, source = VOCABULARIES["typed grouped before minimal"], random.Random(9)
    grammar = Grammar(v)
    documents = [reference.encode(v, reference.random_document(v, source, TOKENS)) for _ in range(4)]
    tokens = streams_of(documents).array
    half = jax.jit(grammar.read)
    state, first = half(grammar.start_state(4), PrimaryIds(tokens[:, : TOKENS // 2]))
    _, second = half(state, PrimaryIds(tokens[:, TOKENS // 2 :]))
    whole = jax.jit(grammar.masks)(PrimaryIds(tokens))
    np.testing.assert_array_equal(jnp.concatenate([first, second], axis=1), whole)
    assert whole.shape == (4, TOKENS, v.size)
    assert whole.dtype == bool


@pytest.mark.parametrize(
    "rules, start, order, field, value",
    [
        ((SegmentRule("smell"),), None, "raster", "control", "smell"),
        ((SegmentRule("eos"),), None, "raster", "rules", "eos"),
        ((SegmentRule("image"), SegmentRule("image", 1)), None, "raster", "rules", "image"),
        ((SegmentRule("image", 3, 2),), None, "raster", "rules.image", (3, 2)),
        ((SegmentRule("image", -1, 2),), None, "raster", "rules.image", (-1, 2)),
        ((SegmentRule("image", 0, 2**31),), None, "raster", "rules.image", (0, 2**31)),
        ((SegmentRule("image", holds="pixels"),), None, "raster", "rules.image", "pixels"),  # type: ignore[arg-type]
        ((SegmentRule("image", 5, 5),), None, "raster", "rules.image", 5),
        ((SegmentRule("mixed", 5, 5, "fragments"),), None, "raster", "rules.mixed", 5),
        ((SegmentRule("image", 1, 5, "general"),), None, "raster", "rules.image", 1),
        ((SegmentRule("image", then=("smell",)),), None, "raster", "control", "smell"),
        ((SegmentRule("image", then=()),), None, "raster", "rules.image", ()),
        ((SegmentRule("image", then=("image",)),), None, "raster", "rules.image", ("image",)),
        ((), (), "raster", "start", ()),
        ((), ("eos",), "raster", "start", "eos"),
        ((), ("smell",), "raster", "control", "smell"),
        ((), None, "sideways", "order", "sideways"),
    ],
)
def test_what_can_not_be_asked_for(rules: Any, start: Any, order: Any, field: str, value: Any) -> None:
    with pytest.raises(VocabularyError) as caught:
        Grammar(VOCABULARIES["typed grouped after fixed"], rules, start, order)
    assert caught.value.field == field
    assert caught.value.value == value


def test_orders_that_can_not_be_kept_apart() -> None:
    with pytest.raises(VocabularyError, match="position"):
        Grammar(VOCABULARIES["typed grouped none fixed"], order="any")
    v = tiny(WAYS[0], position_places=30)
    with pytest.raises(VocabularyError, match="65536"):
        Grammar(v, order="any")
    rules = (SegmentRule("a", 0, 9, then=("eos",)), SegmentRule("mixed", 0, 3))
    assert Grammar(v, rules, ("a", "mixed"), "any").start_state(2).used.shape == (2, 1)
    masks, _ = look(Grammar(v), Grammar(v).start_state(2))
    assert np.asarray(masks).any()


def test_radices_of_too_many_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnijax.vocab.grammar_tables.MOST_STATES", 1000)
    radices = tuple(2 + (7 * k) % 97 for k in range(96))
    v = Vocabulary(positions=2, digits=128, base=radices, spaces=(Space("a", 2**300),), general=0)
    with pytest.raises(VocabularyError, match="states"):
        Grammar(v).start_state(1)


def test_a_grammar_is_a_value() -> None:
    v = VOCABULARIES["narrow"]
    rule = SegmentRule("image", 1, 2)
    assert hash(Grammar(v, (rule,))) == hash(Grammar(v, (SegmentRule("image", 1, 2),)))
    assert Grammar(v, (rule,)) != Grammar(v)
    assert Grammar(v, (rule,)) != Grammar(v, (rule,), ("image",))
