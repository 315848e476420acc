"""Shift images randomly, as data augmentation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vnl_ppo.randomness import draw, fold_in


def random_shift(key: jax.Array, obs: Any, batch_axes: int, limit: int) -> Any:
    """Shift every image by up to `limit` pixels along both axes, filled by repeating its edge.

    Source: Yarats et al. 2021, arXiv:2004.13649 (DrQ), section 4. One shift is drawn for each
    entry of the first axis and each leaf; further batch axes (the steps of an unroll) share it.

    Args:
        key: one PRNG key or several (see `vnl_ppo.randomness.draw`).
        obs: a pytree. Leaves uint8[B, ..., H, W, C] with three axes after the batch axes are
            images; other leaves are returned unchanged.
        batch_axes: number of leading batch axes.
        limit: the largest shift, pixels.

    Returns:
        a pytree of the same shapes and dtypes.
    """
    leaves, structure = jax.tree.flatten(obs)
    is_image = lambda x: x.dtype == jnp.uint8 and x.ndim == batch_axes + 3
    moved = [_shift(fold_in(key, i), x, limit) if is_image(x) else x for i, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, moved)


def _shift(key: jax.Array, images: jax.Array, limit: int) -> jax.Array:
    height, width = images.shape[-3:-1]

    def one(image: jax.Array, by: jax.Array) -> jax.Array:
        rows = jnp.clip(jnp.arange(height) + by[0], 0, height - 1)
        columns = jnp.clip(jnp.arange(width) + by[1], 0, width - 1)
        return jnp.take(jnp.take(image, rows, axis=-3), columns, axis=-2)

    shift = partial(jax.random.randint, minval=-limit, maxval=limit + 1)
    return jax.vmap(one)(images, draw(shift, key, (len(images), 2)))
