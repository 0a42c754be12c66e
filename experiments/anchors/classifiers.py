"""Classifiers that are no language models: which class a picture or an utterance belongs to.

The linear classifier is a multinomial logistic regression. Its penalty is chosen by cross-validation within the
training split. For speech the folds keep each voice together, since the held-out voices are new too.
The support-vector machine is the judge that reads generated signals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import sklearn.linear_model
import sklearn.model_selection
import sklearn.pipeline
import sklearn.preprocessing
from jaxtyping import Float64, Int16, Int64

from experiments.anchors.records import Records
from omnijax.data.sources.spoken_digits import SpokenDigits
from omnijax.modalities import speech as audio
from omnijax.modalities.spectrogram import Spectrogram
from omnijax.sweep.anchors import Anchor

CHUNKS = 8
"""Equal parts of an utterance. Each part gives the mean and the standard deviation of every band."""
_SEARCHED = 1500  # the penalty is chosen on at most this many signals
_FOLDS = 5
_PENALTIES = (0.01, 0.1, 1.0, 10.0)
_WINDOW_SECONDS, _HOP_SECONDS, _MELS, _FLOOR = 0.032, 0.010, 40, 1e-3


def anchors(train: Records, pictures: np.ndarray, heldout: Records, source: SpokenDigits) -> Iterator[Anchor]:
    """Accuracies of both classifiers on pictures and on speech.

    Args:
        train: the training split, on which the linear classifier is fitted.
        pictures: int [m], the index of the first record of each training picture.
        heldout: what is measured.
        source: the data set, whose judges are fitted on its training split.
    """
    judges, rate = source.judges(), source.speech.sample_rate_hz
    seen = train.images[pictures].reshape(len(pictures), -1) / 16.0
    new = heldout.images.reshape(len(heldout), -1) / 16.0
    predicted, told = _linear(seen, train.labels[pictures], np.arange(len(seen)), new)
    yield _anchor("logistic regression", "image->text", predicted, heldout.labels, f"pixels; {told}")
    judged = judges["image"](heldout.images)
    yield _anchor("support-vector machine", "image->text", judged, heldout.labels, "pixels; the judge of pictures")
    seen, new = features(train.speech, rate), features(heldout.speech, rate)
    predicted, told = _linear(seen, train.labels, np.array(train.voices), new)
    told = f"means and deviations of {_MELS} log-mel bands in {CHUNKS} equal parts; {told}"
    yield _anchor("logistic regression", "speech->text", predicted, heldout.labels, told)
    judged = judges["speech"](heldout.speech)
    yield _anchor("support-vector machine", "speech->text", judged, heldout.labels, "cepstra; the judge of speech")


def features(speech: Sequence[Int16[np.ndarray, " samples"]], sample_rate_hz: int) -> Float64[np.ndarray, "n features"]:
    """Mean and standard deviation of every log-mel band over equal parts of each utterance, at one loudness."""
    window, hop = (2 * round(seconds * sample_rate_hz / 2) for seconds in (_WINDOW_SECONDS, _HOP_SECONDS))
    analysis = Spectrogram(sample_rate_hz, window, hop, _MELS, _FLOOR)
    rows = []
    for waveform in speech:
        samples = audio.normalised(waveform)
        log_mel = analysis.log_mel(samples, max(CHUNKS, -(-len(samples) // hop)))
        parts = np.array_split(log_mel, CHUNKS)
        rows.append(np.concatenate([np.concatenate([part.mean(axis=0), part.std(axis=0)]) for part in parts]))
    return np.asarray(rows, np.float64)


def _linear(
    seen: np.ndarray, labels: Int64[np.ndarray, " m"], groups: np.ndarray, new: np.ndarray
) -> tuple[Int64[np.ndarray, " n"], str]:
    """The classes that a linear classifier predicts, and how its penalty was chosen."""
    scale = sklearn.preprocessing.StandardScaler()
    linear = sklearn.linear_model.LogisticRegression(max_iter=5000)
    few = np.unique(np.linspace(0, len(seen) - 1, min(_SEARCHED, len(seen))).round().astype(np.int64))
    folds = min(_FOLDS, int(np.bincount(labels[few]).min()))
    pipeline = sklearn.pipeline.Pipeline([("scale", scale), ("model", linear)])
    cut = sklearn.model_selection.StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    search = sklearn.model_selection.GridSearchCV(pipeline, {"model__C": _PENALTIES}, cv=cut, refit=False)
    search.fit(seen[few], labels[few], groups=groups[few])
    predicted = pipeline.set_params(**search.best_params_).fit(seen, labels).predict(new)
    penalty = search.best_params_["model__C"]
    return predicted, f"C {penalty:.3g} by {folds}-fold cross-validation within the training split"


def _anchor(
    name: str, route: str, predicted: Int64[np.ndarray, " n"], labels: Int64[np.ndarray, " n"], note: str
) -> Anchor:
    right, count = int(np.sum(predicted == labels)), len(labels)
    # The standard error counts half a record more of either kind, so that it isn't 0 where all are right.
    likely = (right + 0.5) / (count + 1)
    return Anchor(name, route, "accuracy", right / count, math.sqrt(likely * (1 - likely) / count), note)
