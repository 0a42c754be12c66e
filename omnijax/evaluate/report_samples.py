"""The examples that a report shows: a few of each direction, with the real signals beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from omnijax.config import Config
from omnijax.data.records import Records
from omnijax.evaluate.completions import Completed


class Direction(NamedTuple):
    """What came of one direction.

    Attributes:
        signals: what was generated, as signals; None where nothing could be read.
        judged: int[n], the digit that a judge saw in each; -1 for none.
        decodable: bool[n].
    """

    signals: list[Any]
    judged: Int[np.ndarray, " n"]
    decodable: Bool[np.ndarray, " n"]


def collect(
    config: Config,
    heldout: Records,
    directions: Mapping[str, Direction],
    completions: Mapping[str, Completed],
    codec: Sequence[Any],
) -> dict[str, np.ndarray]:
    """Arrays by name, for `samples.npz`.

    A direction `D` gives `D/label`, `D/judged`, and its signals as `D/source` and `D/signal`; waveforms are padded, and
    their lengths stand in `D/source_length` and `D/length`. A completion from half `H` gives `completed/H/label`,
    `completed/H/judged`, `completed/H/real`, `completed/H/given`, the pixels that were known, and
    `completed/H/picture`. `real/…` are held-out signals, and `real/speech_codec` the
    same speech through the codebook and back.
    """
    count = len(codec)
    chosen = balanced(heldout.labels[:count], config.eval.show)
    labels = heldout.labels[chosen]
    real: dict[str, list[Any]] = {
        "image": list(heldout.images),
        "text": heldout.words,
        "speech": [wave.astype(np.float32) / 32768 for wave in heldout.speech],
    }
    arrays: dict[str, np.ndarray] = {"sample_rate_hz": np.asarray(config.data.sample_rate_hz)}
    for name, direction in directions.items():
        source = name.split("->")[0]
        kept = [i for i in chosen if direction.signals[i] is not None]
        arrays[f"{name}/label"] = heldout.labels[kept]
        arrays[f"{name}/judged"] = direction.judged[kept]
        arrays |= _signals(f"{name}/signal", f"{name}/length", [direction.signals[i] for i in kept])
        arrays |= _signals(f"{name}/source", f"{name}/source_length", [real[source][i] for i in kept])
    for half, completed in completions.items():
        arrays[f"completed/{half}/label"], arrays[f"completed/{half}/real"] = labels, heldout.images[chosen]
        arrays[f"completed/{half}/judged"] = completed.judged[chosen]
        arrays[f"completed/{half}/given"] = completed.given
        arrays[f"completed/{half}/picture"] = completed.pictures[chosen]
    arrays["real/image"], arrays["real/image_label"] = heldout.images[chosen], labels
    arrays["real/speech_label"] = labels
    arrays |= _signals("real/speech", "real/speech_length", [real["speech"][i] for i in chosen])
    arrays |= _signals("real/speech_codec", "real/speech_codec_length", [codec[i] for i in chosen])
    return arrays


def balanced(labels: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " m"]:
    """Indices of the first examples of each label in turn, `count` in all, or fewer where there are no more."""
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        of_label = np.flatnonzero(labels == label)
        rank[of_label] = np.arange(of_label.size)
    return np.lexsort((labels, rank))[:count]


def _signals(name: str, length_name: str, signals: Sequence[Any]) -> dict[str, np.ndarray]:
    """Signals of one modality as one array: texts and pictures as they are, waveforms padded, with their lengths."""
    if not signals or isinstance(signals[0], str) or np.ndim(signals[0]) > 1:
        return {name: np.array(signals)}
    lengths = np.array([len(wave) for wave in signals])
    padded = np.zeros((len(signals), lengths.max()), np.float32)
    for row, wave in zip(padded, signals, strict=True):
        row[: len(wave)] = wave
    return {name: padded, length_name: lengths}
