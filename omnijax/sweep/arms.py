"""Arms of a sweep: named changes of a configuration, and how they combine.

`Choices` map names to functions that change a configuration. `knob` and the functions below it make choices, `product`
and `chain` combine them, and `arms_of` applies them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from omnijax.config import Config
from omnijax.errors import ConfigError, OmnijaxError
from omnijax.experiment import override
from omnijax.vocab.assignment import Assignment
from omnijax.vocab.radix import Base

Change = Callable[[Config], Config]
Choices = dict[str, Change]
Made = TypeVar("Made")
NO_POSITION: dict[str, Any] = {"position": "none", "positions": 0, "position_places": 1}


def product(first: Choices, *others: Choices) -> Choices:
    """Every combination of one choice from each argument, `base=2,model.depth=4`; one name twice is a `ConfigError`."""
    for other in others:
        pairs = itertools.product(first.items(), other.items())
        first = _named((f"{one},{two}", _then(change, after)) for (one, change), (two, after) in pairs)
    return first


def _then(change: Change, after: Change) -> Change:
    return lambda config: after(change(config))


def chain(*choices: Choices) -> Choices:
    """All choices of all arguments, in order; raises a `ConfigError` if two have the same name."""
    return _named(pair for one in choices for pair in one.items())


def arms_of(config: Config, choices: Choices) -> dict[str, Config]:
    """The configuration of each choice, by name. If one is invalid, raises an `OmnijaxError` that names its arm."""
    return {name: naming(name, change, config) for name, change in choices.items()}


def naming(name: str, change: Callable[..., Made], *arguments: Any) -> Made:
    """Calls a function, and adds the name of an arm to the errors that it raises."""
    try:
        return change(*arguments)
    except OmnijaxError as error:
        raise type(error)(f"arms.{name}.{error.field}", error.value, error.rule, error.fix) from error


def knob(path: str, *values: Any, name: str = "") -> Choices:
    """One knob at several values: `knob("model.depth", 2, 4)` gives `model.depth=2` and `model.depth=4`.

    `path` is dotted, with numbers for the parts of a tuple, as on the command line. `name` is written in its place.
    Raises a `ConfigError` if two values give the same name.
    """

    def change(value: Any, config: Config) -> Config:
        return override(config, [f"--{path}", *map(str, value if isinstance(value, tuple) else (value,))])

    return _choices(name or path, values, change)


def bases(*values: Base) -> Choices:
    """`base=64`, with as many digit tokens as the base needs; `base=64x1304` has one base for each digit place."""
    return _choices("base", values, lambda base, config: _rewritten(config, base=base, digits=0))


def flat() -> Choices:
    """One token per item, as with a flat softmax: the base is the size of the largest space, without positions."""

    def change(config: Config) -> Config:
        size = max([2, *(space.room for space in config.vocabulary.spaces)])
        return _rewritten(config, base=size, digits=0, width="fixed", **NO_POSITION)

    return {"flat": change}


def heads(*values: str) -> Choices:
    """What predicts the tokens of an item: `head=token`, `head=depth`, `head=parallel`."""
    return knob("model.head", *values, name="head")


def positions(*values: str) -> Choices:
    """Where the position of a fragment is written: `position=before`, `position=after`, or `position=none`."""
    changes = {value: NO_POSITION if value == "none" else {"position": value} for value in values}
    return _choices("position", values, lambda value, config: _rewritten(config, **changes[value]))


def assignments(space: str, kinds: Mapping[str, Assignment | Callable[[Config], Assignment]]) -> Choices:
    """Which number each fragment of a space gets: `ids=NAME`.

    `kinds` has an assignment for each name, or a function from a configuration to an assignment.
    """

    def change(name: str, config: Config) -> Config:
        config.vocabulary.space_index(space)
        others = [pair for pair in config.writing.assignments if pair[0] != space]
        kind = kinds[name]
        return _rewritten(config, assignments=(*others, (space, kind(config) if callable(kind) else kind)))

    return _choices("ids", [*kinds], change)


def _choices(name: str, values: Sequence[Any], change: Callable[[Any, Config], Config]) -> Choices:
    """`NAME=VALUE` for each value; the parts of a tuple are joined by `x`."""
    told = ("x".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in values)
    return _named((f"{name}={text}", functools.partial(change, value)) for text, value in zip(told, values))


def _named(pairs: Iterable[tuple[str, Change]]) -> Choices:
    choices: Choices = {}
    for name, change in pairs:
        if name in choices:
            raise ConfigError("arms", name, "two arms have this name", "drop one of the two")
        choices[name] = change
    return choices


def _rewritten(config: Config, **changes: Any) -> Config:
    return dataclasses.replace(config, writing=dataclasses.replace(config.writing, **changes))
