"""What arms may spend, and what they are reckoned to take."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import time
import typing
from pathlib import Path
from typing import Literal

import jax

from omnijax.config import Config
from omnijax.data.pipeline import Batches
from omnijax.errors import ConfigError
from omnijax.model.build import model_of
from omnijax.model.transformer import parameter_count
from omnijax.step.sharding import make_mesh
from omnijax.step.state import init_state, make_step
from omnijax.train import ahead_on_device

Kind = Literal["items", "flops", "seconds"]
WARM, TIMED = 3, 15
"""Steps before time is taken, and steps it is taken of."""
STATE_BYTES = 4 + 4 + 4 + 4
"""Of a parameter: itself, its two moments, its gradient."""
LOGITS = 3
"""Arrays as large as the logits that live at once: they, their probabilities, their gradient."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """What each arm may spend: one thing, the same for all.

    Attributes:
        kind: `items` seen; `flops` of training, by formula; or `seconds` of training, by the measured speed of a step.
        amount: how many.

    Raises:
        ConfigError: there is no such kind, or the amount isn't above 0.
    """

    kind: Kind
    amount: float

    def __post_init__(self) -> None:
        if self.kind not in typing.get_args(Kind):
            raise ConfigError("budget.kind", self.kind, "must be items, flops or seconds", "choose one")
        if not 0 < self.amount < math.inf:
            raise ConfigError("budget.amount", self.amount, "must be a number above 0", "raise it")


def parse_budget(text: str) -> Budget:
    """A budget as people write it: `items=400000`, `flops=2e13`, `seconds=60`.

    Raises:
        ConfigError: it is none.
    """
    kind, _, amount = text.partition("=")
    try:
        return Budget(typing.cast(Kind, kind), float(amount))  # what it isn't, the budget says
    except ValueError as error:
        rule = "a budget is a kind and an amount, with = between them"
        raise ConfigError("--budget", text, rule, "write items=400000, flops=2e13 or seconds=60") from error


def parameters(config: Config) -> int:
    """How many the model has, padding included; none is made."""
    shapes = jax.eval_shape(model_of(config).init, jax.eval_shape(lambda: jax.random.key(0)))
    return parameter_count(shapes)


def predicted_bytes(config: Config, longest_document: int) -> int:
    """Memory that an arm takes, about: the state, and the logits of a micro-batch or of an evaluated batch.

    Args:
        config: of the arm, with its `sequence_length`.
        longest_document: in tokens.
    """
    trained = config.batch.size // config.optim.accumulate * (config.batch.sequence_length - 1)
    measured = min(config.eval.batch_size, config.eval.examples) * longest_document
    return STATE_BYTES * parameters(config) + LOGITS * 4 * config.vocabulary.size * max(trained, measured)


def machine_bytes() -> int:
    """Memory of this machine: of its accelerators if it has some, else what a process may use of the main memory.

    JAX is asked in a process of its own, since one that has seen an accelerator may keep others away from it.
    """
    ask = (
        "import json, jax; d = jax.local_devices(); "
        "print(json.dumps([d[0].platform, sum((x.memory_stats() or {}).get('bytes_limit', 0) for x in d)]))"
    )
    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    if found.returncode == 0:
        platform, limit = json.loads(found.stdout.splitlines()[-1])
        if platform != "cpu" and limit:
            return int(limit)
    main = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    group = Path("/sys/fs/cgroup/memory.max")
    allowed = group.read_text().strip() if group.is_file() else "max"
    return min(main, int(allowed)) if allowed.isdigit() else main


def seconds_a_step(config: Config, batches: Batches) -> float:
    """Median seconds of a training step, compilation excluded, batches read ahead as in training.

    Args:
        config: of the arm, with its `sequence_length`.
        batches: of it.
    """
    mesh = make_mesh(config.mesh)
    model = model_of(config)
    step, state = make_step(config, model, mesh), init_state(config, model, mesh)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=WARM + TIMED))
    taken = []
    for batch in ahead_on_device(mesh, batches, 0, config):
        started = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[WARM:])
