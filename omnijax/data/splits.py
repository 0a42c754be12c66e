"""Splits by groups: a stable hash assigns each group to a split, so that old records never move when new ones come."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from omnijax.errors import ConfigError, DataError
from omnijax.source import TEST, TRAIN, VALIDATION

MIXED = "groups on different sides"
"""Why a record is in no split."""
_SIDES = (TEST, VALIDATION, TRAIN)


@dataclasses.dataclass(frozen=True)
class Shares:
    """Shares of the groups that are held out; training gets the rest."""

    validation: float = 0.1
    """Expected share of the groups of each kind that validation gets."""
    test: float = 0.1
    """Expected share of the groups of each kind that test gets."""
    kinds: tuple[str, ...] = ()
    """Kinds of group that have a test split of their own, `test/KIND`: the records whose group of this kind is in test,
    and whose other groups are all in training."""

    def check(self, path: str, kinds: Sequence[str]) -> None:
        """Checks the shares. `path` is that of the knob, and `kinds` are those that the records have.

        Raises a `ConfigError` for shares that leave nothing for training, and for a kind that records don't have.
        """
        for name, share, most in (("test", self.test, 1.0), ("validation", self.validation, 1 - self.test)):
            if not 0 <= share < most:
                rule = f"must be in [0, {most:g}), so that something is left for training"
                raise ConfigError(f"{path}.{name}", share, rule, "use 0 for no such split")
        for kind in self.kinds:
            if kind not in kinds or len(kinds) < 2 or not self.test:
                rule = f"needs test > 0, and must be one of two kinds of group or more ({', '.join(kinds) or 'none'})"
                raise ConfigError(f"{path}.kinds", kind, rule, "use ()")

    @property
    def names(self) -> tuple[str, ...]:
        """The splits that there are."""
        plain = [name for name, share in ((VALIDATION, self.validation), (TEST, self.test)) if share]
        return (TRAIN, *plain, *(f"{TEST}/{kind}" for kind in self.kinds))


class Assigned(NamedTuple):
    """Which records are in which split.

    Attributes:
        places: for each split, int64[records], places of its records, ascending.
        mixed: number of records whose groups are on different sides; they are in no split.
    """

    places: Mapping[str, Int[np.ndarray, " records"]]
    mixed: int


def assign(groups: Mapping[str, Sequence[Hashable]], shares: Shares, seed: int) -> Assigned:
    """Assigns records to splits by their groups: for each kind of group, the key of each record.

    A key is a string, a number, bytes or a tuple of these. A group is on one side: training, validation or test. The
    side depends on its kind, its key and the seed alone. A record is in a split if all of its groups are on that side.
    Raises a `DataError` if a record has no key.
    """
    sides = np.stack([_sides(kind, keys, shares, seed) for kind, keys in groups.items()])
    places = {name: np.flatnonzero((sides == _SIDES.index(name)).all(axis=0)) for name in _SIDES}
    for number, kind in enumerate(groups):
        if kind in shares.kinds:
            others = np.delete(sides, number, axis=0)
            alone = (sides[number] == _SIDES.index(TEST)) & (others == _SIDES.index(TRAIN)).all(axis=0)
            places[f"{TEST}/{kind}"] = np.flatnonzero(alone)
    used = np.concatenate(list(places.values()))
    return Assigned({name: places[name] for name in shares.names}, sides.shape[1] - len(used))


def _sides(kind: str, keys: Sequence[Hashable], shares: Shares, seed: int) -> Int[np.ndarray, " records"]:
    numbers: dict[Hashable, float] = {}  # in [0, 1), the same on every machine
    for place, key in enumerate(keys):
        if key is None:
            raise DataError(f"record {place}: {kind}", None, "each record has a group of each kind", "give it a key")
        if key not in numbers:
            digest = hashlib.sha256(f"{seed}/{kind}/{plain(key)!r}".encode()).digest()
            numbers[key] = int.from_bytes(digest[:6], "big") / 2**48
    edges = np.cumsum([shares.test, shares.validation])
    return np.searchsorted(edges, np.array([numbers[key] for key in keys]), side="right")


def plain(value: Hashable) -> Hashable:
    """A NumPy number as Python's, so that the same key has the same text."""
    return value.item() if isinstance(value, np.generic) else value
