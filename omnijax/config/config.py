"""One run: all knobs together, and what holds between them."""

from __future__ import annotations

import dataclasses
import functools
import math

from omnijax.config.batch import BatchConfig, field_of
from omnijax.config.evaluation import EvalConfig, Target
from omnijax.config.model import ModelConfig
from omnijax.config.optim import MeshConfig, OptimConfig, TrainConfig
from omnijax.config.writing import Writing, vocabulary_of
from omnijax.errors import ConfigError
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
        trained = [
            name
            for task in self.batch.tasks
            for name, weight in zip(task.names, task.weights, strict=True)
            if weight > 0
        ]
        every = dict.fromkeys(self.data.fields if SEQUENCE in trained else trained)
        return tuple(name for name in self.data.fields if name in every)

    def target(self, field: str) -> Target:
        """How a field is generated.

        Raises:
            ConfigError: no task trains it.
        """
        if field not in self.generated:
            rule = f"the run can generate {', '.join(self.generated) or 'nothing'}"
            raise ConfigError("field", field, rule, "choose one of these")
        named = {target.name: target for target in self.eval.targets}
        return named[field] if field in named else Target(field)


def _check_bounds(config: Config) -> None:
    """Checks each number against its bounds."""
    for path, least in (
        ("batch.size", 1),
        ("batch.sequence_length", 2),
        ("batch.sequence_items", 0),
        ("batch.prefetch", 1),
        ("model.depth", 1),
        ("model.width", 1),
        ("model.heads", 1),
        ("model.kv_heads", 1),
        ("model.mlp_width", 1),
        ("model.head_depth", 1),
        ("optim.warmup_steps", 0),
        ("optim.accumulate", 1),
        ("train.steps", 1),
        ("train.log_every", 1),
        ("train.checkpoint_every", 1),
        ("train.keep_checkpoints", 1),
        ("eval.examples", 1),
        ("eval.batch_size", 1),
        ("eval.show", 1),
    ):
        part, name = path.split(".")
        value = getattr(getattr(config, part), name)
        if value < least:
            raise ConfigError(path, value, f"must be at least {least}", f"use {least} or more")
    optim = config.optim
    for name, holds, rule in (
        ("learning_rate", 0 < optim.learning_rate < math.inf, "must be a number above 0"),
        ("clip_norm", 0 < optim.clip_norm < math.inf, "must be a number above 0"),
        ("weight_decay", 0 <= optim.weight_decay < math.inf, "must be a number, 0 or above"),
        ("final_fraction", 0 <= optim.final_fraction <= 1, "must be in [0, 1]"),
        ("beta1", 0 <= optim.beta1 < 1, "must be in [0, 1)"),
        ("beta2", 0 <= optim.beta2 < 1, "must be in [0, 1)"),
    ):
        if not holds:
            raise ConfigError(f"optim.{name}", getattr(optim, name), rule, "see --knobs for what it means")
    if not 0 <= config.model.dropout < 1:
        raise ConfigError("model.dropout", config.model.dropout, "must be in [0, 1)", "use 0 for none")
    if not 0 <= config.train.digit_noise < 1:
        raise ConfigError("train.digit_noise", config.train.digit_noise, "must be in [0, 1)", "use 0 for none")


def _check_tasks(config: Config) -> None:
    if not config.batch.tasks:
        raise ConfigError("batch.tasks", (), "there must be something to train on", "add a task")
    for number, task in enumerate(config.batch.tasks):
        field = f"batch.tasks.{number}"
        if not task.fields or len(task.fields) != len(task.weights):
            rule = f"one for each of the fields {task.fields}"
            raise ConfigError(f"{field}.weights", task.weights, rule, "add or drop one")
        if task.repeats < 1 or min(task.weights) < 0 or max(task.weights) <= 0:
            rule = "repeats must be ≥ 1, weights ≥ 0 and one of them > 0"
            raise ConfigError(field, task, rule, "or leave the task out")
        if task.random_order and not (
            len(task.random_order) == len(task.fields) and all(0 <= share <= 1 for share in task.random_order)
        ):
            rule = f"one share in [0, 1] for each of the fields {task.fields}"
            raise ConfigError(f"{field}.random_order", task.random_order, rule, "use () for none")
        for name, share in zip(task.fields, task.random_orders, strict=True):
            _check_field(config, f"{field}.fields", name)
            if share > 0:
                _check_random_order(config, f"{field}.random_order", name, share)
        if SEQUENCE in task.fields and len(task.fields) > 1:
            rule = f"{SEQUENCE!r} is a whole document, and stands alone"
            raise ConfigError(f"{field}.fields", task.fields, rule, "make it a task of its own")


def _check_field(config: Config, path: str, name: str) -> None:
    fields, field = config.data.fields, field_of(name)
    if field == SEQUENCE:
        return
    if field not in fields:
        raise ConfigError(path, name, f"the fields of the data are {', '.join(fields)}", "use one of these")
    view = name.removeprefix(field).removeprefix("/")
    if view and view not in fields[field].views:
        there = ", ".join(fields[field].views) or "none"
        raise ConfigError(path, name, f"the views of {field!r} are {there}", "use one of these")


def _check_random_order(config: Config, path: str, name: str, share: float) -> None:
    field = field_of(name)
    if field == SEQUENCE or not config.data.fields[field].parts:
        rule = f"{field!r} is written in general tokens, which have no positions"
        raise ConfigError(path, share, rule, "set its share to 0")
    if config.writing.position != "before":
        rule = (
            f"writing.position is {config.writing.position!r}, so that nothing says where the next fragment belongs "
            "before it is written"
        )
        raise ConfigError(path, share, rule, "use position='before', or ()")


def _check_evaluation(config: Config) -> None:
    generated, fields = config.generated, config.data.fields
    for target in config.eval.targets:
        if target.name not in fields:
            raise ConfigError("eval.targets", target.name, f"the fields are {', '.join(fields)}", "use one of these")
    for route in config.eval.routes:
        through = route.through
        if len(through) < 2 or through[0] not in fields or not set(through[1:]) <= set(generated):
            rule = f"a field ({', '.join(fields)}), then fields that a task trains ({', '.join(generated)})"
            raise ConfigError("eval.routes", through, rule, "add a task, or change the route")
    if config.eval.split not in config.data.splits:
        raise ConfigError("eval.split", config.eval.split, f"the splits are {', '.join(config.data.splits)}", "use one")
    for one in config.eval.completions:
        if one.field not in fields or one.half not in fields[one.field].halves:
            there = ", ".join(f"{name}/{half}" for name, modality in fields.items() for half in modality.halves)
            raise ConfigError("eval.completions", one.name, f"what can be completed is {there or 'nothing'}", "use ()")
        if not any(task.names[0] == one.field and task.random_orders[0] > 0 for task in config.batch.tasks):
            rule = f"needs a task whose documents begin with {one.field!r}, some of them in random order"
            raise ConfigError("eval.completions", one.name, rule, "set random_order there, or use ()")
