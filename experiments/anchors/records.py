"""A split of the spoken digits as one array or list for each field."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int16, Int64, UInt8

from omnijax.data.manifest import verify
from omnijax.data.sources.spoken_digits import SpokenDigits
from omnijax.source import read


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """A split; entry `i` of each field belongs to record `i`.

    Attributes:
        images: grey levels 0 to 16.
        labels: the class of each picture.
        words: its English name.
        speech: waveforms of different lengths.
        voices: espeak-ng's voice variant.
        image_index: number of the picture in scikit-learn's data set; several records share one.
    """

    images: UInt8[np.ndarray, "n 8 8"]
    labels: Int64[np.ndarray, " n"]
    words: list[str]
    speech: list[Int16[np.ndarray, " samples"]]
    voices: list[str]
    image_index: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.labels)


def load_records(source: SpokenDigits, split: str) -> Records:
    """Reads a split.

    Raises:
        DataError: the data set is missing or damaged.
    """
    verify(source)
    records = source.records(split)
    rows = read(records, range(len(records)))
    return Records(
        images=np.stack([row["image"] for row in rows]),
        labels=np.array([row["label"] for row in rows], np.int64),
        words=[row["text"] for row in rows],
        speech=[row["speech"] for row in rows],
        voices=[row["voice"] for row in rows],
        image_index=np.array([row["image_index"] for row in rows], np.int64),
    )
