"""The run directory: which configuration it belongs to, and which versions and devices it was made with."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from omnijax.config import Config, from_dict, to_dict
from omnijax.config.experiment_file import run_stored, trust
from omnijax.config.serial import needs_experiment
from omnijax.data import fitting
from omnijax.errors import CheckpointError, DataError, shortened
from omnijax.files import DIGEST, check_writable, digest, digest_of_file, read_object, write_atomically, write_object
from omnijax.modalities.base import Modality
from omnijax.model.transformer import parameter_count
from omnijax.paths import as_path, is_remote

CONFIG, RUN, EXPERIMENT_FILE = "config.json", "run.json", "experiment.py"
METRICS, FOLDER = "metrics.jsonl", "checkpoints"
OWN = (RUN, EXPERIMENT_FILE, METRICS, FOLDER, fitting.FOLDER, "tensorboard")
"""Names of other files and folders of a run. They may be there before the first step."""
DATA, FILES = "data", "files"
"""Keys of `run.json`: path of the data set, relative to the run directory; digests of the files in `fitted/`."""
WHERE = ["mesh", "data.directory", "batch.prefetch", "optim.accumulate"]
WHERE += ["model.attention", "model.remat", "model.unroll"]
"""Knobs that say where and how a run is computed. A run may go on with other values; only the order of sums changes."""
_LOGS = (".tmp", ".log", ".txt", ".out", ".err")  # of launchers and of kills; a new run directory may hold them
_WRITE_AGAIN = "give the `omnijax train` command of the run again: it writes the file, and repeats no step"
PACKAGES = ("omnijax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


def check(run: Path, config: Config) -> None:
    """Checks that a directory is new or belongs to this configuration, knobs of `WHERE` aside. Writes nothing.

    A directory in which no step was logged or saved counts as new. Raises a `CheckpointError` if it belongs to another
    configuration, or is no run directory.
    """
    begun = _begun(run)
    if not (run / CONFIG).exists() and _copied_config(run) is None:
        if run.is_symlink() and not run.exists():
            raise CheckpointError("workdir", str(run), "it is a broken symbolic link", "choose another directory")
        check_writable(run, "workdir")
        there = run.iterdir() if run.exists() else ()
        names = [one.name for one in there if one.name[0] != "." and one.suffix not in _LOGS]
        own = () if begun else OWN  # another process of the run may have written CONFIG by now
        strange = [name for name in names if name not in own and not (name == CONFIG and (run / CONFIG).exists())]
        if strange:
            rule = f"it holds something that is no run: {', '.join(sorted(strange)[:3])}"
            raise CheckpointError("workdir", str(run), rule, "choose a new directory")
    elif (begun or not (run / CONFIG).is_file()) and (differ := differences(read_config(run), to_dict(config))):
        rule = f"it belongs to a run with another configuration: {'; '.join(differ[:4])}"
        fix = "choose another --workdir, or the configuration of the run"
        raise CheckpointError("workdir", str(run), rule, fix)


def _begun(run: Path) -> bool:
    """Whether the run has logged or saved at least one step."""
    return any((run / FOLDER).glob("*")) or ((run / METRICS).exists() and (run / METRICS).stat().st_size > 0)


def read_config(run: Path) -> dict[str, Any]:
    """The content of `config.json`; without this file, its copy in the newest checkpoint that has one.

    Raises a `CheckpointError` if it is missing, or was edited or damaged.
    """
    if not (run / CONFIG).exists():
        if (copied := _copied_config(run)) is None:
            raise CheckpointError("run", str(run), f"it has no {CONFIG}", "give a directory of `omnijax train`")
        print(f"omnijax: {run / CONFIG} is missing: its copy in {copied[0]} is used", file=sys.stderr)
        return copied[1]
    fix = "delete it: a checkpoint has a copy, which is used" if _copied_config(run) else "choose another directory"
    fix += "; knobs of an evaluation are set on the command line, as in `omnijax evaluate RUN --eval.examples 50`"
    try:
        return read_object(run / CONFIG, (), fix)
    except DataError as error:
        raise CheckpointError("run", str(run), f"{CONFIG}: {error.rule}", fix) from error


def _copied_config(run: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint whose record is undamaged, and the configuration in it."""
    for path in sorted((run / FOLDER).glob("*[0-9]"), key=lambda path: (len(path.name), path.name), reverse=True):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            content = json.loads((path / "_CHECKPOINT_METADATA").read_bytes())["custom_metadata"]
            if content.pop(DIGEST) == digest(content):
                return path, content["config"]
    return None


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
    kept, needed = run / EXPERIMENT_FILE, experiment is not None and needs_experiment(to_dict(config))
    if experiment is not None and needed:
        if _begun(run) and kept.exists() and kept.read_bytes() != experiment.read_bytes():
            fix = f"undo the edit ({kept} is the file of the run), or choose another --workdir"
            raise CheckpointError("experiment", str(experiment), "the run was trained with another version of it", fix)
        trust(experiment)
    run.mkdir(parents=True, exist_ok=True)
    write_object(run / CONFIG, to_dict(config))
    if experiment is not None and needed:
        write_atomically(kept, experiment.read_bytes())
    for modality in modalities.values():
        if modality.learned:
            fitting.save(run, modality, modality.arrays)
    files = {path.relative_to(run).as_posix(): digest_of_file(path) for path in (run / fitting.FOLDER).glob("*")}
    facts: dict[str, Any] = {"command": command, "versions": versions(), "device": device()}
    facts |= {"parameters": parameter_count(params), "vocabulary_size": config.vocabulary.size}
    facts |= {"vocabulary": config.vocabulary.fingerprint, FILES: files}
    if config.data.directory:
        data = as_path(config.data.directory)
        apart = is_remote(data) or is_remote(run)
        facts[DATA] = real_path(data) if apart else os.path.relpath(real_path(data), real_path(run))
    write_object(run / RUN, facts)


