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

CLASS, FINGERPRINT = "class", "fingerprint"
EXPERIMENT = "experiment"
"""Stands for the module of the run's own experiment file in the name of a class."""


def to_dict(value: Any) -> Any:
    """A dataclass as nested dicts and lists, as JSON has them. Sources and modalities name their class."""
    return json.loads(json.dumps(value, default=_parts))


def _parts(value: Any) -> dict[str, Any]:
    """The knobs of one dataclass, and what says how to make it again."""
    parts: dict[str, Any] = {}
    if isinstance(value, (Source, Modality)):
        kind = type(value)
        module = EXPERIMENT if kind.__module__.startswith(EXPERIMENT_PREFIX) else kind.__module__
        parts[CLASS] = f"{module}:{kind.__qualname__}"
    if isinstance(value, Source) and value.in_memory:
        parts[FINGERPRINT] = getattr(value, FINGERPRINT)
    return parts | {name: getattr(value, name) for name in knobs_of(value)}


def knobs_of(kind: Any) -> list[str]:
    """Names of the knobs of a dataclass; content that a source holds in memory is none."""
    return [one.name for one in dataclasses.fields(kind) if one.init and "content" not in one.metadata]


def needs_experiment(parts: Any) -> bool:
    """Whether a configuration in JSON has classes or data that only its experiment file can make."""
    if isinstance(parts, dict):
        foreign = CLASS in parts and not str(parts[CLASS]).startswith("omnijax.")
        return foreign or FINGERPRINT in parts or any(needs_experiment(part) for part in parts.values())
    return isinstance(parts, list) and any(needs_experiment(part) for part in parts)


def from_dict(parts: dict[str, Any], experiment: Callable[[], ModuleType] | None = None) -> Config:
    """The configuration that `to_dict` gave.

    `parts` are as JSON has them. `experiment` executes the experiment file, for classes that it defines and data that
    it holds. Raises a `ConfigError` if a knob is unknown or missing, or if a class can't be found.
    """
    return Config(**_knobs(Config, parts, "config", experiment))


def _build(kind: Any, parts: Any, path: str, experiment: Callable[[], ModuleType] | None) -> Any:
    """A value of a dataclass, tuple or plain type from JSON."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        kinds = [arguments[0]] * len(parts) if arguments[1:] == (Ellipsis,) else arguments
        pairs = enumerate(zip(kinds, parts, strict=True))
        return tuple(_build(one, part, f"{path}.{i}", experiment) for i, (one, part) in pairs)
    if isinstance(parts, dict) and CLASS in parts:
        return _instance(parts, path, experiment)
    if origin is Mapping:
        return {name: _build(arguments[1], part, f"{path}.{name}", experiment) for name, part in parts.items()}
    if kind is Assignment:
        return assignment_from_dict(parts)
    if origin in (typing.Union, types.UnionType):
        return tuple(parts) if isinstance(parts, list) else parts
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return parts
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

    def refuse(rule: str, fix: str, part: str = CLASS) -> ConfigError:
        return ConfigError(f"{path}.{part}", parts[part], rule, fix)

    module_name, _, name = str(parts[CLASS]).partition(":")
    if module_name == EXPERIMENT or FINGERPRINT in parts:
        if experiment is None:
            raise refuse("only the experiment file of the run can make it", "load the run with its experiment file")
        module = experiment()
    if FINGERPRINT in parts:
        data = module.get_config().data
        if getattr(data, FINGERPRINT, None) != parts[FINGERPRINT]:
            rule = "the experiment file gives other data than the run was trained on"
            raise refuse(rule, "bring the data back", FINGERPRINT)
        return dataclasses.replace(data, **_knobs(type(data), parts, path, experiment))
    try:
        kind = getattr(module if module_name == EXPERIMENT else importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise refuse(f"there is no such class here ({error})", "use the version that wrote it") from error
    if not (isinstance(kind, type) and issubclass(kind, (Source, Modality))):
        raise refuse("must be a source or a modality", "use one")
    return kind(**_knobs(kind, parts, path, experiment))
