"""Change images randomly, as data augmentation: shift, colours, cutout.

Every change is drawn for each entry of the first axis and each leaf; further batch axes (the steps
of an unroll) share it. Keys are one PRNG key or several (see `vnl_ppo.randomness.draw`). Leaves
uint8[B, ..., H, W, C] with three axes after the batch axes are images; others stay as they are.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vnl_ppo.config import PPOConfig
from vnl_ppo.randomness import draw, fold_in

# The YIQ colours of NTSC: brightness, and two axes whose angle is the hue.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_GRAY = 128


def augment(key: jax.Array, obs: Any, batch_axes: int, config: PPOConfig) -> Any:
    """Change images by all augmentations that the settings ask for, in the order of this file.

    Args:
        key: one PRNG key or several.
        obs: a pytree.
        batch_axes: number of leading batch axes.
        config: gives `image_shift`, `image_brightness`, `image_contrast`, `image_hue` and
            `image_cutout`.

    Returns:
        a pytree of the same shapes and dtypes.
    """
    if config.image_shift:
        obs = random_shift(fold_in(key, 1), obs, batch_axes, config.image_shift)
    colours = config.image_brightness, config.image_contrast, config.image_hue
    if any(colours):
        obs = random_colours(fold_in(key, 2), obs, batch_axes, *colours)
    if config.image_cutout:
        obs = random_cutout(fold_in(key, 3), obs, batch_axes, config.image_cutout)
    return obs


def random_shift(key: jax.Array, obs: Any, batch_axes: int, limit: int) -> Any:
    """Shift every image by up to `limit` pixels along both axes, filled by repeating its edge.

    Source: Yarats et al. 2021, arXiv:2004.13649 (DrQ), section 4.

    Args:
        key, obs, batch_axes: as for `augment`.
        limit: the largest shift, pixels.

    Returns:
        a pytree of the same shapes and dtypes.
    """
    return _on_images(partial(_shift, limit=limit), key, obs, batch_axes)


def random_colours(
    key: jax.Array, obs: Any, batch_axes: int, brightness: float, contrast: float, hue: float
) -> Any:
    """Change the brightness, the contrast and the hues of every image.

    With b, c and h drawn uniformly from -1 to 1, an image x in 0 to 1 of mean m becomes

        turned by h * hue of a circle, m + (1 + c * contrast) (x - m) + b * brightness,

    clipped to 0 to 1. Source: Laskin et al. 2020, arXiv:2004.14990 (RAD), colour jitter; the hue is
    the angle in the YIQ colours of NTSC, whose turn keeps gray as it is. Images whose number of
    channels is a multiple of 3 are colours; of others the hue stays.

    Args:
        key, obs, batch_axes: as for `augment`.
        brightness: the largest change, as a share of white.
        contrast: the largest change of the factor.
        hue: the largest turn, as a share of the circle.

    Returns:
        a pytree of the same shapes and dtypes.
    """
    limits = np.array([brightness, contrast, hue], np.float32)
    return _on_images(partial(_recolour, limits=limits), key, obs, batch_axes)


def random_cutout(key: jax.Array, obs: Any, batch_axes: int, side: int) -> Any:
    """Cover a square of every image, around a pixel that is drawn, with gray.

    Source: DeVries and Taylor 2017, arXiv:1708.04552; a part of it may lie outside of the image.

    Args:
        key, obs, batch_axes: as for `augment`.
        side: of the square, pixels.

    Returns:
        a pytree of the same shapes and dtypes.
    """
    return _on_images(partial(_cut_out, side=side), key, obs, batch_axes)


def _on_images(change: Callable[..., jax.Array], key: jax.Array, obs: Any, batch_axes: int) -> Any:
    """Apply (key, images) -> images to the images among the leaves, each with a key of its own."""
    leaves, structure = jax.tree.flatten(obs)
    is_image = lambda x: x.dtype == jnp.uint8 and x.ndim == batch_axes + 3
    changed = [change(fold_in(key, i), x) if is_image(x) else x for i, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, changed)


def _recolour(key: jax.Array, images: jax.Array, limits: np.ndarray) -> jax.Array:
    def one(image: jax.Array, by: jax.Array) -> jax.Array:
        brightness, contrast, hue = by * limits
        x = image.astype(jnp.float32) / 255
        if image.shape[-1] % 3 == 0:
            x = _turned(x.reshape(*x.shape[:-1], -1, 3), 2 * math.pi * hue).reshape(x.shape)
        mean = x.mean((-3, -2, -1), keepdims=True)
        x = mean + (1 + contrast) * (x - mean) + brightness
        return jnp.round(255 * jnp.clip(x, 0, 1)).astype(jnp.uint8)

    drawn = draw(partial(jax.random.uniform, minval=-1.0), key, (len(images), 3))
    return jax.vmap(one)(images, drawn)


def _turned(x: jax.Array, angle: jax.Array) -> jax.Array:
    """Turn the hues of red, green and blue, float32[..., 3], by an angle in radians."""
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    turn = jnp.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    matrix = np.linalg.inv(_YIQ) @ turn @ _YIQ
    return jnp.einsum("ij,...j->...i", matrix.astype(jnp.float32), x, precision="highest")


def _cut_out(key: jax.Array, images: jax.Array, side: int) -> jax.Array:
    height, width = images.shape[-3:-1]

    def one(image: jax.Array, where: jax.Array) -> jax.Array:
        inside = [
            (jnp.arange(n) >= first) & (jnp.arange(n) < first + side)
            for n, first in zip((height, width), where - side // 2, strict=True)
        ]
        return jnp.where(inside[0][:, None, None] & inside[1][:, None], _GRAY, image)

    size = jnp.array([height, width])
    middle = partial(jax.random.randint, minval=0, maxval=size)
    return jax.vmap(one)(images, draw(middle, key, (len(images), 2))).astype(jnp.uint8)


def _shift(key: jax.Array, images: jax.Array, limit: int) -> jax.Array:
    height, width = images.shape[-3:-1]

    def one(image: jax.Array, by: jax.Array) -> jax.Array:
        rows = jnp.clip(jnp.arange(height) + by[0], 0, height - 1)
        columns = jnp.clip(jnp.arange(width) + by[1], 0, width - 1)
        return jnp.take(jnp.take(image, rows, axis=-3), columns, axis=-2)

    shift = partial(jax.random.randint, minval=-limit, maxval=limit + 1)
    return jax.vmap(one)(images, draw(shift, key, (len(images), 2)))