def load_config(run: Path, trusted: bool = False) -> Config:
    """The configuration of a run.

    A relative or missing directory of data is replaced by the one that `run.json` gives relative to the run directory,
    if that exists.

    Args:
        run: its directory.
        trusted: execute its experiment file, where it needs one, although it comes from elsewhere.

    Raises:
        CheckpointError: it is no run directory.
        ConfigError: the run is of another version, or its experiment file comes from elsewhere.
    """
    config = from_dict(read_config(run), functools.partial(run_stored, run / EXPERIMENT_FILE, trusted))
    said = as_path(config.data.directory)
    kept = said.is_absolute() and said.is_dir()
    if kept or not config.data.directory or not (run / RUN).exists():
        return config
    recorded = str(read_object(run / RUN, (), _WRITE_AGAIN).get(DATA, ""))
    there = recorded if is_remote(as_path(recorded)) else os.path.normpath(os.path.join(real_path(run), recorded))
    if not recorded or not as_path(there).is_dir() or there == real_path(said):
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, directory=there))


def real_path(path: Path) -> str:
    """A path with its links resolved; a path on a store is unchanged."""
    return str(path) if is_remote(path) else os.path.realpath(path)


def load_modalities(run: Path, config: Config) -> dict[str, Modality]:
    """The fitted modality of each field of a run; raises a `DataError` if a file of the run is missing or damaged."""
    files = read_object(run / RUN, (FILES,), _WRITE_AGAIN)[FILES] if (run / fitting.FOLDER).exists() else {}
    for name, said in files.items():
        if not (run / name).is_file() or digest_of_file(run / name) != said:
            fix = f"copy the run again, or {_WRITE_AGAIN}"
            raise DataError("run file", str(run / name), "it is missing, or was changed after it was written", fix)
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
    both_shown = f"{path} is {shortened(repr(there), 200)} there and {shortened(repr(wanted), 200)} here"
    return [] if there == wanted else [both_shown]


def _without_where(parts: Any, path: str = "") -> Any:
    if not isinstance(parts, dict):
        return parts
    named = ((name, f"{path}.{name}".strip("."), part) for name, part in parts.items())
    return {name: _without_where(part, where) for name, where, part in named if where not in WHERE}
