"""Define a stage that turns an image into a vector."""

import math

import flax.linen as nn
import jax

from encoders.pixels import scale_pixels
from encoders.registry import register


@register("flatten")
class Flatten(nn.Module):
    """Lists all pixels, for what takes vectors, such as `mlp` after another stage."""

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return uint8 or float[..., H, W, C] as float32[..., H * W * C] in 0 to 1."""
        pixels = scale_pixels(image)
        return pixels.reshape(*image.shape[:-3], math.prod(image.shape[-3:]))
