"""A split as fragments, and its records as documents: the last place that knows the modalities by name."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int64

from omnijax.config import DataConfig, modality_of
from omnijax.data import fragments, table
from omnijax.data.records import Records, check_fragments_seed, fragments_seed, load_codebook, load_records
from omnijax.data.sources import lookup
from omnijax.errors import ConfigError, VocabularyError
from omnijax.modalities import Modality, PatchImage, Speech, Text
from omnijax.modalities.codebook import Codebook
from omnijax.modalities.picture import moved
from omnijax.vocab.documents import Documents, Segment
from omnijax.vocab.ids import GeneralIds, SecondaryIds
from omnijax.vocab.vocabulary import Vocabulary

VIEWS = ("text", "image", "image/moved", "speech")


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Every record of a split, in fragments.

    Attributes:
        vocabulary: that the documents are for.
        fragments: for each modality, and each other view of one (`image/moved`), the ids within the modality's own
            space, one array a record; in limbs where they go beyond int64 (`vocab.ids.Numbers`).
    """

    vocabulary: Vocabulary
    fragments: Mapping[str, Sequence[Int64[np.ndarray, " items"]]]

    def __len__(self) -> int:
        return len(next(iter(self.fragments.values())))

    def document(self, record: int, names: Sequence[str]) -> list[Segment]:
        """These modalities (or views) of a record, one segment each.

        Raises:
            ConfigError: the corpus has no modality or view of this name.
        """
        for name in names:
            if name not in self.fragments:
                there = ", ".join(sorted(self.fragments))
                raise ConfigError("batch.tasks", name, f"a segment must be one of {there}", "mend the task")
        return [segment(self.vocabulary, name, self.fragments[name][record]) for name in names]

    def documents(self, records: Sequence[int], names: Sequence[str]) -> Documents:
        """These records as `document` gives each of them; at once where every record has as many items.

        Raises:
            ConfigError: see `document`.
        """
        views = [self.fragments.get(name) for name in names]
        tables = [view for view in views if isinstance(view, table.Table)]
        if not len(records) or len(tables) < len(names):
            return Documents.of(self.document(record, names) for record in records)
        return table.documents(self.document(records[0], names), [view.take(records) for view in tables])


def segment(vocabulary: Vocabulary, name: str, ids: Int64[np.ndarray, " items"]) -> Segment:
    """A segment of one modality: fragments where the vocabulary has a space of this name, else general tokens."""
    name = modality_of(name)
    is_space = name in [space.name for space in vocabulary.spaces]
    return Segment.of(vocabulary, name, SecondaryIds(name, ids) if is_space else GeneralIds(ids))


def digit_modalities(config: DataConfig) -> dict[str, Modality]:
    """Text, image and speech of the digits data set, by name.

    Raises:
        DataError: the codebook of the data set is missing or damaged.
    """
    return modalities_of(load_codebook(config), config)


def modalities_of(codebook: Codebook, config: DataConfig) -> dict[str, Modality]:
    """The same, of a data set that has this codebook."""
    modalities = (Text(), PatchImage(), Speech(codebook, config.speech, config.sample_rate_hz))
    return {modality.name: modality for modality in modalities}


def check_sizes(vocabulary: Vocabulary, modalities: Mapping[str, Modality]) -> None:
    """Holds the vocabulary against the modalities.

    Raises:
        ConfigError: a modality has no marker or more fragments than its space has ids.
    """
    spaces = {space.name: space.size for space in vocabulary.spaces}
    for name, modality in modalities.items():
        try:
            vocabulary.token(name)
        except VocabularyError as error:
            raise ConfigError(
                "vocabulary.control", vocabulary.control, f"needs {name!r}, the marker of a modality", "add it"
            ) from error
        room = spaces.get(name, vocabulary.general)
        if modality.size != room:
            field = f"size of space {name!r}" if name in spaces else "vocabulary.general"
            raise ConfigError(field, room, f"the modality {name!r} has {modality.size} fragments", "make them equal")


def fragment_records(
    vocabulary: Vocabulary, records: Records, modalities: Mapping[str, Modality], seed: int = 0
) -> Corpus:
    """Turns the signals of a split into fragments; the seed draws the view `image/moved`.

    Raises:
        ConfigError: see `check_sizes`.
    """
    check_sizes(vocabulary, modalities)
    return Corpus(vocabulary, views(records, 0, len(records), modalities=modalities, seed=seed))


def views(
    records: Records, first: int, total: int, *, modalities: Mapping[str, Modality], seed: int
) -> fragments.Views:
    """The fragments of records that follow one another, in every view of `VIEWS`.

    Args:
        records: all of a split, or some of it.
        first: the place of the first of them in the split.
        total: how many the split has.
        modalities: those of `digit_modalities`.
        seed: draws the view `image/moved`.
    """
    image, speech = modalities["image"], modalities["speech"]
    assert isinstance(image, PatchImage)
    assert isinstance(speech, Speech)
    return {
        "text": [modalities["text"].fragments(word) for word in records.words],
        "image": list(image.fragments(records.images)),
        "image/moved": list(image.fragments(moved(records.images, image.levels, seed, first, total))),
        "speech": speech.fragments_batch(records.speech),
    }


def read_corpus(vocabulary: Vocabulary, config: DataConfig, split: Literal["train", "heldout"], seed: int) -> Corpus:
    """A split in fragments, of any source: those stored with the data set, made from its records, or from knobs alone.

    Args:
        vocabulary: that the documents are for.
        config: of the data.
        split: which part of it.
        seed: `batch.seed` of the run; it draws the view `image/moved`.

    Raises:
        ConfigError: see `check_sizes` and `lookup.check`.
        DataError: the data set is missing or damaged, or its stored fragments were drawn with another seed.
    """
    if config.source == "lookup":
        lookup.check(vocabulary, config.lookup)
        return Corpus(vocabulary, lookup.views(config.lookup, split))
    modalities = digit_modalities(config)
    if fragments_seed(config) is None:
        return fragment_records(vocabulary, load_records(config, split), modalities, seed)
    check_fragments_seed(config, seed)
    check_sizes(vocabulary, modalities)
    return Corpus(vocabulary, fragments.load(pathlib.Path(config.directory), split, VIEWS))
