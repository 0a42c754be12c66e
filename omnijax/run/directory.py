"""The run directory: which configuration it belongs to, and which versions and devices it was made with."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from omnijax.config import Config, from_dict, to_dict
from omnijax.config.experiment_file import run_stored, trust
from omnijax.config.serial import needs_experiment
from omnijax.data import fitting
from omnijax.errors import CheckpointError, DataError
from omnijax.modalities.base import Modality
from omnijax.model.transformer import parameter_count
from omnijax.run.checksums import digest

CONFIG, RUN, EXPERIMENT_FILE = "config.json", "run.json", "experiment.py"
WHERE = ["mesh", "data.directory", "batch.prefetch", "optim.accumulate"]
WHERE += ["model.attention", "model.remat", "model.unroll"]
"""Knobs that say where and how a run is computed. A run may go on with other values; only the order of sums changes."""
PACKAGES = ("omnijax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


def check(run: Path, config: Config) -> None:
    """Checks that a directory is new or belongs to this configuration, knobs of `WHERE` aside. Writes nothing.

    Raises:
        CheckpointError: it belongs to another configuration, or is no run directory.
    """
    path = run / CONFIG
    if not path.exists():
        if run.is_symlink() and not run.exists():
            raise CheckpointError("workdir", str(run), "it is a link to nothing", "choose another directory")
        above = next(parent for parent in (run, *run.absolute().parents) if parent.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            rule = f"{above} must be a directory that can be written to"
            raise CheckpointError("workdir", str(run), rule, "choose another directory")
        strange = [one.name for one in run.iterdir() if not _may_lie_there(one)] if run.exists() else []
        if strange:
            rule = f"it holds something that is no run: {', '.join(sorted(strange)[:3])}"
            raise CheckpointError("workdir", str(run), rule, "choose a new directory")
    elif differ := differences(_read_config(run), to_dict(config)):
        rule = f"it belongs to a run with another configuration: {'; '.join(differ[:4])}"
        fix = "choose another --workdir, or the configuration of the run"
        raise CheckpointError("workdir", str(run), rule, fix)


def _may_lie_there(entry: Path) -> bool:
    """Whether a directory that holds this can become a run: logs of launchers, hidden files, what a kill left."""
    return entry.suffix in (".tmp", ".log", ".txt", ".out", ".err") or entry.name.startswith(".")


def _read_config(run: Path) -> dict[str, Any]:
    """The content of `config.json`.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return dict(json.loads((run / CONFIG).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError("run", str(run), f"it has no {CONFIG}", "give a directory of `omnijax train`") from error
    except (OSError, ValueError, TypeError) as error:
        rule = f"its {CONFIG} can't be read ({error})"
        fix = "each checkpoint has a copy: `config` in checkpoints/STEP/_CHECKPOINT_METADATA"
        raise CheckpointError("run", str(run), rule, fix) from error


def claim(
    run: Path,
    config: Config,
    params: Any,
    command: str,
    modalities: Mapping[str, Modality],
    experiment: Path | None = None,
) -> None:
    """Makes the directory this configuration's, after `check`; process 0 writes, with the `WHERE` knobs as they are.

    Args:
        run: the directory.
        config: of the run.
        params: of the model, or their shapes.
        command: what the user typed.
        modalities: fitted, by field. What they learned is stored, so that the run can be sampled without its data.
        experiment: the experiment file, which is stored where only it can make a class or the data.
    """
    check(run, config)
    if jax.process_index() != 0:
        return
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / CONFIG, to_dict(config))
    if experiment is not None and needs_experiment(to_dict(config)):
        trust(experiment)
        (run / EXPERIMENT_FILE).write_bytes(experiment.read_bytes())
    for modality in modalities.values():
        if modality.learned:
            fitting.save(run, modality, modality.arrays)
    facts = {"command": command, "versions": versions(), "device": device(), "parameters": parameter_count(params)}
    vocabulary = {"vocabulary_size": config.vocabulary.size, "vocabulary": config.vocabulary.fingerprint}
    write_json(run / RUN, facts | vocabulary)


def load_config(run: Path, trusted: bool = False) -> Config:
    """The configuration of a run.

    Args:
        run: its directory.
        trusted: execute its experiment file, where it needs one, although it comes from elsewhere.

    Raises:
        CheckpointError: it is no run directory.
        ConfigError: the run is of another version, or its experiment file comes from elsewhere.
    """
    parts = _read_config(run)
    return from_dict(parts, functools.partial(run_stored, run / EXPERIMENT_FILE, trusted))


def load_modalities(run: Path, config: Config) -> dict[str, Modality]:
    """The modality of each field of a run, with what it learned before training.

    Raises:
        DataError: a file of the run is missing or damaged.
    """
    return fitting.bound(config.data, lambda modality: fitting.load(run, modality))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results may depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def config_digest(config: Config) -> str:
    """A fingerprint of a configuration without the knobs of `WHERE`."""
    return digest(_without_where(to_dict(config)))[:16]


def device() -> str:
    """Number, kind and host of the devices, for people to read."""
    first = jax.devices()[0]
    cores = usable_cores()
    of = f", {cores} core{'s' * (cores > 1)}" if first.platform == "cpu" else ""
    return f"{jax.device_count()} × {first.device_kind}{of} ({platform.machine()})"


def usable_cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def differences(there: Any, wanted: Any, path: str = "") -> list[str]:
    """Lines that say how two configurations from `to_dict` differ, knobs of `WHERE` aside."""
    if path in WHERE:
        return []
    if isinstance(there, dict) and isinstance(wanted, dict):
        absent = object()
        pairs = ((key, there.get(key, absent), wanted.get(key, absent)) for key in sorted(there.keys() | wanted.keys()))
        return [line for key, one, other in pairs for line in differences(one, other, f"{path}.{key}".strip("."))]
    if isinstance(there, list) and isinstance(wanted, list) and len(there) == len(wanted):
        both = enumerate(zip(there, wanted, strict=True))
        return [line for place, pair in both for line in differences(*pair, f"{path}.{place}")]
    return [] if there == wanted else [f"{path} is {_short(there)} there and {_short(wanted)} here"]


def _without_where(parts: Any, path: str = "") -> Any:
    if not isinstance(parts, dict):
        return parts
    named = ((name, f"{path}.{name}".strip("."), part) for name, part in parts.items())
    return {name: _without_where(part, where) for name, where, part in named if where not in WHERE}


def _short(value: Any) -> str:
    """A value as text; the middle of a long one, such as the table of an assignment, is left out."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:60]} … {text[-60:]}"


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes through a temporary file, so that a kill or a power cut leaves either the old file or the new one."""
    data, temporary = content if isinstance(content, bytes) else content.encode(), path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON as `write_whole` does."""
    write_whole(path, json.dumps(content, indent=2) + "\n")


def read_object(path: Path, keys: Iterable[str], fix: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        DataError: the file is missing, or holds no object with these keys; `fix` is part of the error.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        rule = f"must be JSON ({error})" if isinstance(error, ValueError) else "this file is needed"
        raise DataError(path.name, str(path), rule, fix) from error
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            raise DataError(f"{path.name}:{key}", str(path), "this value is needed", fix)
    return dict(value)
