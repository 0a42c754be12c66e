"""One run: all knobs together, and what holds between them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

from omnijax.config.batch import BatchConfig
from omnijax.config.evaluation import LARGEST, SEEDS, SMALLEST, EvalConfig, Target
from omnijax.config.model import ModelConfig
from omnijax.config.optim import MeshConfig, OptimConfig, TrainConfig
from omnijax.config.writing import Writing, vocabulary_of
from omnijax.errors import ConfigError, check_known, shortened
from omnijax.source import SEQUENCE, Source
from omnijax.vocab.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Config:
    """One run."""

    data: Source
    batch: BatchConfig
    model: ModelConfig = ModelConfig()
    writing: Writing = Writing()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self) -> None:
        _check_bounds(self)
        self.data.check()
        for field, modality in self.data.fields.items():
            modality.check(f"data.{field}")
        _ = self.vocabulary
        _check_tasks(self)
        _check_evaluation(self)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """What the model reads and writes: it follows from `writing` and the fields of `data`."""
        return vocabulary_of(self.writing, self.data.fields)

    @property
    def generated(self) -> tuple[str, ...]:
        """Fields that can be generated: all that a task trains with a weight above 0."""
        pairs = (zip(task.names, task.weights, strict=True) for task in self.batch.tasks)
        trained = {name for task in pairs for name, weight in task if weight > 0}
        return tuple(name for name in self.data.fields if name in trained or SEQUENCE in trained)

    def target(self, field: str) -> Target:
        """How a field is generated; raises a `ConfigError` if no task trains it."""
        check_known("field", field, self.generated, "the run can generate")
        return next((target for target in self.eval.targets if target.name == field), Target(field))


MOST_RATE = 1000
"""Of learning rate and weight decay: far above what works, and so low that no parameter overflows in a step."""
_COUNTS = {
    "batch": ("size", "prefetch"),
    "model": ("depth", "width", "heads", "kv_heads", "head_size", "mlp_width", "head_depth", "unroll"),
    "optim": ("accumulate",),
    "train": ("steps", "log_every", "checkpoint_every", "keep_checkpoints"),
    "eval": ("examples", "batch_size", "show"),
}
_SEEDS: dict[str, tuple[str, ...]] = {"batch": ("seed",), "train": ("seed",), "eval": ("seed",)}
_BELOW_1 = {"optim": ("beta1", "beta2"), "model": ("dropout",), "train": ("digit_noise",)}
_Rule = tuple[str, Callable[[float], bool], dict[str, tuple[str, ...]]]
_RULES: tuple[_Rule, ...] = (
    ("in 1 … 2^31 - 1", lambda n: 1 <= n < 2**31, _COUNTS),
    ("in 2 … 2^31 - 1", lambda n: 2 <= n < 2**31, {"batch": ("sequence_length",)}),
    ("in 0 … 2^31 - 1", lambda n: 0 <= n < 2**31, {"batch": ("sequence_items",), "optim": ("warmup_steps",)}),
    (f"in 0 … {SEEDS - 1}", lambda n: 0 <= n < SEEDS, _SEEDS),
    (f"above 0 and at most {MOST_RATE:,}", lambda n: 0 < n <= MOST_RATE, {"optim": ("learning_rate",)}),
    ("a number above 0", lambda n: 0 < n < math.inf, {"optim": ("clip_norm",)}),
    (f"a number in {SMALLEST:g} … {LARGEST:g}", lambda n: SMALLEST <= n <= LARGEST, {"model": ("rope_base",)}),
    (f"in 0 … {MOST_RATE:,}", lambda n: 0 <= n <= MOST_RATE, {"optim": ("weight_decay",)}),
    ("in [0, 1]", lambda n: 0 <= n <= 1, {"optim": ("final_fraction",)}),
    ("in [0, 1)", lambda n: 0 <= n < 1, _BELOW_1),
)


def _check_bounds(config: Config) -> None:
    """Checks each number against its bounds."""
    for rule, holds, parts in _RULES:
        for part, names in parts.items():
            for name in names:
                value = getattr(getattr(config, part), name)
                if not holds(value):
                    raise ConfigError(f"{part}.{name}", value, f"must be {rule}", "see --knobs for what it means")
    radices, base = config.model.natural_digits, config.writing.base
    if radices and (min(radices) < 2 or math.prod(radices) != base):
        rule = f"each radix must be 2 or more, and their product must be writing.base = {base}"
        raise ConfigError("model.natural_digits", radices, rule, "change one of them, or use ()")


def _check_tasks(config: Config) -> None:
    if not config.batch.tasks:
        raise ConfigError("batch.tasks", (), "there must be something to train on", "add a task")
    for number, task in enumerate(config.batch.tasks):
        path = f"batch.tasks.{number}"
        if not task.fields or len(task.fields) != len(task.weights):
            rule = f"one for each of the fields {shortened(str(task.fields))}"
            raise ConfigError(f"{path}.weights", task.weights, rule, "add or drop one")
        for name, value, most in (("repeats", task.repeats, 2**31 - 1), ("draws", task.draws, 1024)):
            if not 1 <= value <= most:
                raise ConfigError(f"{path}.{name}", value, f"must be in 1 … {most:,}", "change it")
        for weight in (*task.weights, max(task.weights)):
            if not (SMALLEST <= weight <= LARGEST or (weight == 0 < max(task.weights))):
                rule = f"weights must be 0 or in {SMALLEST:g} … {LARGEST:g}, and one of them above 0"
                raise ConfigError(f"{path}.weights", task.weights, rule, "change them, or drop the task")
        if len(task.random_orders) != len(task.fields) or not all(0 <= share <= 1 for share in task.random_orders):
            rule = f"one share in [0, 1] for each of the fields {shortened(str(task.fields))}"
            raise ConfigError(f"{path}.random_order", task.random_order, rule, "use () for none")
        if SEQUENCE in task.fields and len(task.fields) > 1:
            rule = f"{SEQUENCE!r} is a whole document, and stands alone"
            raise ConfigError(f"{path}.fields", task.fields, rule, "make it a task of its own")
        for name, share in zip(task.fields, task.random_orders, strict=True):
            _check_field(config, path, name, share)


def _check_field(config: Config, task: str, name: str, share: float) -> None:
    """Checks a field or view of a task, and whether it can be written in random order if some documents are."""
    fields, (field, *view) = config.data.fields, name.split("/", 1)
    if field != SEQUENCE:
        check_known(f"{task}.fields", field, fields, "the fields of the data are")
        for one in view:
            check_known(f"{task}.fields", one, fields[field].views, f"the views of {field!r} are")
    if share > 0 and (field == SEQUENCE or not fields[field].parts):
        rule = f"{field!r} is written in general tokens, which have no positions"
        raise ConfigError(f"{task}.random_order", share, rule, "set its share to 0")
    if share > 0 and (where := config.writing.position) != "before":
        rule = f"writing.position is {where!r}: nothing says where a fragment belongs before it is written"
        raise ConfigError(f"{task}.random_order", share, rule, "use position='before', or ()")


def _check_evaluation(config: Config) -> None:
    generated, fields = config.generated, config.data.fields
    for target in config.eval.targets:
        check_known("eval.targets", target.name, fields, "the fields are")
        target.sample.check(f"eval.targets.{target.name}")
    side = config.eval.split.partition("/")[0]
    for kind in config.eval.held_out:
        check_known("eval.held_out", f"{side}/{kind.kind}", config.data.splits, "the splits are")
    for route in (*config.eval.routes, *(route for kind in config.eval.held_out for route in kind.routes)):
        through = route.through
        if len(through) < 2 or through[0] not in fields or not set(through[1:]) <= set(generated):
            rule = f"a field ({', '.join(fields)}), then fields that a task trains ({', '.join(generated)})"
            raise ConfigError("eval.routes", through, rule, "add a task, or change the route")
    check_known("eval.split", config.eval.split, config.data.splits, "the splits are")
    halves = [f"{name}/{half}" for name, modality in fields.items() for half in modality.halves]
    for one in config.eval.completions:
        check_known("eval.completions", one.name, halves, "what can be completed is")
        if not any(task.names[0] == one.field and task.random_orders[0] > 0 for task in config.batch.tasks):
            rule = f"needs a task whose documents begin with {one.field!r}, some of them in random order"
            raise ConfigError("eval.completions", one.name, rule, "set random_order there, or use ()")
