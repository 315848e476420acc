"""Normalize the float leaves of observations by their running mean and variance.

Images (uint8) are left as they are: their encoders scale them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from vnl_ppo.env import Observation
from vnl_ppo.observations import flatten


@struct.dataclass
class Moments:
    """Mean and variance of all observations so far, for each component of each float leaf.

    Attributes:
        count: float32[], number of observations.
        mean: float32 by leaf, in the leaf's shape.
        variance: float32 by leaf, in the leaf's shape.
    """

    count: jax.Array
    mean: dict[str, jax.Array]
    variance: dict[str, jax.Array]


def init_moments(observation_spec: Any) -> Moments:
    """Return count 0, mean 0 and variance 1 for each float leaf, by its name (see `flatten`)."""
    leaves = flatten(observation_spec)
    floats = {k: s for k, s in leaves.items() if jnp.issubdtype(s.dtype, jnp.floating)}
    return Moments(
        count=jnp.zeros(()),
        mean={k: jnp.zeros(s.shape) for k, s in floats.items()},
        variance={k: jnp.ones(s.shape) for k, s in floats.items()},
    )


def update_moments(moments: Moments, batch: Observation, axis_name: str | None = None) -> Moments:
    """Return the moments updated with a batch of observations.

    The moments of two sets are combined as in Chan, Golub and LeVeque 1979, equation 2.1, which
    avoids the rounding errors of sums of squares.

    Args:
        moments: the moments of the observations so far.
        batch: observations [B, ...] or [B, T, ...]; leaves without moments are ignored.
        axis_name: axis of devices that hold equal parts of the batch; None for one device.
    """
    mean_over_devices = (lambda x: jax.lax.pmean(x, axis_name)) if axis_name else (lambda x: x)
    devices = jax.lax.psum(1, axis_name) if axis_name else 1
    if not moments.mean:
        return moments
    flat = flatten(batch)
    leaves = {k: _in_rows(flat[k], m.ndim) for k, m in moments.mean.items()}
    added = devices * len(next(iter(leaves.values())))
    count = moments.count + added

    mean, variance = {}, {}
    for k, x in leaves.items():
        batch_mean = mean_over_devices(x.mean(0))
        batch_variance = mean_over_devices(jnp.square(x - batch_mean).mean(0))
        shift = batch_mean - moments.mean[k]
        share = added / count
        mean[k] = moments.mean[k] + share * shift
        variance[k] = (1 - share) * (
            moments.variance[k] + share * shift**2
        ) + share * batch_variance
    return Moments(count=count, mean=mean, variance=variance)


def normalize(moments: Moments, obs: Observation, limit: float = 10.0) -> dict[str, jax.Array]:
    """Scale each float leaf to mean 0 and variance 1 and clip it to +-`limit`.

    Returns:
        all leaves by name (see `flatten`); float leaves are float32, others are unchanged.
    """

    def scaled(k, x):
        deviation = jnp.sqrt(jnp.maximum(moments.variance[k], 1e-12))
        # A component that hardly varies must not be scaled up to unit variance.
        z = (x - moments.mean[k]) / jnp.maximum(deviation, 1e-6)
        return jnp.clip(z, -limit, limit)

    return {k: scaled(k, x) if k in moments.mean else x for k, x in flatten(obs).items()}


def _in_rows(x: jax.Array, leaf_axes: int) -> jax.Array:
    """Merge all leading axes: float32[B, *leaf]."""
    return x.reshape(-1, *x.shape[x.ndim - leaf_axes :]).astype(jnp.float32)
