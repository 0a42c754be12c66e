"""Builds the data set once: records, speech codebook, stored fragments where Apache Beam does it, manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import io
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import rich.console
import rich.progress
import tensorflow_datasets as tfds

from omnijax import errors
from omnijax.config import DataConfig
from omnijax.data import corpus, fragments, records
from omnijax.data.beam import Beam
from omnijax.data.sources.spoken_digits import spoken_digits_dataset_builder as spoken_digits
from omnijax.modalities import speech as audio

CODEBOOK_RECORDS = 50_000
"""Utterances that the speech codebook is fitted on, at most."""


def prepare(config: DataConfig, beam: Beam | None = None, seed: int = 0) -> None:
    """Builds the data set into `config.directory`, or returns at once when it's there, complete and matching.

    A source that is made from the configuration alone has nothing to build.

    The work is done in a directory beside it that takes its name at the end, so that a process killed in between
    leaves nothing that looks like a data set. Of several processes that start together, one builds and the others wait.

    Args:
        config: of the data set.
        beam: builds it on Apache Beam's workers, which have to see the directory, and stores its fragments too. The
            records are the same.
        seed: `batch.seed` of the runs that the stored fragments are for.

    Raises:
        DataError: the directory holds something else, or a data set that is damaged or differently configured; it is
            never overwritten.
        ConfigError: a value that no data set can be built with, or a source without anything for Beam to build.
        PlatformError: the speech synthesiser is missing.
    """
    if config.source == "lookup":
        if beam is not None:
            rule = "it is made from the configuration alone, and there is nothing to build"
            raise errors.ConfigError("data.source", config.source, rule, "leave --beam out")
        return
    target = pathlib.Path(config.directory).resolve()
    if _occupied(target):
        _check(config, beam, seed)
        return
    spoken_digits.check(settings(config))
    audio.spectrogram(config.speech, config.sample_rate_hz)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = open(target.parent / f".{target.name}.lock", "w")  # noqa: SIM115 (closed by the `with` below)
    except OSError as error:
        rule = f"its parent must be a directory that can be written to ({error})"
        raise errors.DataError("data.directory", config.directory, rule, "choose another directory") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _occupied(target):
            _check(config, beam, seed)
            return
        partial = target.parent / f".{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
        try:
            build(config, partial, beam, seed)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _occupied(target: pathlib.Path) -> bool:
    return target.exists() and (not target.is_dir() or any(target.iterdir()))


def _check(config: DataConfig, beam: Beam | None, seed: int) -> None:
    """Whether the data set that is there is the one that was asked for."""
    records.verify(config)
    if beam is not None:
        if records.fragments_seed(config) is None:
            rule = "the data set is there already, without stored fragments, which --beam would add"
            raise errors.DataError("data.directory", config.directory, rule, "choose another directory, or do without")
        records.check_fragments_seed(config, seed)


def build(config: DataConfig, directory: pathlib.Path, beam: Beam | None = None, seed: int = 0) -> None:
    """Writes a whole data set into a new directory; the arguments are those of `prepare`.

    Raises:
        ConfigError: a value that no data set can be built with.
        DataError: there are fewer fragments than codes, or records were lost on the way.
        PlatformError: the speech synthesiser is missing.
    """
    tfds.disable_progress_bar()
    with rich.progress.Progress(console=rich.console.Console(stderr=True)) as progress:
        counts = spoken_digits.count_records(settings(config))
        task = progress.add_task("Speaking digits", total=sum(counts.values()))
        speak = functools.partial(
            spoken_digits.Builder, settings=settings(config), on_record=lambda: progress.advance(task)
        )
        _write(directory, records.RECORDS, speak, counts, beam)
        progress.update(task, completed=sum(counts.values()))
        for _ in progress.track([None], description="Fitting the speech codebook"):
            speech = records.read(directory, "train", _codebook_places(directory, config.seed)).speech
            codebook = audio.fit_codebook(speech, config.speech, config.sample_rate_hz, config.seed)
            codebook.save(directory / records.CODEBOOK)
        if beam is not None:
            for _ in progress.track([None], description="Making fragments"):
                modalities = corpus.modalities_of(codebook, config)
                make = functools.partial(corpus.views, modalities=modalities, seed=seed)
                stored = functools.partial(fragments.Fragments, source=directory, names=corpus.VIEWS, make=make)
                _write(directory, fragments.FRAGMENTS, stored, counts, beam)
    manifest = {"format": 1, "config": records.shaping(config), "files": records.describe(directory)}
    if beam is not None:
        manifest["fragments"] = {"seed": seed}
    (directory / records.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _write(
    directory: pathlib.Path,
    name: str,
    make_builder: Callable[..., tfds.core.DatasetBuilder],
    counts: Mapping[str, int],
    beam: Beam | None,
) -> None:
    """Lets a TFDS builder write its records into the directory of this name.

    Raises:
        DataError: there are not as many as there must be in each split.
    """
    tfds_directory = directory / "tfds"
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints notices about downloads; there are none
        builder = make_builder(beam=beam is not None, data_dir=tfds_directory, file_format="array_record")
        builder.download_and_prepare(download_config=None if beam is None else beam.download_config())
    written = {split: info.num_examples for split, info in builder.info.splits.items()}
    if written != counts:
        rule = f"there must be {dict(counts)}: a worker has lost some"
        raise errors.DataError(name, written, rule, "build again, with another runner if it happens again")
    # TFDS nests name and version, and makes a folder of downloads; here there is only ever one data set.
    pathlib.Path(builder.data_path).rename(directory / name)
    shutil.rmtree(tfds_directory)


def _codebook_places(directory: pathlib.Path, seed: int) -> Sequence[int] | None:
    """Training records that the codebook is fitted on: all, or as many as one machine can hold, drawn by seed."""
    count = tfds.builder_from_directory(directory / records.RECORDS).info.splits["train"].num_examples
    if count <= CODEBOOK_RECORDS:
        return None
    chosen = np.random.default_rng((seed, 3)).choice(count, CODEBOOK_RECORDS, replace=False)
    return [int(place) for place in np.sort(chosen)]


def settings(config: DataConfig) -> spoken_digits.Settings:
    """Returns the part of a configuration that the records depend on."""
    names = [field.name for field in dataclasses.fields(spoken_digits.Settings)]
    return spoken_digits.Settings(**{name: getattr(config, name) for name in names})
