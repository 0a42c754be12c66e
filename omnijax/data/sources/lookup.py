"""Fragments to be looked up by a key: data that is made from its knobs alone, and whose entropy is known.

Random fragments can only be learned by heart. Composed ones follow a rule in the digits of their ids, so that a model
that sees these digits can tell the fragments of a key that it never met; one that sees ids, or digits of shuffled ids,
can't. Where a fragment is one of several choices, its digits depend on one another, given the key.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64, Integer, UInt8

from omnijax.errors import ConfigError
from omnijax.modalities import Codes, Modality, Text
from omnijax.source import TRAIN, VALIDATION, Record, Source
from omnijax.vocab.assignment import Random
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import from_digits, to_digits, to_int64, to_limbs

TEXT, ITEM = "text", "item"
_ZERO = ord("0")
_KEYS_AT_ONCE = 1024
_PLACE = 2**32
"""Radix of a natural digit where a space has no attributes and is larger than this."""


@dataclasses.dataclass(frozen=True)
class Lookup(Source):
    """Keys, and the fragments that belong to them: fields `text` and `item`, made from these knobs and no file."""

    keys: int = 4096
    """Number of keys; each yields `copies` training records. At most 2^20."""
    space: int = 2**14
    """Number of different fragments; at most 2^64."""
    items: int = 4
    """Fragments of a key."""
    choices: int = 1
    """Number of different fragments that each place of a key chooses from, evenly, anew for each record."""
    rule: Literal["random", "composed"] = "random"
    """`random` fragments have to be learned by heart. The digits of `composed` ones, in the radices of `attributes`,
    are the attributes of the key, each permuted, so that the fragments of new keys can be told."""
    attributes: tuple[int, ...] = ()
    """Number of values of each attribute of a key. The text of a key is a general token for each attribute, or its
    number in decimals where there are none. Where fragments are composed, the product is `space`."""
    heldout: float = 0.1
    """Share of the keys that validation has for itself, where fragments are composed. Where they are random, validation
    has the same keys with new choices."""
    copies: int = 1
    """Training records of a key."""

    @property
    def fields(self) -> Mapping[str, Modality]:
        """The text of a key, and its fragments."""
        length = len(self.attributes) or len(str(self.keys - 1))
        high = -(-self.space // _PLACE)
        radices = self.attributes
        if math.prod(radices) != self.space:
            radices = (self.space,) if high == 1 else (high, _PLACE)
        item = Codes(ITEM, radices=radices, size=self.space, least=self.items, most=self.items)
        return {TEXT: Text(least=length, most=length), ITEM: item}

    @property
    def splits(self) -> tuple[str, ...]:
        """Nothing is published on this data but what is measured on validation."""
        return (TRAIN, VALIDATION)

    def check(self) -> None:
        """Raises a `ConfigError` for a knob that is out of its bounds."""
        composed, sizes = self.rule == "composed", self.attributes
        combinations, fragments = math.prod(sizes), self.keys * self.items
        most_keys = min(2**20, combinations) if sizes else 2**20
        most_choices = min(self.space, 256, *(sizes[:1] if composed else ()))
        held = round(self.heldout * self.keys)
        for name, holds, rule in (
            ("space", 2 <= self.space <= 2**64, "must be in 2 … 2^64"),
            ("attributes", all(2 <= size <= 256 for size in sizes), "each must have 2 … 256 values"),
            ("attributes", combinations <= 2**64, "there can be 2^64 combinations"),
            ("attributes", not composed or combinations == self.space, f"must multiply to space, {self.space}"),
            ("keys", 1 <= self.keys <= most_keys, f"must be in 1 … {most_keys}, so that all differ"),
            ("items", self.items >= 1, "must be at least 1"),
            ("choices", 1 <= self.choices <= most_choices, f"must be in 1 … {most_choices}, so that all differ"),
            ("choices", fragments * self.choices <= 2**26, "all keys can have 2^26 fragments to choose from"),
            ("copies", self.copies >= 1 and self.copies * fragments <= 2**26, "1 or more; 2^26 fragments in all"),
            ("heldout", 0 <= self.heldout < 1, "must be in [0, 1)"),
            ("heldout", not composed or 0 < held < self.keys, f"leaves {held} of {self.keys} keys for validation"),
            ("seed", self.seed >= 0, "must be 0 or more"),
        ):
            if not holds:
                raise ConfigError(f"data.{name}", getattr(self, name), rule, "see --knobs for what it means")

    def small(self, directory: str) -> Lookup:
        """At most 97 keys, once each."""
        return dataclasses.replace(self, keys=min(97, self.keys), copies=1)

    def present(self, split: str) -> Mapping[tuple[str, ...], int]:
        """All records have both fields."""
        return {(TEXT, ITEM): len(self.records(split))}

    def records(self, split: str) -> Sequence[Record]:
        """The records of a split; those of a key follow one another.

        Where fragments are composed the splits have different keys. Where they are random they have the same keys, in
        another order, and choices of their own. Keys have one record each in validation.
        """
        return _Records(self, split)


@functools.lru_cache(maxsize=4)
class _Records(Sequence[Record]):
    """Rows of tables, so that a million records cost little."""

    def __init__(self, config: Lookup, split: str) -> None:
        keys, self._part = _keys_of(config, split), config.fields[ITEM].parts[0]
        random = np.random.default_rng((config.seed, 2 if split == TRAIN else 3))
        self._text = _text(config, keys)
        self._rows = np.repeat(np.arange(keys.size), config.copies if split == TRAIN else 1)
        drawn = random.integers(0, config.choices, (self._rows.size, config.items), np.uint8)
        self._ids = alternatives(config, keys)[self._rows[:, None], np.arange(config.items), drawn]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[Record]:
        chosen = np.asarray(places, np.int64)
        ids = self._ids[chosen]
        digits = self._part.digits(_numbers(ids.reshape(-1))).reshape(*ids.shape, len(self._part.radices))
        # Attributes are general tokens by their number, and a Latin-1 character is not always one byte of UTF-8.
        texts = self._text[self._rows[chosen]]
        return [{TEXT: text.tobytes(), ITEM: item} for text, item in zip(texts, digits, strict=True)]


def alternatives(config: Lookup, keys: Int64[np.ndarray, " n"]) -> Integer[np.ndarray, "n items choices"]:
    """The fragments that each of these keys chooses from. They are all different, in random order."""
    if config.rule == "composed":
        return _composed(config, keys)
    # Every subset is equally likely (Floyd's sampling: Bentley and Floyd 1987), so a model can't guess one.
    random = np.random.default_rng((config.seed, 1))
    table = np.empty((config.keys, config.items, config.choices), _kind(config.space))
    for place, last in enumerate(range(config.space - config.choices, config.space)):
        drawn = random.integers(0, last, table.shape[:2], table.dtype, endpoint=True)
        taken = (table[..., :place] == drawn[..., None]).any(axis=-1)
        table[..., place] = np.where(taken, table.dtype.type(last), drawn)
    return table[keys]


def attributes_of(config: Lookup, keys: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n attributes"]:
    """Values of the attributes of these keys: no two keys have the same."""
    shuffle = Random(key=int(np.random.default_rng((config.seed, 0)).integers(2**63)))
    numbers = shuffle.forward(to_limbs(keys, 2), math.prod(config.attributes), ())
    return to_digits(numbers, config.attributes).astype(np.int64)


def _keys_of(config: Lookup, split: str) -> Int64[np.ndarray, " n"]:
    """Numbers of the keys of a split. Validation has them in random order, so that any first ones are a sample."""
    if config.rule == "composed":
        held = round(config.heldout * config.keys)  # attributes are shuffled already
        return np.arange(held) if split == VALIDATION else np.arange(held, config.keys)
    if split == TRAIN:
        return np.arange(config.keys)
    return np.random.default_rng((config.seed, 4)).permutation(config.keys)


def _text(config: Lookup, keys: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n tokens"]:
    """General tokens of these keys, equally many for each."""
    if config.attributes:
        return attributes_of(config, keys).astype(np.uint8)
    width = len(str(config.keys - 1))
    return (_ZERO + keys[:, None] // 10 ** np.arange(width)[::-1] % 10).astype(np.uint8)


def _composed(config: Lookup, keys: Int64[np.ndarray, " n"]) -> Integer[np.ndarray, "n items choices"]:
    """Each attribute of a key gives the digit at its place, through a permutation for each item and choice."""
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


def _numbers(ids: Integer[np.ndarray, " n"]) -> Numbers:
    return to_limbs(ids.view(np.int64), 2) if ids.dtype == np.uint64 else ids.astype(np.int64)


def _kind(space: int) -> np.dtype[Any]:
    """The smallest integers for the ids of a space; those beyond int64 wrap around when they are taken for it."""
    return np.min_scalar_type(space - 1) if space <= 2**32 else np.dtype(np.int64 if space <= 2**63 else np.uint64)
