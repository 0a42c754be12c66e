"""omnijax: one decoder-only transformer over every modality, by means of a two-level vocabulary.

The names below are the public API; each is imported when it is first used, so that `import omnijax` costs nothing.
Training and evaluating a run are `omnijax.train.train` and `omnijax.evaluate.evaluate`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnijax.config import Config
    from omnijax.errors import OmnijaxError
    from omnijax.evaluate import load
    from omnijax.experiment import load_experiment, override
    from omnijax.modalities import Modality
    from omnijax.model.transformer import Transformer
    from omnijax.report import write_report
    from omnijax.sample.generate import Generator
    from omnijax.sample.sampler import Sampler
    from omnijax.source import Source
    from omnijax.vocab import Documents, Grammar, Segment, Space, Vocabulary, assemble, decode, encode
    from omnijax.vocab.likelihood import item_bits, token_bits

__version__ = "0.1.0"

__all__ = ["Config", "Documents", "Generator", "Grammar", "Modality", "OmnijaxError", "Sampler", "Segment", "Source"]
__all__ += ["Space", "Transformer", "Vocabulary", "assemble", "decode", "encode", "item_bits", "load"]
__all__ += ["load_experiment", "override", "token_bits", "write_report"]

_HOME = {
    "Config": "config",
    "Generator": "sample.generate",
    "Modality": "modalities",
    "OmnijaxError": "errors",
    "Sampler": "sample.sampler",
    "Source": "source",
    "Transformer": "model.transformer",
    "load": "evaluate",
    "load_experiment": "experiment",
    "override": "experiment",
    "write_report": "report",
}
"""The module of each name that isn't in `omnijax.vocab`."""


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME.get(name, 'vocab')}"), name)
    globals()[name] = value
    return value
