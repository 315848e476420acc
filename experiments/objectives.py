"""Define objectives that teach an encoder from images, without rewards."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from encoders.pixels import scale_pixels
from encoders.randomness import takes_key
from experiments.frame_files import Batch
from vnl_ppo.augmentation import augment
from vnl_ppo.config import PPOConfig

LARGEST = 32
"""Largest height and width of what decoders paint; larger images are averaged down to it."""
TEMPERATURE = 0.1
VIEWS = PPOConfig(image_brightness=0.2, image_contrast=0.2, image_hue=0.05)
"""Strengths of the random changes that make the two views of an image; a shift and a cutout, which
depend on its size, come on top."""

Output = tuple[jax.Array, dict[str, jax.Array], jax.Array | None]
"""The loss; metrics by name, of which `r2` may have an entry for each target; pairs of images
float32[B, 2, h, w, C] in 0 to 1 to look at, or None for none."""


class Objective(nn.Module):
    """A task that teaches an encoder; it maps a `Batch` and a key to an `Output`."""

    encoder: nn.Module
    in_colour: bool = True
    """Whether the channels of images are red, green and blue, whose hue may be turned."""

    def features(self, images: jax.Array, key: jax.Array) -> jax.Array:
        """Return the encoder's features, float32[B, F], of images uint8[B, H, W, C]."""
        if takes_key(self.encoder):
            return self.encoder(images, jax.random.split(key, len(images)))
        return self.encoder(images)


class Autoencoder(Objective):
    """Paint the image from its features; the loss is the mean squared error.

    Source: Hinton and Salakhutdinov 2006, doi 10.1126/science.1127647.
    """

    @nn.compact
    def __call__(self, batch: Batch, key: jax.Array) -> Output:
        """See `Objective`."""
        return painted(self.features(batch.images, key), batch.images)


class Predict(Objective):
    """Paint the next image from the features of this one and the action; mean squared error.

    Source: Oh et al. 2015, arXiv:1507.08750, with one step and without their convolutions.
    """

    @nn.compact
    def __call__(self, batch: Batch, key: jax.Array) -> Output:
        """See `Objective`."""
        features = self.features(batch.images, key)
        return painted(jnp.concatenate([features, batch.actions], -1), batch.after)


class Contrastive(Objective):
    """Tell which of the batch's images is another view of this one.

    Two random views of every image (`vnl_ppo.augmentation`) are encoded and projected to vectors of
    length 1, u_i and v_i. With the temperature t = 0.1 the loss, InfoNCE, is the mean of

        -log(exp(u_i v_i / t) / sum_j exp(u_i v_j / t))

    and of the same with u and v exchanged. Source: van den Oord et al. 2018, arXiv:1807.03748; the
    views and the projection are those of Chen et al. 2020, arXiv:2002.05709 (SimCLR).
    """

    @nn.compact
    def __call__(self, batch: Batch, key: jax.Array) -> Output:
        """See `Objective`."""
        side = min(batch.images.shape[1:3])
        shift, cutout = max(side // 16, 1), max(side // 4, 1)
        config = dataclasses.replace(VIEWS, image_shift=shift, image_cutout=cutout)
        config = config if self.in_colour else dataclasses.replace(config, image_hue=0.0)
        keys = jax.random.split(key, 4)
        views = [augment(k, batch.images, 1, config) for k in keys[:2]]
        project = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(32)], name="head")
        u, v = (project(self.features(x, k)) for x, k in zip(views, keys[2:], strict=True))
        loss, accuracy = info_nce(u, v, TEMPERATURE)
        pairs = jnp.stack([small(x) for x in views], 1)
        return loss, {"accuracy": accuracy}, pairs


class Supervised(Objective):
    """Tell leaves of the observation that the image comes with, such as `ahead`.

    The loss is the mean squared error of targets of standard deviation 1. R^2 on images that are
    held out says how much an encoder of this kind can tell of each entry at all.
    """

    @nn.compact
    def __call__(self, batch: Batch, key: jax.Array) -> Output:
        """See `Objective`."""
        hidden = nn.swish(nn.Dense(256, name="head_0")(self.features(batch.images, key)))
        told = nn.Dense(batch.targets.shape[-1], name="head_1")(hidden)
        errors = jnp.square(told - batch.targets).mean(0)
        variances = jnp.square(batch.targets - batch.targets.mean(0)).mean(0)
        # An entry that is the same in the whole batch cannot be told.
        r2 = jnp.where(variances > 1e-6, 1 - errors / variances, jnp.nan)
        return errors.mean(), {"r2": r2}, None


def painted(x: jax.Array, images: jax.Array) -> Output:
    """Paint images from vectors; call it in a module's compact method.

    Args:
        x: float32[B, F].
        images: uint8[B, H, W, C].
    """
    target = small(images)
    hidden = nn.swish(nn.Dense(256, name="head_0")(x))
    y = nn.Dense(math.prod(target.shape[1:]), name="head_1")(hidden).reshape(target.shape)
    error = jnp.square(y - target).mean()
    variance = jnp.square(target - target.mean(0)).mean()
    pairs = jnp.stack([target, jnp.clip(y, 0, 1)], 1)
    return error, {"r2": 1 - error / jnp.maximum(variance, 1e-6)}, pairs


def small(images: jax.Array) -> jax.Array:
    """Return uint8[B, H, W, C] as float32 in 0 to 1 of at most 32x32 pixels."""
    number, height, width, channels = images.shape
    size = (min(height, LARGEST), min(width, LARGEST))
    return jax.image.resize(scale_pixels(images), (number, *size, channels), "linear")


def info_nce(u: jax.Array, v: jax.Array, temperature: float) -> tuple[jax.Array, jax.Array]:
    """Return InfoNCE of pairs of vectors, float32[B, F] each, and the share told rightly."""
    u, v = (x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6) for x in (u, v))
    likeness = u @ v.T / temperature
    right = jnp.arange(len(u))
    told = optax.softmax_cross_entropy_with_integer_labels
    loss = (told(likeness, right) + told(likeness.T, right)).mean() / 2
    return loss, (likeness.argmax(-1) == right).mean()


OBJECTIVES: dict[str, Any] = {
    "autoencoder": Autoencoder,
    "predict": Predict,
    "contrastive": Contrastive,
    "supervised": Supervised,
}
