"""AdamW with linear warm-up, cosine decay and clipping, from optax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from omnijax.config import OptimConfig
from omnijax.step.sharding import path_of


def schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Learning rate by step: it grows linearly for `warmup_steps`, then falls as a cosine to `final_fraction` of it."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(steps, config.warmup_steps + 1),
        end_value=config.learning_rate * config.final_fraction,
    )


def decays(params: Any) -> Any:
    """True for the parameters with weight decay: all but norms and embeddings."""
    return jax.tree_util.tree_map_with_path(lambda keys, _: not path_of(keys).endswith(("scale", "embed")), params)


def optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """The whole optimizer: gradients are clipped before they enter Adam's moments, which are as `config.moments` says.

    A factored second moment decays as in Adafactor, not by `beta2`.
    """
    first = jnp.float32 if config.moments == "float32" else jnp.bfloat16
    adam = optax.scale_by_adam(config.beta1, config.beta2, mu_dtype=first)
    if config.moments == "factored":
        momentum = optax.ema(config.beta1, debias=True, accumulator_dtype=first)
        adam = optax.chain(optax.scale_by_factored_rms(), momentum)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        adam,
        optax.add_decayed_weights(config.weight_decay, decays),
        optax.scale_by_learning_rate(schedule(config, steps)),
    )
