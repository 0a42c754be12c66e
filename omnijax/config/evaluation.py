"""What is measured, and how tokens are drawn."""

from __future__ import annotations

import dataclasses
from typing import Literal

from omnijax.errors import ConfigError

SMALLEST, LARGEST = 1e-30, 1e30
"""Bounds of knobs that become float32. They leave room for a product with a number of the model."""
SEEDS = 2**32
"""Number of seeds. JAX keeps 32 bits of a seed: two that differ by a multiple of this would give the same key."""


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """How tokens are drawn."""

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_k: int = 0
    """Draw from the k likeliest; 0 from all."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that together have this probability."""
    grammar: bool = True
    """Only tokens that can still become a decodable document."""

    def check(self, field: str) -> None:
        """Raises a `ConfigError` if a value is out of its bounds. The error names it as `FIELD.NAME`."""
        for name, holds, rule in (
            ("temperature", 0 <= self.temperature <= LARGEST, f"must be in 0 … {LARGEST:g}; 0 takes the likeliest"),
            ("top_k", 0 <= self.top_k < 2**31, "must be in 0 … 2^31 - 1; 0 draws from all"),
            ("top_p", 0 < self.top_p <= 1, "must be above 0 and at most 1"),
        ):
            if not holds:
                raise ConfigError(f"{field}.{name}", getattr(self, name), rule, "choose another value")


@dataclasses.dataclass(frozen=True)
class Target:
    """How one field is generated. Its modality says how many items it has."""

    name: str
    """Of the field."""
    sample: SampleConfig = SampleConfig()
    order: Literal["raster", "any"] = "raster"
    """Order in which the fragments are written: by position, or as the model likes, which needs position tokens."""


@dataclasses.dataclass(frozen=True)
class Route:
    """The fields that an evaluated direction goes through, first to last."""

    through: tuple[str, ...]

    @property
    def name(self) -> str:
        """The direction: `FIRST->LAST`."""
        return f"{self.through[0]}->{self.through[-1]}"


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Splits that hold out one kind of group, such as an artist, and the routes that are measured on them."""

    kind: str
    """The splits are `validation/KIND` and `test/KIND`; `eval.split` says which of the two is measured."""
    routes: tuple[Route, ...]


@dataclasses.dataclass(frozen=True)
class Completion:
    """Signals of a field are completed, of which one half is given. The field must be trained in random order."""

    field: str
    half: str
    """One of the modality's `halves`."""

    @property
    def name(self) -> str:
        """`FIELD/HALF`."""
        return f"{self.field}/{self.half}"


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """What `omnijax evaluate` measures."""

    targets: tuple[Target, ...] = ()
    """How fields are generated; a field that isn't named here is drawn at temperature 1.

    On the command line, a target is set by the name of its field: `--eval.targets.FIELD.top_p 0.9`.
    """
    routes: tuple[Route, ...] = ()
    """The directions whose results are judged."""
    split: str = "validation"
    """The split that is measured. Tune on `validation`; publish on `test`, once."""
    examples: int = 360
    """Number of records; the first ones of the split."""
    batch_size: int = 120
    """Documents that are sampled side by side."""
    seed: int = 0
    show: int = 20
    """Examples of each direction that the report gets."""
    held_out: tuple[HeldOut, ...] = ()
    """Further splits that are measured, each along routes of its own."""
    completions: tuple[Completion, ...] = ()
    """Halves that are given, for the rest to be completed."""
