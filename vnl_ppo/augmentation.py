"""Images moved a little at random, so that a policy learned from few of them sees more."""

from typing import Any

import jax
import jax.numpy as jnp


def random_shift(key: jax.Array, obs: Any, batch_axes: int, limit: int) -> Any:
    """Shift every image by up to `limit` pixels along both axes, repeating its edge.

    Source: Yarats et al. 2021, arXiv:2004.13649 (DrQ), section 4. The shift is drawn for each
    entry of the first axis and each leaf; what lies on further batch axes, the steps of an unroll,
    moves together.

    Args:
        key: a PRNG key.
        obs: a pytree; its uint8 leaves with three axes behind the batch axes, [B, ..., H, W, C],
            are images, the others stay as they are.
        batch_axes: how many leading axes are not the image's.
        limit: the largest shift, pixels.

    Returns:
        a pytree of the same shapes and dtypes.
    """
    leaves, structure = jax.tree.flatten(obs)
    keys = jax.random.split(key, len(leaves))
    is_image = lambda x: x.dtype == jnp.uint8 and x.ndim == batch_axes + 3
    moved = [_shift(k, x, limit) if is_image(x) else x for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, moved)


def _shift(key: jax.Array, images: jax.Array, limit: int) -> jax.Array:
    height, width = images.shape[-3:-1]

    def one(image: jax.Array, by: jax.Array) -> jax.Array:
        rows = jnp.clip(jnp.arange(height) + by[0], 0, height - 1)
        columns = jnp.clip(jnp.arange(width) + by[1], 0, width - 1)
        return jnp.take(jnp.take(image, rows, axis=-3), columns, axis=-2)

    return jax.vmap(one)(images, jax.random.randint(key, (len(images), 2), -limit, limit + 1))
