"""Compute statistics of the encoders' layers: mean, standard deviation, share of dead units."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from vnl_ppo.env import Observation
from vnl_ppo.policy import Weights, apply_and_capture
from vnl_ppo.recurrence import initial_memory

_ENCODERS = ("encoders_", "value_encoders_")
"""Prefixes of the encoders' names in `vnl_ppo.networks.ActorCritic`; the leaf's name follows."""


def encoder_activations(
    network: nn.Module, weights: Weights, obs: Observation, counts: jax.Array
) -> dict[str, jax.Array]:
    """Compute statistics of the output of every layer of every encoder.

    A layer is any Flax module inside an encoder, or the encoder itself. A unit is one entry of a
    layer's last axis, over all positions. A unit is dead if it is never above 0 in this batch: a
    ReLU then outputs 0 and passes no gradient (Lu et al. 2019, arXiv:1903.06733).

    Args:
        network: such as `vnl_ppo.networks.ActorCritic`.
        weights: the network's parameters and the moments of observations.
        obs: leaves [B, ...].
        counts: bool[B], true for the observations to include.

    Returns:
        float32[] by `LEAF/LAYER/mean`, `.../std` and `.../dead` (a share of 0 to 1), empty without
        encoders. LAYER is `output` for the encoder itself. LEAF begins with `value_` for encoders
        that only the value function uses.
    """
    outputs = apply_and_capture(network, weights, obs, initial_memory(network, len(counts)))[1]
    found: dict[str, jax.Array] = {}
    for path, x in outputs.items():
        encoder, *layers = path.split("/")
        if not encoder.startswith(_ENCODERS) or x.shape[:1] != counts.shape:
            continue
        if not jnp.issubdtype(x.dtype, jnp.floating):
            continue
        name = "/".join([encoder.replace("encoders_", "", 1), ".".join(layers) or "output"])
        found |= {f"{name}/{k}": v for k, v in _statistics(x, counts).items()}
    return found


def _statistics(x: jax.Array, counts: jax.Array) -> dict[str, jax.Array]:
    """Return the statistics of float[B, ..., units] over the rows where `counts` is true."""
    rows = x.astype(jnp.float32).reshape(len(x), -1, x.shape[-1] if x.ndim > 1 else 1)
    where = counts[:, None, None]
    size = jnp.maximum(counts.sum(), 1) * math.prod(rows.shape[1:])
    mean = jnp.where(where, rows, 0).sum() / size
    variance = jnp.where(where, jnp.square(rows - mean), 0).sum() / size
    highest = jnp.where(where, rows, -jnp.inf).max((0, 1))
    return {"mean": mean, "std": jnp.sqrt(variance), "dead": jnp.mean(highest <= 0)}
