"""What the train step reads."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from jaxtyping import Float32, Int32

from omnijax.vocab.kinds import Kinds


class Batch(TypedDict):
    """Sequences of packed documents, as the model reads them; `t` is one less than `batch.sequence_length`.

    Attributes:
        tokens: primary ids to read.
        targets: the ids that follow them in the same document.
        weights: of each target in the loss; 0 where none follows.
        kinds: kind of the token behind each token in its sequence, as `Encoded.kinds`.
        positions: place of each token in its document.
        documents: which document of its sequence it belongs to, from 0; -1 for padding.
        items: items of each sequence, for the throughput.
    """

    tokens: Int32[np.ndarray, "b t"]
    targets: Int32[np.ndarray, "b t"]
    weights: Float32[np.ndarray, "b t"]
    kinds: Kinds
    positions: Int32[np.ndarray, "b t"]
    documents: Int32[np.ndarray, "b t"]
    items: Int32[np.ndarray, " b"]
