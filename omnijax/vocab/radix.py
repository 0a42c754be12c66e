"""Converts Python integers to digits, in one radix or in a mixed radix (a radix for each digit place).

Tables and checks use these functions. `numbers.py` has the fast ones for arrays.
"""

from __future__ import annotations

import math

Base = int | tuple[int, ...]
"""One radix for all digit places, or a radix for each place, most significant first."""


def width_of(number: int, base: Base) -> int:
    """Digits of `number` ≥ 0 without leading zeros; 0 has one. Raises a `ValueError` if a mixed radix has too few.

    >>> width_of(9, 9), width_of(8, 9), width_of(0, 9), width_of(4096, (64, 4096))
    (2, 1, 1, 2)
    """
    width, reach = 1, radices_of(base, 1)[0]
    while number >= reach:
        width += 1
        reach = math.prod(radices_of(base, width)) if isinstance(base, tuple) else reach * base
    return width


def radices_of(base: Base, width: int) -> tuple[int, ...]:
    """The radices of `width` digits, most significant first; raises a `ValueError` if a mixed radix has too few.

    >>> radices_of(9, 3), radices_of((4, 64, 4096), 2)
    ((9, 9, 9), (64, 4096))
    """
    if not isinstance(base, tuple):
        return (base,) * width
    if width > len(base):
        raise ValueError(f"{base} has {len(base)} places, and {width} are needed")
    return base[len(base) - width :]


def radices_for(size: int, base: Base) -> tuple[int, ...]:
    """The radices of the largest of `size` numbers."""
    return radices_of(base, width_of(size - 1, base))


def to_digits(number: int, radices: tuple[int, ...]) -> list[int]:
    """Digits of a number, one for each radix, most significant first.

    >>> to_digits(9, (9, 9)), to_digits(4097, (64, 4096))
    ([1, 0], [1, 1])
    """
    digits = []
    for radix in reversed(radices):
        number, digit = divmod(number, radix)
        digits.append(digit)
    return digits[::-1]
