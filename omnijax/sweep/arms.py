"""Arms of a sweep: named changes of a configuration, and how they combine.

A choice is a name and a function from a configuration to another one. `product`, `zipped` and `chain` make many of few,
and `arms_of` applies them. The usual ones stand below.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from omnijax.config import Config
from omnijax.errors import ConfigError, OmnijaxError
from omnijax.vocab.assignment import Assignment
from omnijax.vocab.cost import rebased
from omnijax.vocab.radix import Base
from omnijax.vocab.vocabulary import Vocabulary

Change = Callable[[Config], Config]
Choices = dict[str, Change]


def product(*choices: Choices) -> Choices:
    """Every choice of the first with every one of the second, and so on: `base=2,model.depth=4`.

    Raises:
        ConfigError: two of them have the same name.
    """
    return _named(_together(parts) for parts in itertools.product(*(one.items() for one in choices)))


def zipped(*choices: Choices) -> Choices:
    """The first of each together, then the second of each, and so on.

    Raises:
        ConfigError: they are not of one length, or two of them have the same name.
    """
    lengths = [len(one) for one in choices]
    if len(set(lengths)) > 1:
        raise ConfigError("zipped", lengths, "must all have as many choices", "add or drop some, or use product")
    return _named(_together(parts) for parts in zip(*(one.items() for one in choices), strict=True))


def chain(*choices: Choices) -> Choices:
    """Those of the first, then those of the second, and so on.

    Raises:
        ConfigError: two of them have the same name.
    """
    return _named(itertools.chain.from_iterable(one.items() for one in choices))


def arms_of(config: Config, choices: Choices) -> dict[str, Config]:
    """The configuration as each choice changes it.

    Raises:
        ConfigError: a choice that can't be, by the name of its arm.
        VocabularyError: likewise, of a vocabulary that couldn't be read back.
    """
    return {name: changed(name, config, change) for name, change in choices.items()}


def changed(name: str, config: Config, change: Change) -> Config:
    """The configuration of one arm, its name in front of what is wrong with it.

    Raises:
        OmnijaxError: of the kind that the change raised.
    """
    with naming(name):
        return change(config)


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Puts the name of an arm in front of what is wrong with it."""
    try:
        yield
    except OmnijaxError as error:
        raise type(error)(f"arms.{name}.{error.field}", error.value, error.rule, error.fix) from error


def knob(path: str, *values: Any, name: str = "") -> Choices:
    """One knob with each of some values: `knob("model.depth", 2, 4)` gives `model.depth=2` and `model.depth=4`.

    Args:
        path: dotted, parts of a tuple by number, as on the command line.
        values: for the knob.
        name: what stands before the `=`; the path by default.

    Raises:
        ConfigError: two values of one name.
    """
    return _named((f"{name or path}={written(value)}", _setting(path, value)) for value in values)


def bases(*values: Base) -> Choices:
    """Radices, each with as many digit tokens as it needs; `base=64x1304` has one for each place."""
    return _vocabulary("base", values, rebased)


def flat() -> Choices:
    """One token an item, as a flat softmax has: the base is the size of the largest space, no position is written."""

    def change(vocabulary: Vocabulary) -> Vocabulary:
        size = max(space.room for space in vocabulary.spaces)
        alone: dict[str, Any] = {"position": "none", "positions": 0, "position_places": 1, "width": "fixed"}
        return dataclasses.replace(vocabulary, base=max(size, 2), digits=max(size, 2), **alone)

    return {"flat": _on_vocabulary(change)}


def heads(*values: str) -> Choices:
    """What predicts the tokens of an item: `head=token`, `head=depth`, `head=parallel`."""
    return knob("model.head", *values, name="head")


def positions(*values: str) -> Choices:
    """Where a position stands: `position=before`, `after`, or `none`, which has no position tokens."""

    def change(vocabulary: Vocabulary, position: Any) -> Vocabulary:
        rest: dict[str, Any] = {"positions": 0, "position_places": 1} if position == "none" else {}
        return dataclasses.replace(vocabulary, position=position, **rest)

    return _vocabulary("position", values, change)


def layouts(*values: str) -> Choices:
    """`layout=grouped`, `layout=inline`."""
    return knob("vocabulary.layout", *values, name="layout")


def widths(*values: str) -> Choices:
    """`width=minimal`, `width=fixed`."""
    return knob("vocabulary.width", *values, name="width")


def digit_orders(*values: str) -> Choices:
    """`order=big`, `order=little`."""
    return knob("vocabulary.digit_order", *values, name="order")


def digit_noise(*values: float) -> Choices:
    """Shares of the digits that the model reads which are drawn anew: `noise=0.05`."""
    return knob("train.digit_noise", *values, name="noise")


def assignments(space: str, kinds: Mapping[str, Assignment | Callable[[Config], Assignment]]) -> Choices:
    """Which number each fragment of a space gets: `ids=NAME`.

    Args:
        space: its name.
        kinds: by name, assignments, or functions of the configuration where they depend on it, as on the base.
    """

    def setting(kind: Assignment | Callable[[Config], Assignment]) -> Change:
        def change(config: Config) -> Config:
            config.vocabulary.space_index(space)
            made: Any = kind(config) if callable(kind) else kind
            spaces = tuple(
                dataclasses.replace(one, assignment=made) if one.name == space else one
                for one in config.vocabulary.spaces
            )
            return dataclasses.replace(config, vocabulary=dataclasses.replace(config.vocabulary, spaces=spaces))

        return change

    return {f"ids={name}": setting(kind) for name, kind in kinds.items()}


def written(value: Any) -> str:
    """A value in the name of an arm; the parts of a tuple with `x` between them."""
    return "x".join(written(part) for part in value) if isinstance(value, tuple) else str(value)


def _vocabulary(name: str, values: Iterable[Any], change: Callable[[Vocabulary, Any], Vocabulary]) -> Choices:
    def setting(value: Any) -> Change:
        return _on_vocabulary(lambda vocabulary: change(vocabulary, value))

    return _named((f"{name}={written(value)}", setting(value)) for value in values)


def _on_vocabulary(change: Callable[[Vocabulary], Vocabulary]) -> Change:
    return lambda config: dataclasses.replace(config, vocabulary=change(config.vocabulary))


def _together(parts: Iterable[tuple[str, Change]]) -> tuple[str, Change]:
    names, changes = zip(*parts, strict=True)

    def change(config: Config) -> Config:
        for one in changes:
            config = one(config)
        return config

    return ",".join(names), change


def _named(pairs: Iterable[tuple[str, Change]]) -> Choices:
    choices: Choices = {}
    for name, change in pairs:
        if name in choices:
            raise ConfigError("arms", name, "two arms have this name", "each combination may stand there once")
        choices[name] = change
    return choices


def _setting(path: str, value: Any) -> Change:
    def place(part: Any, names: list[str]) -> Any:
        if not names:
            return value
        name, *rest = names
        if isinstance(part, tuple) and name.isdigit() and int(name) < len(part):
            number = int(name)
            return (*part[:number], place(part[number], rest), *part[number + 1 :])
        fields = {field.name for field in dataclasses.fields(part)} if dataclasses.is_dataclass(part) else set()
        if name not in fields:
            raise ConfigError("knob", path, f"there is no {name!r} in it", "see `omnijax train FILE --knobs`")
        return dataclasses.replace(part, **{name: place(getattr(part, name), rest)})

    return lambda config: place(config, path.split("."))
