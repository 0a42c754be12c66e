"""Models of pictures that only count: each pixel by itself, within a class, and with its neighbours.

All probabilities are those of a pixel given the pixels before it in reading order, so the probabilities of all pictures
sum to one. The constants added to the counts are chosen by likelihood on a part of the training split, without the
held-out pictures.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Self

import numpy as np
import scipy.special
from jaxtyping import Float64, Int32, Int64, UInt8

from experiments.anchors.per_unit import of_signals
from omnijax.sweep.anchors import Anchor

ADDED = (0.03, 0.1, 0.3, 0.5, 1.0, 3.0)
"""Counts added to each level: 0.5 is Jeffreys' prior, 1 is Laplace's."""
WEIGHTS = ((0.0, 0.0), *itertools.product((20.0, 40.0, 80.0, 160.0), (10.0, 20.0, 40.0)))
"""Weights of the coarser model within each of the two finer ones, in counts; 0 leaves both finer models out."""
_VALIDATION_SHARE = 0.2
_STEPS = 4  # coarse grey levels of a neighbour that isn't blank
Pictures = UInt8[np.ndarray, "n h w"]


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Three models of levels: by place; by four coarse neighbours; by place and two coarse neighbours.

    The first model smooths the second, and the second smooths the third, as in prediction by partial matching: to the
    counts of a finer context `weight` counts are added in the proportions of the coarser model.

    Attributes:
        place: probabilities of the first model.
        tables: counts of the finer models; empty if they are left out.
        weights: of the coarser model within each finer one.
    """

    place: Float64[np.ndarray, "h w levels"]
    tables: tuple[Float64[np.ndarray, "contexts levels"], ...]
    weights: tuple[float, ...]

    @classmethod
    def fit(cls, pictures: Pictures, levels: int, added: float, weights: tuple[float, float] = (0.0, 0.0)) -> Self:
        """Counts the levels of pictures.

        Args:
            pictures: may be empty.
            levels: number of levels of a pixel.
            added: count added to each level at each place.
            weights: of the coarser model within each finer one; 0 leaves the finer ones out.
        """
        height, width = pictures.shape[1:]
        counts = np.zeros((height * width, levels))
        np.add.at(counts, (_places(pictures).ravel(), pictures.ravel()), 1)
        place = (counts + added) / (counts + added).sum(axis=1, keepdims=True)
        tables = []
        if min(weights) > 0:
            for contexts, size in zip(_contexts(pictures, levels), _sizes(height * width), strict=True):
                table = np.zeros((size, levels))
                np.add.at(table, (contexts.ravel(), pictures.ravel()), 1)
                tables.append(table)
        return cls(place.reshape(height, width, levels), tuple(tables), weights if tables else ())

    def bits(self, pictures: Pictures) -> Float64[np.ndarray, " n"]:
        """Returns the bits of each picture."""
        levels = self.place.shape[-1]
        chances = self.place.reshape(-1, levels)[_places(pictures).ravel()]
        for contexts, table, weight in zip(_contexts(pictures, levels), self.tables, self.weights):
            counts = table[contexts.ravel()]
            chances = (counts + weight * chances) / (counts.sum(axis=1, keepdims=True) + weight)
        chosen = np.take_along_axis(chances, pictures.reshape(-1, 1).astype(np.int64), axis=1)
        return -np.log2(chosen).reshape(len(pictures), -1).sum(axis=1)


