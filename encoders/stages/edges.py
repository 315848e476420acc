"""Define a stage that finds edges."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from encoders.pixels import length, scale_pixels
from encoders.registry import register

STRONGEST = math.sqrt(20)
"""The largest magnitude over all images between 0 and 1: of an edge at an angle of atan(1/2)."""


@register("edges", "Sobel and Feldman 1968")
class Edges(nn.Module):
    """Computes the magnitude of the gradient of each channel by Sobel's operator.

    With Sobel's derivatives gx = [1 2 1]' * [-1 0 1] and gy, its transpose, the output is
    sqrt(gx^2 + gy^2) / sqrt(20). Beyond its borders the image goes on as at them. I. Sobel and
    G. Feldman, "A 3x3 isotropic gradient operator for image processing", talk at the Stanford
    Artificial Intelligence Project, 1968.
    """

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return the strength of edges, uint8 or float[..., H, W, C] -> float32[..., H, W, C]."""
        pixels = scale_pixels(image)
        around = [(0, 0)] * (pixels.ndim - 3)
        x = jnp.pad(pixels, (*around, (1, 1), (1, 1), (0, 0)), mode="edge")
        high = x[..., :-2, :, :] + 2 * x[..., 1:-1, :, :] + x[..., 2:, :, :]
        wide = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
        along_x = high[..., 2:, :] - high[..., :-2, :]
        along_y = wide[..., 2:, :, :] - wide[..., :-2, :, :]
        return length(along_x, along_y) / STRONGEST
