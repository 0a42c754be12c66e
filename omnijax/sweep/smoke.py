"""`--smoke`: any sweep in small, to see whether all of it works."""

from __future__ import annotations

import dataclasses
from typing import Any

from omnijax.config import Config
from omnijax.plan.cost import step_flops
from omnijax.sweep.budget import Budget
from omnijax.sweep.sweep import Sweep

STEPS, SEEDS, POINTS, SECONDS = 12, 2, 2, 0.5


def shrunk(config: Config) -> Config:
    """A model with at most two narrow layers, small batches, few evaluated records, and data of the same kind in small.

    Tasks stay the same, and so do the numbers of heads, which a mesh may have to divide.
    """
    model = _at_most(config.model, depth=2, width=32, head_size=8, mlp_width=64, unroll=1)
    batch = _at_most(config.batch, size=8 * config.optim.accumulate)
    measured = dataclasses.replace(_at_most(config.eval, examples=12, show=4), batch_size=12)
    data = config.data.small(f"{config.data.directory}-smoke")
    return dataclasses.replace(config, data=data, model=model, batch=batch, eval=measured)


def _at_most(part: Any, **limits: int) -> Any:
    return dataclasses.replace(part, **{name: min(getattr(part, name), limit) for name, limit in limits.items()})


def shrunk_sweep(sweep: Sweep) -> Sweep:
    """The same arms in small, for a budget of a few steps.

    Raises:
        OmnijaxError: an arm can't be shrunk; the error names the arm.
    """
    small, kind = sweep.changed(shrunk), sweep.budget.kind
    config = small.arms[small.baseline]
    items = max(config.batch.sequence_items, 1)
    # The number of steps depends on how full the sequences are; two tokens per item are enough for an estimate.
    step = dataclasses.replace(config, batch=dataclasses.replace(config.batch, sequence_length=2 * items + 1))
    amounts = {"items": STEPS * config.batch.size * items, "flops": STEPS * step_flops(step) * 2 // 3}
    budget = Budget(kind, amounts.get(kind, SECONDS))
    return dataclasses.replace(small, seeds=min(sweep.seeds, SEEDS), points=POINTS, budget=budget)