@dataclasses.dataclass(frozen=True)
class Classes:
    """A histogram for each class, and the probability of each class."""

    histograms: tuple[Histogram, ...]
    prior: Float64[np.ndarray, " classes"]

    @classmethod
    def fit(
        cls,
        pictures: Pictures,
        labels: Int32[np.ndarray, " n"],
        levels: int,
        added: float,
        weights: tuple[float, float] = (0.0, 0.0),
        classes: int = 10,
    ) -> Self:
        """Counts each class by itself; see `Histogram.fit`."""
        histograms = [Histogram.fit(pictures[labels == one], levels, added, weights) for one in range(classes)]
        prior = np.bincount(labels, minlength=classes) + 0.5
        return cls(tuple(histograms), prior / prior.sum())

    def given(self, pictures: Pictures, labels: Int32[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Returns the bits of each picture whose class is known: -log2 p(x | c)."""
        return self._of_each(pictures)[labels, np.arange(len(labels))]

    def marginal(self, pictures: Pictures) -> Float64[np.ndarray, " n"]:
        """Returns the bits of each picture: -log2 of the sum of p(c) p(x | c) over all classes."""
        nats = -np.log(2) * self._of_each(pictures) + np.log(self.prior)[:, None]
        return np.asarray(-scipy.special.logsumexp(nats, axis=0) / np.log(2))

    def _of_each(self, pictures: Pictures) -> Float64[np.ndarray, "classes n"]:
        return np.stack([histogram.bits(pictures) for histogram in self.histograms])


def anchors(
    train: Pictures,
    labels: Int32[np.ndarray, " m"],
    heldout: Pictures,
    heldout_labels: Int32[np.ndarray, " n"],
    levels: int,
) -> Iterator[Anchor]:
    """Bits per pixel of held-out pictures by the models, which are fitted on the training pictures."""
    known, new = split(len(train))
    units = np.full(len(heldout), heldout[0].size)
    kinds = {
        "independent pixels": [(added, (0.0, 0.0)) for added in ADDED],
        "neighbouring pixels": list(itertools.product(ADDED, WEIGHTS)),
    }
    for kind, tried in kinds.items():
        added, weights = min(
            tried, key=lambda one: float(Histogram.fit(train[known], levels, *one).bits(train[new]).sum())
        )
        bits = Histogram.fit(train, levels, added, weights).bits(heldout)
        note = f"counts of levels; {_told(added, weights)}"
        yield of_signals(f"histogram of {kind}", "image", "bits per pixel", bits, units, note)
        added, weights = min(
            tried,
            key=lambda one: float(Classes.fit(train[known], labels[known], levels, *one).marginal(train[new]).sum()),
        )
        model = Classes.fit(train, labels, levels, added, weights)
        note = f"a mixture over the ten classes; {_told(added, weights)}"
        yield of_signals(f"class histogram of {kind}", "image", "bits per pixel", model.marginal(heldout), units, note)
        note = f"the class is known; {_told(added, weights)}"
        given = model.given(heldout, heldout_labels)
        yield of_signals(f"class histogram of {kind}", "image|text", "bits per pixel", given, units, note)


def split(count: int, seed: int = 0) -> tuple[Int64[np.ndarray, " known"], Int64[np.ndarray, " new"]]:
    """Indices of the training pictures that fit candidates, and of those that choose among them."""
    order = np.random.default_rng(seed).permutation(count)
    few = max(1, round(_VALIDATION_SHARE * count))
    return order[few:], order[:few]


def _told(added: float, weights: tuple[float, float]) -> str:
    told = f"{added:g} added to every count"
    if min(weights) > 0:
        told += f", coarser contexts worth {weights[0]:g} and {weights[1]:g} counts"
    return told + ", chosen within the training split"


def _places(pictures: Pictures) -> Int64[np.ndarray, "n hw"]:
    places = pictures.shape[1] * pictures.shape[2]
    return np.broadcast_to(np.arange(places), (len(pictures), places))


def _sizes(places: int) -> tuple[int, int]:
    greys = _STEPS + 2
    return greys**4, places * greys**2


def _contexts(pictures: Pictures, levels: int) -> tuple[Int64[np.ndarray, "n hw"], Int64[np.ndarray, "n hw"]]:
    """The context numbers of each pixel, by four neighbours before it, and by its place and two of these neighbours.

    A neighbour is blank, one of four greys, or outside the picture.
    """
    count, height, width = pictures.shape
    greys = np.full((count, height + 1, width + 2), _STEPS + 1, np.int64)
    greys[:, 1:, 1:-1] = -(-pictures.astype(np.int64) * _STEPS // (levels - 1))
    left, up = greys[:, 1:, :width], greys[:, :height, 1:-1]
    before, behind = greys[:, :height, :width], greys[:, :height, 2:]
    radix = _STEPS + 2
    near = ((left * radix + up) * radix + behind) * radix + before
    here = left * radix + up
    placed = _places(pictures) * radix**2 + here.reshape(count, height * width)
    return near.reshape(placed.shape), placed
