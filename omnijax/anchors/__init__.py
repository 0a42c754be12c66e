"""Outside anchors: what codecs, counting models and classifiers reach on the same held-out data."""

from __future__ import annotations

from collections.abc import Callable

from omnijax.anchors.anchor import Anchor, read_anchors, write_anchors
from omnijax.config import DataConfig
from omnijax.errors import PlatformError

__all__ = ["Anchor", "anchors", "read_anchors", "write_anchors"]


def anchors(config: DataConfig, on_part: Callable[[str], None] = lambda part: None) -> list[Anchor]:
    """Measures every anchor on the held-out split of a data set that is there.

    Codecs and counting models give bits per pixel, sample or byte; classifiers give accuracies. Whatever is fitted is
    fitted on the training split, each picture once, and chosen within it; only a codec's settings are chosen by the
    result, which is in its favour.

    Args:
        config: of the data set.
        on_part: called with the name of each part before it is measured.

    Raises:
        DataError: the data set isn't there, or is damaged.
        PlatformError: a library is missing; or a codec doesn't give back what it was given.
    """
    try:
        from omnijax.anchors.measure import measure  # tables of anchors can be read without these libraries
    except ModuleNotFoundError as error:
        rule, fix = "anchors need the codecs themselves", "pip install 'omnijax[demo,ablations]'"
        raise PlatformError("import", error.name, rule, fix) from error
    return measure(config, on_part)
