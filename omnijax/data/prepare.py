"""Builds the data set once: records, speech codebook, manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import io
import json
import pathlib
import shutil

import rich.console
import rich.progress
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2

from omnijax import errors
from omnijax.config import DataConfig
from omnijax.data import records
from omnijax.data.spoken_digits import spoken_digits_dataset_builder as spoken_digits
from omnijax.modalities import audio


def prepare(config: DataConfig) -> None:
    """Builds the data set into `config.directory`, or returns at once when it's there, complete and matching.

    The work is done in a directory beside it that takes its name at the end, so that a process killed in between
    leaves nothing that looks like a data set. Of several processes that start together, one builds and the others wait.

    Raises:
        DataError: the directory holds something else, or a data set that is damaged or differently configured; it is
            never overwritten.
        ConfigError: a value that no data set can be built with.
        PlatformError: the speech synthesiser is missing.
    """
    target = pathlib.Path(config.directory).resolve()
    if _occupied(target):
        records.verify(config)
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
            records.verify(config)
            return
        partial = target.parent / f".{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
        try:
            build(config, partial)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _occupied(target: pathlib.Path) -> bool:
    return target.exists() and (not target.is_dir() or any(target.iterdir()))


def build(config: DataConfig, directory: pathlib.Path) -> None:
    """Writes a whole data set into a new directory.

    Raises:
        ConfigError: a value that no data set can be built with.
        DataError: there are fewer fragments than codes.
        PlatformError: the speech synthesiser is missing.
    """
    tfds_directory = directory / "tfds"
    tfds.disable_progress_bar()
    with rich.progress.Progress(console=rich.console.Console(stderr=True)) as progress:
        task = progress.add_task("Speaking digits", total=spoken_digits.count_records(settings(config)))
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints notices about downloads; there are none
            builder = spoken_digits.Builder(
                settings=settings(config),
                on_record=lambda: progress.advance(task),
                data_dir=tfds_directory,
                file_format="array_record",
            )
            builder.download_and_prepare()
        # TFDS nests name and version, and makes a folder of downloads; here there is only ever one data set.
        pathlib.Path(builder.data_path).rename(directory / records.RECORDS)
        shutil.rmtree(tfds_directory)
        for path in progress.track(sorted(directory.rglob("*.array_record*")), description="Writing records"):
            make_canonical(path)
        for _ in progress.track([None], description="Fitting the speech codebook"):
            speech = records.read(directory, "train").speech
            codebook = audio.fit_codebook(speech, config.speech, config.sample_rate_hz, config.seed)
            codebook.save(directory / records.CODEBOOK)
    manifest = {"format": 1, "config": records.shaping(config), "files": records.describe(directory)}
    (directory / records.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def settings(config: DataConfig) -> spoken_digits.Settings:
    """Returns the part of a configuration that the records depend on."""
    names = [field.name for field in dataclasses.fields(spoken_digits.Settings)]
    return spoken_digits.Settings(**{name: getattr(config, name) for name in names})


def make_canonical(path: pathlib.Path) -> None:
    """Writes an ArrayRecord file of `tf.train.Example` again, the features of each example in order of their names.

    TFDS leaves the order to protobuf's maps, which take it from memory addresses: other bytes in every process.
    """
    reader = array_record_module.ArrayRecordReader(str(path))
    examples = [tf_example_pb2.Example.FromString(data) for data in reader.read_all()]
    reader.close()
    path.unlink()
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for example in examples:
        writer.write(example.SerializeToString(deterministic=True))
    writer.close()
