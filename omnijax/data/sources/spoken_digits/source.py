"""Spoken digits: real pictures of digits, their English names, and the names spoken by a synthesiser."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy
from jaxtyping import Int

from omnijax.data.records import StoredRecords, packed, write_messages
from omnijax.data.sources.spoken_digits.settings import Settings
from omnijax.modalities.base import Progress
from omnijax.paths import as_path
from omnijax.source import Judge, Record, read

with epy.lazy_imports():  # the builder and the judges need the extra `demo`
    from omnijax.data.sources.spoken_digits import judges as judging
    from omnijax.data.sources.spoken_digits import making as building

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
        done, total = itertools.count(1), sum(building.count_records(self).values())

        def messages(split: str) -> Iterator[bytes]:
            for record in building.make_records(split, self):
                yield packed(record)
                progress(next(done) / total)

        for split in self.splits:
            write_messages(directory / RECORDS / f"{split}.array_record", messages(split))

    def records(self, split: str) -> Sequence[Record]:
        """The records in the order of their pictures; those of one picture follow one another."""
        return StoredRecords([as_path(self.directory) / RECORDS / f"{split}.array_record"])

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
