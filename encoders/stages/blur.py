"""Define a stage that blurs, and the Gaussian filter that others use."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from encoders.pixels import as_before, scale_pixels
from encoders.registry import register

TRUNCATE = 3.0
"""Standard deviations at which the Gaussian is cut off."""


@register("blur")
class Blur(nn.Module):
    """Convolves each channel with a Gaussian, as an eye out of focus does.

    Attributes:
        sigma: the Gaussian's standard deviation, pixels.
    """

    sigma: float = 1.0

    def __call__(self, image: jax.Array) -> jax.Array:
        """Blur uint8 or float[..., H, W, C]; uint8 is rounded, floats are returned as float32."""
        return as_before(smooth(scale_pixels(image), self.sigma, "blur: sigma"), image)


def smooth(x: jax.Array, sigma: float, name: str) -> jax.Array:
    """Convolve float32[..., H, W, C] with a Gaussian along H and W; the borders are continued.

    Raises:
        ValueError: `sigma`, which the message calls `name`, is not above 0, or is above 100.
    """
    if not 0 < sigma <= 100:
        raise ValueError(f"{name} is {sigma}; it has to be above 0 and at most 100 pixels")
    rows, columns = (jnp.asarray(_matrix(n, sigma)) for n in x.shape[-3:-1])
    # A product with a banded matrix: on all devices faster than sums of shifted images.
    x = jnp.einsum("ij,...jwc->...iwc", rows, x, precision=lax.Precision.HIGHEST)
    return jnp.einsum("ij,...hjc->...hic", columns, x, precision=lax.Precision.HIGHEST)


def _matrix(n: int, sigma: float) -> np.ndarray:
    """Return float32[n, n], which convolves a vector of n pixels with a Gaussian."""
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((n, n))
    for row in range(n):
        np.add.at(matrix[row], np.clip(row + offsets, 0, n - 1), weights)
    return matrix.astype(np.float32)
