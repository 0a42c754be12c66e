"""Answers on what is held out: the rank of the right one among those of all classes, and the interval of a share."""

from __future__ import annotations

import numpy as np
from etils import epy
from jaxtyping import Int

from omnijax.config import Route
from omnijax.evaluate.likelihoods import TOTAL, Form, document_sums, forms_of
from omnijax.evaluate.loading import Trained
from omnijax.evaluate.split import EvaluatedSplit
from omnijax.modalities.base import Items
from omnijax.sample.generate import documents_of

with epy.lazy_imports():
    import scipy.stats

AT_ONCE = 32
"""Records whose answers are measured together."""


def interval(share: float, count: int) -> list[float]:
    """Bounds of a share of `count` with 95 % confidence (E. B. Wilson, J. Am. Stat. Assoc. 22 (1927))."""
    return list(scipy.stats.binomtest(round(share * count), count).proportion_ci(0.95, method="wilson"))


def ranks_of(
    trained: Trained, split: EvaluatedSplit, route: Route, places: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Ranks the answers of all classes by exact likelihood, and returns the rank of the right one; 1 is the best.

    The answer of a record's own class is its own signal. Empty where the route has more than two fields, where no task
    has these two, or where the source has no answers.
    """
    config, (source, *_, target) = trained.config, route.through
    model, params = trained.generator.model, trained.generator.params
    answers, labels = config.data.answers(target), split.labels
    forms = [form for form in forms_of(config) if form.fields[:2] == (source, target) and not any(form.shuffled)]
    if len(route.through) > 2 or not forms or not len(answers) or labels is None:
        return np.zeros(0, np.int64)
    form = Form(forms[0].fields[:2], forms[0].shuffled[:2], (False, True))
    classes = [number for number, answer in enumerate(answers) if answer is not None]
    written = split.modalities[target].encode([answers[number] for number in classes]).split()
    # Records of about the same length are measured together, so that little is padded.
    order = np.argsort([one.part.size for one in split.items(source, places)], kind="stable")
    ranks = np.zeros(len(places), np.int64)
    for chosen in np.split(order, range(AT_ONCE, len(order), AT_ONCE)):
        some = places[chosen]
        given, asked, counts = list[Items](), list[Items](), list[int]()
        for place, one, own in zip(some, split.items(source, some), split.items(target, some), strict=True):
            others = [items for number, items in zip(classes, written, strict=True) if number != labels[place]]
            given += [one] * (1 + len(others))
            asked += [own, *others]
            counts.append(1 + len(others))
        documents = documents_of(config, {source: given, target: asked})
        sums = document_sums(config, model, params, documents, form, TOTAL)
        bits = (sums["renormalised"].astype(np.float64) + sums["structure"])[:, 1]
        ranks[chosen] = [1 + int((one[1:] <= one[0]).sum()) for one in np.split(bits, np.cumsum(counts)[:-1])]
    return ranks
