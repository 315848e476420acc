"""Compute parts of the observation leaf `ahead` that arenas and tasks share."""

import jax
import jax.numpy as jnp

BEHIND, FAR = -1.0, 5.0
"""Limits to which distances ahead are clipped, metres; `FAR` also stands for nothing ahead."""


def first_ahead(values: jax.Array, coming: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
    """Return the values of the first N objects ahead.

    Args:
        values: float32[P, ...], values of P objects in order.
        coming: bool[P], which of them lie ahead.
        number: N.

    Returns:
        float32[N, ...], the values, and bool[N], whether there is such an object.
    """
    order = jnp.argsort(~coming, stable=True)[:number]
    missing = number - len(order)
    pad = lambda x: jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
    return pad(values[order]), pad(coming[order])


def distance_ahead(distance: jax.Array, there: jax.Array) -> jax.Array:
    """Return distances float32[N, ...] along x as a vector, clipped to [-1, 5] m; 5 m for objects
    that do not exist (`there`, bool[N], is false)."""
    there = there.reshape(there.shape + (1,) * (distance.ndim - 1))
    return jnp.where(there, jnp.clip(distance, BEHIND, FAR), FAR).reshape(-1)


def offset_ahead(offset: jax.Array, there: jax.Array) -> jax.Array:
    """Return offsets float32[N, ...] along y as a vector, clipped to [-5, 5] m; 0 m for objects
    that do not exist (`there`, bool[N], is false)."""
    there = there.reshape(there.shape + (1,) * (offset.ndim - 1))
    return jnp.where(there, jnp.clip(offset, -FAR, FAR), 0.0).reshape(-1)
