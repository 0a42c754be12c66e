"""Fragments to be looked up by a key: data that is made from its knobs alone, and whose entropy is known.

Random fragments can only be learned by heart. Composed ones follow a rule in the digits of their ids, so that a model
that sees these digits can tell the fragments of a key that it never met; one that sees ids, or digits of shuffled ids,
can't. Where a fragment is one of several choices, its digits depend on one another, given the key.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64, Integer, UInt8

from omnijax.config import LookupConfig
from omnijax.data.table import Table
from omnijax.errors import ConfigError
from omnijax.vocab.assignment import Random
from omnijax.vocab.numbers import from_digits, to_digits, to_int64, to_limbs
from omnijax.vocab.radix import radices_of, width_of
from omnijax.vocab.vocabulary import Vocabulary

TEXT, ITEM = "text", "item"
_ZERO = ord("0")
_KEYS_AT_ONCE = 1024


def check(vocabulary: Vocabulary, config: LookupConfig) -> None:
    """Holds the vocabulary against the records.

    Raises:
        ConfigError: `text` or `item` has no marker, there are too few general tokens, or the space has another size.
    """
    for name in (TEXT, ITEM):
        if name not in vocabulary.control:
            rule = f"needs {name!r}, the marker of a segment of data.source='lookup'"
            raise ConfigError("vocabulary.control", vocabulary.control, rule, "add it")
    least = max(config.attributes, default=_ZERO + 10)
    if vocabulary.general < least:
        rule = f"the text of keys takes {least} general tokens"
        raise ConfigError("vocabulary.general", vocabulary.general, rule, f"use {least} or more")
    sizes = {space.name: space.size for space in vocabulary.spaces}
    if sizes.get(ITEM) != config.space:
        rule = f"data.lookup.space is {config.space}, and the fragments are of the space {ITEM!r}"
        raise ConfigError(f"size of space {ITEM!r}", sizes.get(ITEM), rule, "make them equal")


def views(config: LookupConfig, split: Literal["train", "heldout"]) -> dict[str, Table]:
    """The records of a split, by modality: the text of a key, and its fragments.

    Of composed fragments the splits have different keys; of random ones the same keys, in another order, and choices of
    their own. Held-out keys have one record each.
    """
    keys = _keys_of(config, split)
    copies = config.copies if split == "train" else 1
    random = np.random.default_rng((config.seed, 2 if split == "train" else 3))
    table = alternatives(config, keys)
    rows = np.repeat(np.arange(keys.size), copies)
    drawn = random.integers(0, config.choices, (rows.size, config.items), np.uint8)
    chosen = table[rows[:, None], np.arange(config.items), drawn]
    return {TEXT: Table(_text(config, keys), rows), ITEM: Table(chosen)}


def optimum(config: LookupConfig) -> float:
    """Bits an item of the best model there can be, of the held-out split: that of the choices, and nothing else.

    It knows which fragments belong to a key. Those of new keys it can only know where they are composed.
    """
    return math.log2(config.choices)


def optimum_of_digits(config: LookupConfig, vocabulary: Vocabulary, keys: int = _KEYS_AT_ONCE) -> float:
    """Bits an item of the best model that tells the digits of a fragment apart from one another, given the key.

    What parallel heads can reach: the sum over places of the entropy of a digit among the choices, as the vocabulary
    writes them. It is the mean over the first held-out keys.
    """
    table = alternatives(config, _keys_of(config, "heldout")[:keys])
    space = vocabulary.spaces[vocabulary.space_index(ITEM)]
    radices = radices_of(vocabulary.base, width_of(space.size - 1, vocabulary.base))
    ids = Table(table.reshape(-1, 1)).take(range(table.size))[:, 0]
    numbers = space.assignment.forward(ids, space.size, radices)
    digits = to_digits(numbers, radices).reshape(-1, config.choices, len(radices))
    like = sum(np.log2((digits == digits[:, [one]]).sum(axis=1)).sum() for one in range(config.choices))
    return len(radices) * math.log2(config.choices) - float(like) / (len(digits) * config.choices)


def alternatives(config: LookupConfig, keys: Int64[np.ndarray, " n"]) -> Integer[np.ndarray, "n items choices"]:
    """The fragments that each of these keys, numbered from 0, chooses from: all different, in no order."""
    if config.rule == "composed":
        return _composed(config, keys)
    # Every subset is as likely as any other (Floyd's sampling: Bentley and Floyd 1987), so that there is none to guess.
    random = np.random.default_rng((config.seed, 1))
    table = np.empty((config.keys, config.items, config.choices), _kind(config.space))
    for place, last in enumerate(range(config.space - config.choices, config.space)):
        drawn = random.integers(0, last, table.shape[:2], table.dtype, endpoint=True)
        taken = (table[..., :place] == drawn[..., None]).any(axis=-1)
        table[..., place] = np.where(taken, table.dtype.type(last), drawn)
    return table[keys]


def attributes_of(config: LookupConfig, keys: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n attributes"]:
    """Values of the attributes of these keys: no two keys have the same."""
    shuffle = Random(key=int(np.random.default_rng((config.seed, 0)).integers(2**63)))
    numbers = shuffle.forward(to_limbs(keys, 2), math.prod(config.attributes), ())
    return to_digits(numbers, config.attributes).astype(np.int64)


def _keys_of(config: LookupConfig, split: Literal["train", "heldout"]) -> Int64[np.ndarray, " n"]:
    """Numbers of the keys of a split; those of the held-out one in an order in which any first ones are a sample."""
    if config.rule == "composed":
        held = round(config.heldout * config.keys)  # attributes are shuffled already
        return np.arange(held) if split == "heldout" else np.arange(held, config.keys)
    if split == "train":
        return np.arange(config.keys)
    return np.random.default_rng((config.seed, 4)).permutation(config.keys)


def _text(config: LookupConfig, keys: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n tokens"]:
    """General tokens of these keys, equally many for each."""
    if config.attributes:
        return attributes_of(config, keys).astype(np.uint8)
    width = len(str(config.keys - 1))
    return (_ZERO + keys[:, None] // 10 ** np.arange(width)[::-1] % 10).astype(np.uint8)


def _composed(config: LookupConfig, keys: Int64[np.ndarray, " n"]) -> Integer[np.ndarray, "n items choices"]:
    """Of each item and choice, every attribute goes through a permutation of its own to the digit at its place."""
    random = np.random.default_rng((config.seed, 1))
    shape = (config.items, config.choices)
    tables = []
    for place, size in enumerate(config.attributes):
        if place == 0:  # choices must differ: here by a shift of one permutation
            shifts = random.permuted(np.tile(np.arange(size), (config.items, 1)), axis=1)[:, : config.choices, None]
            one = random.permuted(np.tile(np.arange(size, dtype=np.uint8), (config.items, 1, 1)), axis=2)
            tables.append(np.take_along_axis(one, (np.arange(size) + shifts) % size, axis=2))
        else:
            tables.append(random.permuted(np.tile(np.arange(size, dtype=np.uint8), (*shape, 1)), axis=2))
    found = np.empty((keys.size, *shape), _kind(config.space))
    for start in range(0, keys.size, _KEYS_AT_ONCE):
        values = attributes_of(config, keys[start : start + _KEYS_AT_ONCE])
        digits = np.stack([table[..., column] for table, column in zip(tables, values.T, strict=True)], axis=-1)
        numbers = from_digits(np.moveaxis(digits, 2, 0).reshape(-1, len(tables)), config.attributes)
        found[start : start + _KEYS_AT_ONCE] = to_int64(numbers).astype(found.dtype).reshape(-1, *shape)
    return found


def _kind(space: int) -> np.dtype[Any]:
    """The smallest integers for the ids of a space; those beyond int64 wrap around when they are taken for it."""
    return np.min_scalar_type(space - 1) if space <= 2**32 else np.dtype(np.int64 if space <= 2**63 else np.uint64)
