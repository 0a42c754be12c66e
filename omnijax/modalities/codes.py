"""Fragments that come as natural digits already: the codes of a codec of your own, or made data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int, UInt32

from omnijax.errors import ConfigError, DataError
from omnijax.modalities.base import Items, Modality, Part, array_of, refuse_digits


@dataclasses.dataclass(frozen=True)
class Codes(Modality):
    """A sequence of codes. A signal is uint32[items, places], the natural digits of each code."""

    name: str = "codes"
    radices: tuple[int, ...] = (256,)
    """Of the digits of a code, most significant first; each at most 2^32."""
    size: int = 0
    """Number of different codes, at most the product of the radices; 0 is the product."""
    least: int = 1
    """Fewest codes of a signal."""
    most: int = 255
    """Most codes of a signal."""

    lossless: ClassVar[bool] = True

    @property
    def parts(self) -> tuple[Part, ...]:
        """The codes."""
        return (Part(self.name, self.radices, self.size),)

    @property
    def limits(self) -> tuple[tuple[int, int], ...]:
        """Fewest and most codes."""
        return ((self.least, self.most),)

    def check(self, field: str) -> None:
        """Raises a `ConfigError` for radices, a size or lengths out of their bounds."""
        if not self.radices or not all(2 <= radix <= 2**32 for radix in self.radices):
            raise ConfigError(f"{field}.radices", self.radices, "each must be in 2 … 2^32", "choose others")
        self.check_bounds(field, size=(0, math.prod(self.radices)), least=(0, self.most))

    def encode(self, signals: Sequence[Int[np.ndarray, "items places"]]) -> Items:
        """The codes as they are; raises a `DataError` for another number of places, or a digit not below its radix."""
        arrays, places = [array_of(self.name, signal) for signal in signals], len(self.radices)
        for array in arrays:
            if array.ndim != 2 or array.shape[1] != places or array.dtype.kind not in "iu":
                rule = f"codes are whole numbers of [items, {places}]"
                raise DataError(f"{self.name} codes", f"{array.dtype}{list(array.shape)}", rule, "convert them")
        flat = np.concatenate([np.zeros((0, places), np.uint32), *arrays])
        wrong = (flat < 0) | (flat >= np.array(self.radices, np.int64))
        if wrong.any():
            rule = f"digits must be below their radices {self.radices}"
            raise DataError(f"{self.name} digit", flat[wrong][0].item(), rule, "check the codec that made it")
        counts = np.array([len(array) for array in arrays], np.int64)
        return Items(np.zeros(len(flat), np.int8), flat.astype(np.uint32), counts)

    def decode(
        self, items: Items, present: Bool[np.ndarray, " items"] | None = None
    ) -> UInt32[np.ndarray, "items places"]:
        """The codes; what isn't present is 0."""
        refuse_digits(self, items)
        digits = items.of(0, len(self.radices))
        return digits if present is None else np.where(np.asarray(present)[:, None], digits, 0).astype(np.uint32)

    def units(self, signal: UInt32[np.ndarray, "items places"]) -> tuple[int, str]:
        """Number of codes."""
        return len(signal), "code"

    def parse(self, text: str) -> UInt32[np.ndarray, "items places"]:
        """Codes with spaces between them, the digits of a code with dots: `3.17 0.4`; else raises a `DataError`."""
        try:
            codes = [[int(digit) for digit in code.split(".")] for code in text.split()]
            return np.array(codes, np.uint32).reshape(len(codes), len(self.radices))
        except (ValueError, OverflowError) as error:
            rule = f"codes are written as {'.'.join('0' * len(self.radices))}, with spaces between them"
            raise DataError(self.name, text, rule, "give whole numbers") from error

    def show(self, signal: UInt32[np.ndarray, "items places"]) -> str:
        """What `parse` reads."""
        return " ".join(".".join(str(digit) for digit in code) for code in np.asarray(signal).tolist())
