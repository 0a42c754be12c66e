"""Builds a data set once: records, what modalities learn, stored items where Apache Beam does it, a manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import shutil
from typing import Any

import rich.console
import rich.progress

from omnijax.config import Config
from omnijax.data import fitting, manifest, store
from omnijax.data.beam import Beam
from omnijax.data.manifest import EXPERIMENT_FILE
from omnijax.errors import ConfigError, DataError
from omnijax.files import check_writable, read_object, write_object
from omnijax.lock import locked
from omnijax.modalities.base import Progress
from omnijax.source import modalities_of


def prepare(config: Config, beam: Beam | None = None, more: bool = False) -> None:
    """Builds the data set of a configuration, or returns at once when it is there, complete and matching.

    The manifest is written last, so that a process that is killed leaves nothing that looks like a data set. Of several
    processes that start together, one builds and the others wait. A source that stores nothing has nothing to build.
    With `more`, a source that is `resumable` stores what was added to its files since.

    `beam` builds it on Apache Beam's workers, which have to see the directory, and stores the items of the fields that
    the tasks name, too. The records are the same.

    Raises:
        DataError: the directory holds something else, or a data set that is damaged or differently configured; it is
            never overwritten.
        ConfigError: a value that no data set can be built with, a directory that can't be written to, or a source
            without anything for Beam to build.
        PlatformError: something that the source needs is missing here.
    """
    source = config.data
    if not source.directory:
        if beam is not None:
            rule = "this source stores nothing, and there is nothing to build"
            raise ConfigError("data", type(source).__name__, rule, "leave --beam out")
        return
    target = pathlib.Path(source.directory).resolve()
    if _found(target, config, beam) and not (more and source.grown()):
        return
    source.check_build()
    check_writable(target.parent, "data.directory")
    with locked(target.parent / f".{target.name}.lock") as lock:
        assert lock is not None  # `locked` waits by default
        if _found(target, config, beam) and not (more and source.grown()):
            return
        begun, wanted = target / manifest.BEGUN, {"config": manifest.shaping(source)}
        if begun.exists() and not (source.resumable and read_object(begun, (), "delete it") == wanted):
            shutil.rmtree(target)  # what a killed process left
        target.mkdir(exist_ok=True)
        write_object(begun, wanted)
        with contextlib.ExitStack() as undo:
            if not source.resumable:
                undo.callback(shutil.rmtree, target)
            written = _build(config, target, beam)
            lock.check()
            undo.pop_all()
        write_object(target / manifest.MANIFEST, written)
        begun.unlink()


def _found(target: pathlib.Path, config: Config, beam: Beam | None) -> bool:
    """Whether something is there; raises an error if it isn't the data set that was asked for."""
    begun = (target / manifest.BEGUN).exists() and not (target / manifest.MANIFEST).exists()
    if (
        begun
        or not target.exists()
        or (target.is_dir() and {one.name for one in target.iterdir()} <= {EXPERIMENT_FILE})
    ):
        return False
    manifest.verify(config.data)
    if beam is not None:
        if not store.there(config.data):
            rule = "the data set is there already, without stored items, which --beam would add"
            fix = "choose another directory, or do without"
            raise DataError("data.directory", config.data.directory, rule, fix)
        store.check(config)
    return True


def _build(config: Config, directory: pathlib.Path, beam: Beam | None) -> dict[str, Any]:
    """Writes a whole data set into a directory; returns the content of its manifest."""
    source = config.data
    with rich.progress.Progress(console=rich.console.Console(stderr=True)) as progress:

        def bar_of(title: str) -> Progress:
            bar = progress.add_task(title, total=1.0)
            return lambda share: progress.update(bar, completed=share)

        tell = bar_of("Building the records")
        source.build(directory, tell, beam)
        tell(1.0)
        here = dataclasses.replace(source, directory=str(directory))
        for modality in modalities_of(source.fields).values():
            if modality.learned and not fitting.path_of(directory, modality).exists():
                arrays = fitting.fit(here, modality, bar_of(f"Fitting {modality.name}"))
                fitting.save(directory, modality, arrays)
        written = {"format": 2, "config": manifest.shaping(source), "excluded": dict(here.excluded())}
        if beam is not None:
            progress.add_task("Storing items", total=None)
            written[store.STORED] = store.write(config, here, directory, beam)
    return written | {"files": manifest.describe(directory)}
