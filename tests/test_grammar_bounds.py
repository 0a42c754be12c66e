"""Bounds on the items of segments as arrays: each document of a batch has its own, and one program serves all."""

from __future__ import annotations

import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import reference
from test_grammar import Follows, all_writings, follow, look, streams_of, tiny, ways_and_orders

from omnijax.vocab.grammar import Grammar, SegmentRule
from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.vocabulary import Marker, Space, Vocabulary

RULE = -1
CASES = [
    # Bounds of the first segment and of the second one; the rules say 0 to 3 and 1 to 2.
    ((RULE, RULE), (RULE, RULE)),
    ((2, 2), (1, 1)),
    ((0, 0), (2, 2)),
    ((1, RULE), (RULE, 1)),
    ((RULE, 1), (0, 1)),
    ((3, 9), (0, 0)),
    ((9, 2), (2, 9)),  # `most` of the rule holds, and `least` can't be more
]


def counts(bounds: tuple[int, int], least: int, most: int) -> range:
    """Numbers of items that such a segment can have."""
    highest = most if bounds[1] == RULE else min(bounds[1], most)
    lowest = min(least if bounds[0] == RULE else bounds[0], highest)
    return range(lowest, highest + 1)


def two_segments(way: Any) -> Vocabulary:
    """Fragments alone, then general tokens and fragments of one space."""
    markers = (Marker("picture", "a"), Marker("caption", "b", general=True))
    control = ("picture", "caption", "eos")
    return tiny(way, positions=4, spaces=(Space("a", 2), Space("b", 1)), control=control, markers=markers)


def rules() -> tuple[SegmentRule, ...]:
    return SegmentRule("picture", 0, 3, then=("caption",)), SegmentRule("caption", 1, 2, then=("eos",))


def columns(cases: list[Any]) -> tuple[jax.Array, jax.Array]:
    """The bounds of some cases as arrays."""
    table = jnp.asarray(np.array(cases, np.int32))
    return table[..., 0], table[..., 1]


def follows_of(v: Vocabulary, case: Any, order: str) -> Follows:
    first = all_writings(v, 0, counts(case[0], 0, 3), order=order)
    second = all_writings(v, 1, counts(case[1], 1, 2), order=order)
    return reference.legal_next(v, [[*one, *other, v.token("eos")] for one in first for other in second])


@ways_and_orders
def test_legal_is_what_a_document_within_the_bounds_goes_on_with(way: Any, order: Any) -> None:
    """Documents of all cases side by side in one batch, against the slow reference."""
    v = two_segments(way)
    grammar, source = Grammar(v, rules(), ("picture",), order), random.Random(5)
    follows = [follows_of(v, case, order) for case in CASES]
    whole = [sorted(tokens for tokens, after in one.items() if after == {0}) for one in follows]
    documents = [
        (case, tokens) for case, some in enumerate(whole) for tokens in source.sample(some, min(24, len(some)))
    ]
    streams = streams_of([list(tokens) for _, tokens in documents], 40)
    least, most = columns([CASES[case] for case, _ in documents])
    masks = np.asarray(jax.jit(grammar.masks)(streams, least, most))
    for (case, tokens), mask in zip(documents, masks):
        for length in range(len(tokens) + 1):
            assert set(np.flatnonzero(mask[length])) == follows[case][tokens[:length]], (CASES[case], tokens, length)
    # A document is accepted exactly under the bounds that it keeps.
    accepts = jax.jit(grammar.accepts)
    for bounds, one in zip(CASES, follows):
        accepted = accepts(streams, *columns([bounds] * len(documents)))
        assert accepted.tolist() == [one.get(tokens) == {0} for _, tokens in documents]


def test_bounds_behind_a_prompt() -> None:
    """What a sampler does: it reads the prompt, and the open segment gets as many items as the header says."""
    v = two_segments(("grouped", "before", "fixed"))
    grammar = Grammar(v, rules(), ("picture",))
    state, _ = jax.jit(grammar.read)(
        grammar.start_state(3), PrimaryIds(np.array([[v.token("picture"), v.aos]] * 3, np.int32))
    )
    sizes = np.array([0, 1, 3])
    state = jax.jit(grammar.with_bounds)(state, jnp.asarray(sizes), jnp.asarray(sizes))
    written, forced = draw_last(grammar, state, 24)
    kept = Grammar(v, rules(), ("picture",))
    rows = PrimaryIds(np.concatenate([np.array([[v.token("picture"), v.aos]] * 3, np.int32), written], axis=1))
    assert np.asarray(jax.jit(kept.accepts)(rows)).all()
    for row, size in enumerate(sizes):
        document = reference.document_of(v, reference.read(v, np.trim_zeros(rows.array[row], "b").tolist()))
        assert len(document[0][1]) == size
        assert len(document[1][1]) in (1, 2)
        end = written[row].tolist().index(v.token("caption"))  # it follows the last item, and nothing else can
        assert forced[row, end] == v.token("caption")


def draw_last(grammar: Grammar, state: Any, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Takes the legal token with the lowest number but `pad`, and says which were forced; int32[batch, steps] each."""
    written, forced = [], []
    masks, only = look(grammar, state)
    for _ in range(steps):
        legal = np.asarray(masks)
        assert legal.any(axis=1).all()
        forced.append(np.asarray(only))
        written.append(np.argmax(legal, axis=1))
        state, masks, only = follow(grammar, state, written[-1])
    return np.stack(written, axis=1), np.stack(forced, axis=1)


def test_bounds_below_what_is_there_do_not_lock_a_document() -> None:
    v = two_segments(("inline", "after", "minimal"))
    grammar = Grammar(v, rules(), ("picture",))
    tokens = [v.token("picture"), v.digit_start, v.position_start + 1, v.digit_start]  # inside the second item
    state, _ = jax.jit(grammar.read)(grammar.start_state(1), PrimaryIds(np.array([tokens], np.int32)))
    state = grammar.with_bounds(state, jnp.array([1]), jnp.array([1]))
    written, forced = draw_last(grammar, state, 2)
    assert written[0].tolist() == [v.position_start + 2, v.token("caption")]
    assert forced[0].tolist() == written[0].tolist()


def test_without_bounds_the_state_has_no_columns() -> None:
    grammar = Grammar(two_segments(("inline", "none", "fixed")), rules(), ("picture",))
    state = grammar.start_state(4)
    assert state.least.shape == state.most.shape == state.number.shape == (4, 0)
    one = grammar.start_state(4, most_bs=jnp.ones((4, 2), jnp.int32))
    assert (one.least.shape, one.number.shape) == ((4, 3), (4, 1))
    after = jax.eval_shape(grammar.advance, one, jnp.full(4, 11))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, one)
