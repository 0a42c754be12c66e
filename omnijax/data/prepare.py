"""Builds a data set once: records, what modalities learn, items, a manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from typing import Any

import rich.console
import rich.progress

from omnijax.config import Config
from omnijax.data import fitting, manifest, store
from omnijax.data.beam import Beam
from omnijax.errors import ConfigError
from omnijax.files import check_writable, read_object, write_object
from omnijax.lock import locked
from omnijax.modalities.base import Progress
from omnijax.paths import as_path, delete_tree
from omnijax.source import modalities_of


def prepare(config: Config, beam: Beam | None = None, more: bool = False) -> None:
    """Builds the data set of a configuration, or returns at once when it is there, complete and matching.

    The manifest is written last, so that a process that is killed leaves nothing that looks like a data set. Of several
    processes that start together, one builds and the others wait. A source that stores nothing has nothing to build.
    With `more`, a source that is `resumable` stores what was added to its files since.

    `beam` builds it on Apache Beam's workers, which have to see the directory. The bytes are the same.

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
    target = as_path(source.directory).resolve()
    begun = target / manifest.BEGUN
    if _found(target, config) and not (more and (begun.exists() or source.grown())):
        return
    source.check_build()
    check_writable(target.parent, "data.directory")
    with locked(target.parent / f".{target.name}.lock") as lock:
        assert lock is not None  # `locked` waits by default
        if _found(target, config) and not (more and (begun.exists() or source.grown())):
            return
        wanted = {"config": manifest.shaping(source)}
        if begun.exists() and not (source.resumable and read_object(begun, (), "delete it") == wanted):
            _clear(target)  # what a killed process left
        target.mkdir(exist_ok=True)
        write_object(begun, wanted)
        with contextlib.ExitStack() as undo:
            if not source.resumable:
                undo.callback(_clear, target)
            written = _build(config, target, beam)
            lock.check()
            undo.pop_all()
        write_object(target / manifest.MANIFEST, written)
        begun.unlink()


def _clear(target: pathlib.Path) -> None:
    """Deletes a data set, and its directory if the user's experiment file isn't in it."""
    for path in target.iterdir():
        if path.is_dir():
            delete_tree(path)
        elif path.name != manifest.EXPERIMENT_FILE:
            path.unlink()
    if not any(target.iterdir()):
        target.rmdir()


def _found(target: pathlib.Path, config: Config) -> bool:
    """Whether something is there; raises an error if it isn't the data set that was asked for."""
    begun = (target / manifest.BEGUN).exists() and not (target / manifest.MANIFEST).exists()
    empty = target.is_dir() and {one.name for one in target.iterdir()} <= {manifest.EXPERIMENT_FILE}
    if begun or empty or not target.exists():
        return False
    manifest.verify(config.data)
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
                fitting.save(directory, modality, fitting.fit(here, modality, bar_of(f"Fitting {modality.name}")))
        items = store.write(config, here, bar_of("Storing the items"), beam)
        written = {"format": 3, "config": manifest.shaping(source), "items": items, "excluded": dict(here.excluded())}
    return written | {"files": manifest.describe(directory)}
