"""Spoken digits: real pictures of digits, their English names, and the names spoken by a synthesiser."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy
from jaxtyping import Int

from omnijax.data.sources.spoken_digits.settings import Settings
from omnijax.data.store import write_records
from omnijax.modalities.base import Progress
from omnijax.source import Judge, Record, read

with epy.lazy_imports():  # the builder and the judges need the extra `demo`
    import tensorflow_datasets as tfds

    from omnijax.data.sources.spoken_digits import judges as judging
    from omnijax.data.sources.spoken_digits import spoken_digits_dataset_builder as building

RECORDS = "records"


@dataclasses.dataclass(frozen=True)
class SpokenDigits(Settings):
    """scikit-learn's 1,797 pictures of digits, each with its English name, written and spoken in one of 104 voices.

    Validation and test have pictures and voices of their own. Real held-out pictures have one record each.
    """

    def check_build(self) -> None:
        """Checks the splits against the pictures and voices that there are."""
        building.check(self)

    def build(self, directory: pathlib.Path, progress: Progress, beam: Any = None) -> None:
        """Speaks all words and writes the records."""
        counts = building.count_records(self)
        done, make = itertools.count(1), functools.partial(building.make_records, source=self)

        def make_and_tell(utterance: building.Utterance) -> Any:
            progress(next(done) / sum(counts.values()))
            return make(utterance)

        work = {"pieces": functools.partial(building.utterances, source=self), "make": make if beam else make_and_tell}
        write_records(directory / RECORDS, building.Builder, counts, beam, **work)

    def records(self, split: str) -> Sequence[Record]:
        """The records in the order of their pictures; those of one picture follow one another."""
        return _Records(self.directory, split)

    def small(self, directory: str) -> SpokenDigits:
        """97 training records, built in about four seconds, and a codebook of 32; no test split."""
        speech = dataclasses.replace(self.speech, codes=32, griffin_lim_iterations=2)
        few = dataclasses.replace(self, utterances=1, validation_images=1700, test_images=0, test_voices=0)
        return dataclasses.replace(few, directory=directory, speech=speech)

    def labels(self, split: str) -> Int[np.ndarray, " n"]:
        """The digit of each record."""
        records = self.records(split)
        return np.array([row["label"] for row in read(records, range(len(records)))], np.int64)

    def judges(self) -> Mapping[str, Judge]:
        """Support-vector machines on pictures and on cepstra; a word must be exactly right."""
        return judging.fit_judges(self)


class _Records(Sequence[Record]):
    def __init__(self, directory: str, split: str):
        self._rows = tfds.builder_from_directory(pathlib.Path(directory) / RECORDS).as_data_source(split)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        if not 0 <= place < len(self):
            raise IndexError(place)  # ends an iteration
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[Record]:
        rows = self._rows.__getitems__([int(place) for place in places])
        return [{**row, "text": row["text"].decode(), "voice": row["voice"].decode()} for row in rows]
