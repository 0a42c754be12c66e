"""The data that runs are measured on, and what judges them."""

from __future__ import annotations

import dataclasses
import functools

from omnijax.config import Config, DataConfig
from omnijax.data.corpus import Corpus, digit_modalities, read_corpus
from omnijax.data.prepare import prepare
from omnijax.data.records import Records, load_records
from omnijax.data.sources.spoken_digits.judges import Judges, fit_judges
from omnijax.modalities import Modality
from omnijax.vocab.vocabulary import Vocabulary

SPLIT = "heldout"


@dataclasses.dataclass(frozen=True)
class Heldout:
    """A data set; each part is read, or fitted, when a task first asks for it, and kept.

    Attributes:
        vocabulary: that its fragments are written in.
        data: where it is.
        seed: that its fragments were drawn with, `batch.seed`.
    """

    vocabulary: Vocabulary
    data: DataConfig
    seed: int

    @functools.cached_property
    def corpus(self) -> Corpus:
        """The held-out split in fragments."""
        return read_corpus(self.vocabulary, self.data, "heldout", self.seed)

    @functools.cached_property
    def records(self) -> Records:
        """The held-out split in signals."""
        return load_records(self.data, "heldout")

    @functools.cached_property
    def train(self) -> Records:
        """The training split in signals, which judges are fitted on."""
        return load_records(self.data, "train")

    @functools.cached_property
    def modalities(self) -> dict[str, Modality]:
        """What turns fragments into signals, by name."""
        return digit_modalities(self.data)

    @functools.cached_property
    def judges(self) -> Judges:
        """Of generated signals."""
        return fit_judges(self.train, self.data)


def heldout_of(config: Config) -> Heldout:
    """The held-out data of a run, checked, and built where it is missing.

    What was read stays for the next run of the same data and vocabulary.

    Raises:
        DataError: the data set is damaged.
    """
    prepare(config.data)
    return _kept(config.vocabulary, config.data, config.batch.seed)


_kept = functools.lru_cache(maxsize=1)(Heldout)
