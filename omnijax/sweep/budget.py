"""What every arm of a sweep may spend."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Literal

from omnijax.errors import ConfigError

Kind = Literal["items", "flops", "seconds"]


@dataclasses.dataclass(frozen=True)
class Budget:
    """One amount, the same for every arm.

    Attributes:
        kind: `items` seen in training; `flops` of training, by formula; or `seconds` of training, by the measured
            time of a step.

    Raises:
        ConfigError: there is no such kind, or the amount isn't a number above 0.
    """

    kind: Kind
    amount: float

    def __post_init__(self) -> None:
        if self.kind not in typing.get_args(Kind):
            raise ConfigError("budget.kind", self.kind, "must be items, flops or seconds", "choose one")
        if not 0 < self.amount < math.inf:
            raise ConfigError("budget.amount", self.amount, "must be a number above 0", "raise it")


def parse_budget(text: str) -> Budget:
    """The budget of a command line: `items=400000`, `flops=2e13`, `seconds=60`.

    Raises:
        ConfigError: the text is no budget.
    """
    kind, _, amount = text.partition("=")
    try:
        return Budget(typing.cast(Kind, kind), float(amount))  # Budget checks the kind
    except ValueError as error:
        rule = "a budget is KIND=AMOUNT"
        raise ConfigError("--budget", text, rule, "write items=400000, flops=2e13 or seconds=60") from error
