"""Builds the model of a configuration."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from omnijax.config import Config
from omnijax.errors import ConfigError
from omnijax.model.groups import Grouping
from omnijax.model.items import ItemTransformer
from omnijax.model.transformer import Params, Transformer
from omnijax.vocab.vocabulary import Vocabulary


def model_of(config: Config, vocabulary: Vocabulary | None = None) -> Transformer:
    """The model of a configuration.

    Its `model.head` says whether the backbone steps once for each token or for each item. A `vocabulary` is used
    instead of its own. Raises a `ConfigError` if the shape is impossible, or if the head doesn't work with this
    vocabulary, batch or mesh.
    """
    vocabulary, head = vocabulary or config.vocabulary, config.model.head
    if head == "token":
        return Transformer(config.model, vocabulary.size)
    width, items, context = vocabulary.width, config.batch.sequence_items, config.mesh.context
    known, whole = "has to know where an item ends before the next one begins", "needs whole sequences to find items in"
    most = "steps once for each item, and has to know the most items of a sequence"
    for field, value, holds, rule, fix in (
        ("writing.width", width, width == "fixed", known, "use 'fixed'"),
        ("batch.sequence_items", items, items >= 1, most, "set it above 0"),
        ("mesh.context", context, context == 1, whole, "use 1; split by data, fsdp or tensor"),
    ):
        if not holds:
            raise ConfigError(field, value, f"model.head = {head!r} {rule}", fix)
    return ItemTransformer(config.model, vocabulary.size, grouping_of(vocabulary))


def grouping_of(vocabulary: Vocabulary) -> Grouping:
    """Which tokens make an item: the digits, the check digit and the position tokens of a fragment of fixed width."""
    v = vocabulary
    lengths = tuple(v.fragment_tokens(context) for context in (0, *v.contexts.of_control))
    return Grouping(v.position_start, v.control_start, lengths)


def with_natural_digits(config: Config, params: Params, key: PRNGKeyArray) -> Params:
    """Initial parameters in which digits with close natural digits (`model.natural_digits`) have similar embeddings.

    Each new embedding is a random quadratic function of the natural digits plus 0.3 times the old embedding.
    """
    radices, embed = np.array(config.model.natural_digits), params["ends"]["embed"]
    digits = np.stack(np.unravel_index(np.arange(radices.prod()), radices), axis=1) / (radices - 1) * 2 - 1
    powers = np.concatenate([np.ones((len(digits), 1)), digits, digits**2 - 0.4], axis=1, dtype=np.float32)
    drawn = jax.random.normal(key, (powers.shape[1], embed.shape[1])) * powers.shape[1] ** -0.5
    rows = slice(config.vocabulary.digit_start, config.vocabulary.digit_start + len(digits))
    return {**params, "ends": {**params["ends"], "embed": embed.at[rows].multiply(0.3).at[rows].add(powers @ drawn)}}
