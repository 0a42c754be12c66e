"""A benchmark or a proof in parts, so that a long one can be done piece by piece."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def add_part(parser: argparse.ArgumentParser) -> None:
    """Adds the option `--part K/N`."""
    parser.add_argument("--part", default="1/1", metavar="K/N", help="do only the K-th of N parts; all by default")


def pick(items: Iterable[Item], part: str) -> Sequence[Item]:
    """Every N-th item from the K-th on.

    Args:
        items: all items, in an order that never changes.
        part: `K/N`, with 1 ≤ K ≤ N.

    Raises:
        SystemExit: the part isn't of this form.
    """
    first, _, count = part.partition("/")
    if not (first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
        raise SystemExit(f"--part {part}: must be K/N with 1 ≤ K ≤ N, such as 3/10")
    return list(items)[int(first) - 1 :: int(count)]
