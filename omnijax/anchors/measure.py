"""Every anchor of a data set, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from omnijax.anchors import classifiers, histograms, pictures, sounds, words
from omnijax.anchors.anchor import Anchor
from omnijax.config import DataConfig
from omnijax.data.records import load_records


def measure(config: DataConfig, on_part: Callable[[str], None]) -> list[Anchor]:
    """Measures them; see `omnijax.anchors.anchors`."""
    train, heldout = load_records(config, "train"), load_records(config, "heldout")
    first = np.unique(train.image_index, return_index=True)[1]
    images, labels, names = train.images[first], train.labels[first], [train.words[k] for k in first]
    parts: dict[str, Callable[[], Iterator[Anchor]]] = {
        "codecs of pictures": lambda: pictures.anchors(images, heldout.images),
        "models of pictures": lambda: histograms.anchors(
            images, labels, heldout.images, heldout.labels, pictures.LEVELS
        ),
        "codecs of speech": lambda: sounds.anchors(train.speech, heldout.speech, config.sample_rate_hz),
        "codecs of text": lambda: words.anchors(names, heldout.words),
        "classifiers": lambda: classifiers.anchors(train, first, heldout, config),
    }
    found: list[Anchor] = []
    for name, measured in parts.items():
        on_part(name)
        found += measured()
    return found
