"""Configurations as JSON and back: classes by import path, no registry."""

from __future__ import annotations

import dataclasses
import importlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from omnijax.config.config import Config
from omnijax.config.experiment_file import EXPERIMENT_PREFIX
from omnijax.errors import ConfigError
from omnijax.modalities.base import Modality
from omnijax.source import Source
from omnijax.vocab.assignment import Assignment, assignment_from_dict
from omnijax.vocab.vocabulary import Vocabulary

CLASS, FINGERPRINT = "class", "fingerprint"
EXPERIMENT = "experiment"
"""Stands for the module of the run's own experiment file in the name of a class."""


def to_dict(value: Any) -> Any:
    """A dataclass as nested dicts and lists, as JSON has them. Sources and modalities name their class."""
    return json.loads(json.dumps(_plain(value)))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {CLASS: _class_name(value)} if isinstance(value, (Source, Modality)) else {}
        if isinstance(value, Source) and value.in_memory:
            named |= {FINGERPRINT: getattr(value, FINGERPRINT)}
        return named | {name: _plain(getattr(value, name)) for name in knobs_of(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    return value


def knobs_of(kind: Any) -> list[str]:
    """Names of the knobs of a dataclass; content that a source holds in memory is none."""
    return [one.name for one in dataclasses.fields(kind) if one.init and "content" not in one.metadata]


def _class_name(value: Any) -> str:
    kind = type(value)
    module = EXPERIMENT if kind.__module__.startswith(EXPERIMENT_PREFIX) else kind.__module__
    return f"{module}:{kind.__qualname__}"


def needs_experiment(parts: Any) -> bool:
    """Whether a configuration in JSON has classes or data that only its experiment file can make."""
    if isinstance(parts, dict):
        foreign = CLASS in parts and not str(parts[CLASS]).startswith("omnijax.")
        return foreign or FINGERPRINT in parts or any(needs_experiment(part) for part in parts.values())
    return isinstance(parts, list) and any(needs_experiment(part) for part in parts)


def from_dict(parts: dict[str, Any], experiment: Callable[[], ModuleType] | None = None) -> Config:
    """The configuration that `to_dict` gave.

    Args:
        parts: as JSON has them.
        experiment: executes the experiment file, for classes that it defines and data that it holds.

    Raises:
        ConfigError: a knob is unknown or missing, or a class can't be found.
    """
    found = _build(Config, parts, "config", experiment)
    assert isinstance(found, Config)
    return found


def _build(kind: Any, parts: Any, path: str, experiment: Callable[[], ModuleType] | None) -> Any:
    """A value of a dataclass, tuple or plain type from JSON."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        kinds = [arguments[0]] * len(parts) if arguments[1:] == (Ellipsis,) else arguments
        return tuple(
            _build(one, part, f"{path}.{i}", experiment) for i, (one, part) in enumerate(zip(kinds, parts, strict=True))
        )
    if isinstance(parts, dict) and CLASS in parts:
        return _instance(parts, path, experiment)
    if origin is Mapping:
        return {name: _build(arguments[1], part, f"{path}.{name}", experiment) for name, part in parts.items()}
    if kind is Vocabulary:
        return Vocabulary.from_dict(parts)
    if kind is Assignment:
        return assignment_from_dict(parts)
    if origin in (typing.Union, types.UnionType):
        return tuple(parts) if isinstance(parts, list) else parts
    if not dataclasses.is_dataclass(kind):
        return parts
    assert isinstance(kind, type)
    return kind(**_knobs(kind, parts, path, experiment))


def _knobs(kind: type, parts: dict[str, Any], path: str, experiment: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    known, given = set(knobs_of(kind)), set(parts) - {CLASS, FINGERPRINT}
    for name in sorted(known ^ given):
        rule = "it is missing" if name in known else "there is no such knob in this version"
        value = None if name in known else parts[name]
        raise ConfigError(f"{path}.{name}", value, rule, "use the version that wrote it")
    return {name: _build(hints[name], parts[name], f"{path}.{name}", experiment) for name in given}


def _instance(parts: dict[str, Any], path: str, experiment: Callable[[], ModuleType] | None) -> Any:
    """A source or a modality by the name of its class."""
    module_name, _, name = str(parts[CLASS]).partition(":")
    if (module_name == EXPERIMENT or FINGERPRINT in parts) and experiment is None:
        rule = "only the experiment file of the run can make it"
        raise ConfigError(f"{path}.class", parts[CLASS], rule, "load the run with its experiment file")
    if FINGERPRINT in parts:
        assert experiment is not None
        data = experiment().get_config().data
        if getattr(data, FINGERPRINT, None) != parts[FINGERPRINT]:
            rule = "the experiment file gives other data than the run was trained on"
            raise ConfigError(f"{path}.fingerprint", parts[FINGERPRINT], rule, "bring the data back")
        return dataclasses.replace(data, **_knobs(type(data), parts, path, experiment))
    try:
        module = experiment() if module_name == EXPERIMENT and experiment else importlib.import_module(module_name)
        kind = getattr(module, name)
    except (ImportError, AttributeError) as error:
        rule = f"there is no such class here ({error})"
        raise ConfigError(f"{path}.class", parts[CLASS], rule, "use the version that wrote it") from error
    if not (isinstance(kind, type) and issubclass(kind, (Source, Modality))):
        raise ConfigError(f"{path}.class", parts[CLASS], "must be a source or a modality", "use one")
    return kind(**_knobs(kind, parts, path, experiment))
