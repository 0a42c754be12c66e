"""Builds a data set once: records, what modalities learn, stored items where Apache Beam does it, a manifest."""

from __future__ import annotations

import fcntl
import functools
import json
import pathlib
import shutil

import rich.console
import rich.progress

from omnijax.config import Config
from omnijax.data import fitting, manifest, store
from omnijax.data.beam import Beam
from omnijax.errors import ConfigError, DataError
from omnijax.source import modalities_of


def prepare(config: Config, beam: Beam | None = None) -> None:
    """Builds the data set of a configuration, or returns at once when it is there, complete and matching.

    The work is done in a directory beside it that takes its name at the end, so that a process killed in between leaves
    nothing that looks like a data set. Of several processes that start together, one builds and the others wait. A
    source that stores nothing has nothing to build.

    Args:
        config: of the run.
        beam: builds it on Apache Beam's workers, which have to see the directory, and stores the items of the fields
            that the tasks name, too. The records are the same.

    Raises:
        DataError: the directory holds something else, or a data set that is damaged or differently configured; it is
            never overwritten.
        ConfigError: a value that no data set can be built with, or a source without anything for Beam to build.
        PlatformError: something that the source needs is missing here.
    """
    source = config.data
    if not source.directory:
        if beam is not None:
            rule = "this source stores nothing, and there is nothing to build"
            raise ConfigError("data", type(source).__name__, rule, "leave --beam out")
        return
    target = pathlib.Path(source.directory).resolve()
    if _occupied(target):
        _check(config, beam)
        return
    source.check_build()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = open(target.parent / f".{target.name}.lock", "w")  # noqa: SIM115 (closed by the `with` below)
    except OSError as error:
        rule = f"its parent must be a directory that can be written to ({error})"
        raise DataError("data.directory", source.directory, rule, "choose another directory") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _occupied(target):
            _check(config, beam)
            return
        partial = target.parent / f".{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
        try:
            build(config, partial, beam)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _occupied(target: pathlib.Path) -> bool:
    return target.exists() and (not target.is_dir() or any(target.iterdir()))


def _check(config: Config, beam: Beam | None) -> None:
    """Whether the data set that is there is the one that was asked for."""
    manifest.verify(config.data)
    if beam is not None:
        if "stored" not in manifest.read_manifest(config.data):
            rule = "the data set is there already, without stored items, which --beam would add"
            fix = "choose another directory, or do without"
            raise DataError("data.directory", config.data.directory, rule, fix)
        store.check(config)


def build(config: Config, directory: pathlib.Path, beam: Beam | None = None) -> None:
    """Writes a whole data set into a new directory; the arguments are those of `prepare`.

    Raises:
        ConfigError: a value that no data set can be built with.
        DataError: there are too few signals to learn from, or records were lost on the way.
        PlatformError: something that the source needs is missing here.
    """
    source = config.data
    directory.mkdir(parents=True)
    with rich.progress.Progress(console=rich.console.Console(stderr=True)) as progress:
        bar = progress.add_task("Building the records", total=1.0)
        source.build(directory, functools.partial(_completed, progress, bar), beam)
        _completed(progress, bar, 1.0)
        here = source.located(str(directory))
        for modality in modalities_of(source.fields).values():
            if modality.learned:
                bar = progress.add_task(f"Fitting {modality.name}", total=1.0)
                tell = functools.partial(_completed, progress, bar)
                fitting.save(directory, modality, fitting.fit(here, modality, tell))
        written = {"format": 2, "config": manifest.shaping(source), "excluded": dict(here.excluded())}
        if beam is not None:
            bar = progress.add_task("Storing items", total=None)
            written["stored"] = store.write(config, here, directory, beam)
        written["files"] = manifest.describe(directory)
        (directory / manifest.MANIFEST).write_text(json.dumps(written, indent=1) + "\n")


def _completed(progress: rich.progress.Progress, bar: rich.progress.TaskID, share: float) -> None:
    progress.update(bar, completed=share)
