"""Classifiers that are no language models: which digit a picture shows, which one an utterance says.

Linear (multinomial logistic regression) and with a radial kernel (a support-vector machine). Their constants are chosen
by cross-validation within the training split; for speech its folds keep each voice together, since the held-out voices
are new too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import sklearn.linear_model
import sklearn.model_selection
import sklearn.pipeline
import sklearn.preprocessing
import sklearn.svm
from jaxtyping import Float64, Int16, Int32

from omnijax.anchors.anchor import Anchor
from omnijax.config import DataConfig
from omnijax.data.records import Records
from omnijax.modalities import speech as audio
from omnijax.modalities.spectrogram import Spectrogram

CHUNKS = 8
"""Equal parts of an utterance, of each of which the mean and the deviation of every band are taken."""
_SEARCHED = 1500  # utterances that the constants are chosen on, at most
_FOLDS = 5
_PENALTIES = (0.01, 0.1, 1.0, 10.0)
_COSTS, _WIDTHS = (1.0, 10.0, 100.0), (0.3, 1.0, 3.0)
_WINDOW_SECONDS, _HOP_SECONDS, _MELS, _FLOOR = 0.032, 0.010, 40, 1e-3


def anchors(train: Records, pictures: np.ndarray, heldout: Records, config: DataConfig) -> Iterator[Anchor]:
    """Both classifiers for both directions.

    Args:
        train: the training split.
        pictures: int [m], for each training picture the first of its records.
        heldout: what is measured.
        config: of the data set.
    """
    seen = train.images[pictures].reshape(len(pictures), -1) / 16.0
    new = heldout.images.reshape(len(heldout), -1) / 16.0
    yield from _both("image->text", seen, train.labels[pictures], np.arange(len(seen)), new, heldout.labels, "pixels")
    told = f"means and deviations of {_MELS} log-mel bands in {CHUNKS} equal parts"
    seen, new = features(train.speech, config), features(heldout.speech, config)
    yield from _both("speech->text", seen, train.labels, np.array(train.voices), new, heldout.labels, told)


def features(speech: Sequence[Int16[np.ndarray, " samples"]], config: DataConfig) -> Float64[np.ndarray, "n features"]:
    """Mean and standard deviation of every log-mel band over equal parts of each utterance, at one loudness."""
    rate = config.sample_rate_hz
    window, hop = 2 * round(_WINDOW_SECONDS * rate / 2), 2 * round(_HOP_SECONDS * rate / 2)
    analysis = Spectrogram(rate, window, hop, _MELS, _FLOOR)
    rows = []
    for waveform in speech:
        samples = audio.normalised(waveform)
        log_mel = analysis.log_mel(samples, max(CHUNKS, -(-len(samples) // hop)))
        parts = np.array_split(log_mel, CHUNKS)
        rows.append(np.concatenate([np.concatenate([part.mean(axis=0), part.std(axis=0)]) for part in parts]))
    return np.asarray(rows, np.float64)


def _both(
    direction: str,
    seen: np.ndarray,
    labels: Int32[np.ndarray, " m"],
    groups: np.ndarray,
    new: np.ndarray,
    wanted: Int32[np.ndarray, " n"],
    told: str,
) -> Iterator[Anchor]:
    scale = sklearn.preprocessing.StandardScaler
    linear = sklearn.linear_model.LogisticRegression(max_iter=5000)
    candidates: dict[str, tuple[Any, dict[str, Sequence[float]]]] = {
        "logistic regression": (linear, {"model__C": _PENALTIES}),
        # A kernel of width one falls to 1/e at the root mean square distance of the standardised features.
        "support-vector machine": (
            sklearn.svm.SVC(),
            {"model__C": _COSTS, "model__gamma": [one / (2 * seen.shape[1]) for one in _WIDTHS]},
        ),
    }
    few = np.unique(np.linspace(0, len(seen) - 1, min(_SEARCHED, len(seen))).round().astype(np.int64))
    folds = min(_FOLDS, int(np.bincount(labels[few]).min()))
    for name, (model, grid) in candidates.items():
        pipeline = sklearn.pipeline.Pipeline([("scale", scale()), ("model", model)])
        cut = sklearn.model_selection.StratifiedGroupKFold(folds, shuffle=True, random_state=0)
        search = sklearn.model_selection.GridSearchCV(pipeline, grid, cv=cut, refit=False)
        search.fit(seen[few], labels[few], groups=groups[few])
        fitted = pipeline.set_params(**search.best_params_).fit(seen, labels)
        right = int(np.sum(fitted.predict(new) == wanted))
        # Half a record of either kind more, so that the error isn't 0 where all are right.
        likely = (right + 0.5) / (len(wanted) + 1)
        constants = ", ".join(f"{key.removeprefix('model__')} {one:.3g}" for key, one in search.best_params_.items())
        note = f"{told}; {constants} by {folds}-fold cross-validation within the training split"
        error = math.sqrt(likely * (1 - likely) / len(wanted))
        yield Anchor(name, direction, "accuracy", right / len(wanted), error, note)
