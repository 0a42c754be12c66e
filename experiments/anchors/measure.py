"""All anchors of a data set, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from experiments.anchors import classifiers, histograms, pictures, sounds, words
from experiments.anchors.records import load_records
from omnijax.data.sources.spoken_digits import SpokenDigits
from omnijax.source import TRAIN, VALIDATION
from omnijax.sweep.anchors import Anchor


def measure(source: SpokenDigits, on_part: Callable[[str], None]) -> list[Anchor]:
    """Measures them; see `experiments.anchors.anchors`."""
    train, heldout = load_records(source, TRAIN), load_records(source, VALIDATION)
    first = np.unique(train.image_index, return_index=True)[1]
    images, labels, names = train.images[first], train.labels[first], [train.words[k] for k in first]
    parts: dict[str, Callable[[], Iterator[Anchor]]] = {
        "codecs of pictures": lambda: pictures.anchors(images, heldout.images),
        "models of pictures": lambda: histograms.anchors(
            images, labels, heldout.images, heldout.labels, pictures.LEVELS
        ),
        "codecs of speech": lambda: sounds.anchors(train.speech, heldout.speech, source.speech.sample_rate_hz),
        "codecs of text": lambda: words.anchors(names, heldout.words),
        "classifiers": lambda: classifiers.anchors(train, first, heldout, source),
    }
    found: list[Anchor] = []
    for name, measured in parts.items():
        on_part(name)
        found += measured()
    return found
