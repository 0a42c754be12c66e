"""What the assignments share: arrays of numbers in blocks that stay in the processor's cache, and tables of numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import below, blocks, check_form, to_int64, to_ints, to_limbs

WIDTH = 16
"""Words that an assignment keeps of a number while it reckons, about."""


def in_blocks(function: Callable[[Numbers], Numbers], numbers: Numbers, size: int) -> Numbers:
    """`function` of the numbers, some thousands at a time, in the form that they have.

    Raises:
        VocabularyError: a number isn't in 0 … size - 1, or they are no `Numbers`.
    """
    result = np.empty_like(check_form(numbers, "ids"))
    for part in blocks(len(numbers), WIDTH):
        block = numbers[part]
        inside = below(block, size)
        if not inside.all():
            wrong = to_ints(block[~inside][:1])[0]
            raise VocabularyError("ids", wrong, f"must be in 0 … {size - 1}", "check where they come from")
        result[part] = like(block, function(block))
    return result


def like(form: Numbers, numbers: Numbers) -> Numbers:
    """The numbers in the form of others."""
    return to_int64(numbers) if form.ndim == 1 else to_limbs(numbers, form.shape[1])


def look_up(table: NDArray[np.integer], numbers: Numbers) -> Numbers:
    """The entries of a table at these numbers, in their form.

    Raises:
        VocabularyError: the table has no such entry.
    """
    return in_blocks(lambda block: table[to_int64(block)].astype(np.int64), numbers, len(table))
