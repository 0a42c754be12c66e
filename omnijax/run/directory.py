"""The run directory: who it belongs to, and what it was made with."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax

from omnijax.config import Config, from_dict, to_dict
from omnijax.errors import CheckpointError
from omnijax.model.transformer import parameter_count
from omnijax.run.checksums import digest

CONFIG, RUN = "config.json", "run.json"
WHERE = (
    "mesh",
    "data.directory",
    "batch.prefetch",
    "model.attention",
    "model.remat",
    "model.unroll",
    "optim.accumulate",
)
"""Knobs that say where and how a run is computed, not what: it may go on with others, up to the order of sums."""
PACKAGES = ("omnijax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


def check(run: Path, config: Config) -> None:
    """Checks that a directory is this configuration's, but for the knobs of `WHERE`, or nobody's. Writes nothing.

    Raises:
        CheckpointError: it belongs to another configuration, or is no run directory.
    """
    path = run / CONFIG
    # A kill in the middle of the very first write leaves `config.tmp` alone.
    strange = run.is_file() or (run.exists() and any(entry.suffix != ".tmp" for entry in run.iterdir()))
    if strange and not path.exists():
        raise CheckpointError("workdir", str(run), "it holds something that is no run", "choose a new directory")
    if path.exists():
        differ = differences(json.loads(path.read_text()), to_dict(config))
        if differ:
            rule = f"it belongs to a run with another configuration: {'; '.join(differ[:4])}"
            raise CheckpointError(
                "workdir", str(run), rule, "choose another --workdir, or the configuration of the run"
            )


def claim(run: Path, config: Config, params: Any, command: str) -> None:
    """Makes the directory this configuration's; process 0 writes, with the knobs of `WHERE` as they are now.

    Raises:
        CheckpointError: see `check`.
    """
    check(run, config)
    if jax.process_index() != 0:
        return
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / CONFIG, to_dict(config))
    write_json(
        run / RUN,
        {
            "command": command,
            "versions": versions(),
            "device": device(),
            "parameters": parameter_count(params),
            "vocabulary_size": config.vocabulary.size,
            "vocabulary": config.vocabulary.fingerprint,
        },
    )


def load_config(run: Path) -> Config:
    """The configuration of a run.

    Raises:
        CheckpointError: the directory is none of a run.
        ConfigError: the run is of another version.
    """
    path, fix = run / CONFIG, "give the directory that `omnijax train` wrote"
    if not path.exists():
        raise CheckpointError("run", str(run), f"it has no {CONFIG}", fix)
    try:
        parts = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError("run", str(run), f"its {CONFIG} can't be read ({error})", fix) from error
    if not isinstance(parts, dict):
        raise CheckpointError("run", str(run), f"its {CONFIG} is no configuration", fix)
    return from_dict(parts)


def versions() -> dict[str, str]:
    """Of Python, and of the packages that figures may depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def config_digest(config: Config) -> str:
    """What tells configurations apart, but for the knobs of `WHERE`."""
    return digest(_without_where(to_dict(config)))[:16]


def device() -> str:
    """The devices, in words."""
    first = jax.devices()[0]
    cores = usable_cores()
    of = f", {cores} core{'s' * (cores > 1)}" if first.platform == "cpu" else ""
    return f"{jax.device_count()} × {first.device_kind}{of} ({platform.machine()})"


def usable_cores() -> int:
    """Cores of this machine's processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def differences(there: Any, wanted: Any, path: str = "") -> list[str]:
    """In words, where two configurations as `to_dict` gives them differ, but for the knobs of `WHERE`."""
    if path in WHERE:
        return []
    if isinstance(there, dict) and isinstance(wanted, dict):
        keys = sorted(there.keys() | wanted.keys())
        absent = object()
        return [
            line
            for key in keys
            for line in differences(
                there.get(key, absent),
                wanted.get(key, absent),
                f"{path}.{key}" if path else key,
            )
        ]
    if there == wanted:
        return []
    return [f"{path} is {_short(there)} there and {_short(wanted)} here"]


def _without_where(parts: Any, path: str = "") -> Any:
    if not isinstance(parts, dict):
        return parts
    named = ((name, f"{path}.{name}" if path else name, part) for name, part in parts.items())
    return {name: _without_where(part, where) for name, where, part in named if where not in WHERE}


def _short(value: Any) -> str:
    """A value in words, without the middle of what fills pages: the table of an assignment."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:60]} … {text[-60:]}"


def write_json(path: Path, content: Any) -> None:
    """Writes through a temporary file, so that a kill leaves the old file or the new one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)
