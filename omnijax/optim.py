"""AdamW with linear warm-up, cosine decay and clipping, from optax."""

from __future__ import annotations

from typing import Any

import jax
import optax

from omnijax.config import OptimConfig
from omnijax.sharding import path_of


def schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Learning rate by step: linear to `learning_rate` in `warmup_steps`, then a cosine to `final_fraction` of it."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(steps, config.warmup_steps + 1),
        end_value=config.learning_rate * config.final_fraction,
    )


def decays(params: Any) -> Any:
    """True for the parameters that weight decay applies to: matrices between activations, not norms or embeddings."""
    return jax.tree_util.tree_map_with_path(lambda keys, _: not path_of(keys).endswith(("scale", "embed")), params)


def optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """The whole chain; gradients are clipped before the moments see them."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule(config, steps),
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=decays,
        ),
    )
