"""Builds a data set once: records, what modalities learn, stored items where Apache Beam does it, a manifest."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

import rich.console
import rich.progress

from omnijax.config import Config
from omnijax.data import fitting, manifest, store
from omnijax.data.beam import Beam
from omnijax.errors import ConfigError, DataError
from omnijax.files import check_writable, write_object
from omnijax.lock import locked
from omnijax.modalities.base import Progress
from omnijax.source import modalities_of


def prepare(config: Config, beam: Beam | None = None) -> None:
    """Builds the data set of a configuration, or returns at once when it is there, complete and matching.

    The work is done in a directory beside it that takes its name at the end, so that a process killed in between leaves
    nothing that looks like a data set. Of several processes that start together, one builds and the others wait. A
    source that stores nothing has nothing to build.

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
    if _found(target, config, beam):
        return
    source.check_build()
    check_writable(target.parent, "data.directory")
    with locked(target.parent / f".{target.name}.lock") as lock:
        assert lock is not None  # `locked` waits by default
        if _found(target, config, beam):
            return
        partial = target.parent / f".{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
        try:
            _build(config, partial, beam)
            lock.check()
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _found(target: pathlib.Path, config: Config, beam: Beam | None) -> bool:
    """Whether something is there; raises an error if it isn't the data set that was asked for."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    manifest.verify(config.data)
    if beam is not None:
        if not store.there(config.data):
            rule = "the data set is there already, without stored items, which --beam would add"
            fix = "choose another directory, or do without"
            raise DataError("data.directory", config.data.directory, rule, fix)
        store.check(config)
    return True


def _build(config: Config, directory: pathlib.Path, beam: Beam | None) -> None:
    """Writes a whole data set into a new directory."""
    source = config.data
    directory.mkdir(parents=True)
    with rich.progress.Progress(console=rich.console.Console(stderr=True)) as progress:

        def bar_of(title: str) -> Progress:
            bar = progress.add_task(title, total=1.0)
            return lambda share: progress.update(bar, completed=share)

        tell = bar_of("Building the records")
        source.build(directory, tell, beam)
        tell(1.0)
        here = dataclasses.replace(source, directory=str(directory))
        for modality in modalities_of(source.fields).values():
            if modality.learned:
                arrays = fitting.fit(here, modality, bar_of(f"Fitting {modality.name}"))
                fitting.save(directory, modality, arrays)
        written = {"format": 2, "config": manifest.shaping(source), "excluded": dict(here.excluded())}
        if beam is not None:
            progress.add_task("Storing items", total=None)
            written[store.STORED] = store.write(config, here, directory, beam)
        written["files"] = manifest.describe(directory)
        write_object(directory / manifest.MANIFEST, written)
