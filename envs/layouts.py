"""Compute the leaf `ahead` from layouts: the parts that arenas and tasks share."""

import jax
import jax.numpy as jnp

BEHIND, FAR = -1.0, 5.0
"""Metres between which distances ahead are told; `FAR` also where there is nothing."""


def first_ahead(values: jax.Array, coming: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
    """Return the first of the things that are coming.

    Args:
        values: float32[P, ...], of things in order.
        coming: bool[P], which of them are to be told.
        number: N, of how many.

    Returns:
        float32[N, ...], values, and bool[N], whether there is such a thing.
    """
    order = jnp.argsort(~coming, stable=True)[:number]
    missing = number - len(order)
    pad = lambda x: jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
    return pad(values[order]), pad(coming[order])


def distance_ahead(distance: jax.Array, there: jax.Array) -> jax.Array:
    """Return distances along the way, float32[N, ...], flat and within [-1, 5] m; 5 where there is
    nothing (`there`, bool[N])."""
    there = there.reshape(there.shape + (1,) * (distance.ndim - 1))
    return jnp.where(there, jnp.clip(distance, BEHIND, FAR), FAR).reshape(-1)


def offset_ahead(offset: jax.Array, there: jax.Array) -> jax.Array:
    """Return offsets to the side, float32[N, ...], flat and within [-5, 5] m; 0 where there is
    nothing (`there`, bool[N])."""
    there = there.reshape(there.shape + (1,) * (offset.ndim - 1))
    return jnp.where(there, jnp.clip(offset, -FAR, FAR), 0.0).reshape(-1)
