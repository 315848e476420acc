"""Define a stage that adds noise."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from encoders.pixels import scale_pixels
from encoders.randomness import draw
from encoders.registry import register


@register("noise")
class Noise(nn.Module):
    """Adds independent Gaussian noise to every pixel, new in every step.

    A policy that acts deterministically sees no noise.

    Attributes:
        std: the noise's standard deviation, for pixels in 0 to 1.
    """

    std: float = 0.1

    def __call__(self, image: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return uint8 or float[..., H, W, C] with noise, clipped to 0 to 1, as float32.

        Args:
            image: the pixels.
            key: PRNG keys [...]; None for no noise.

        Raises:
            ValueError: `std` is not from 0 to 10.
        """
        if not 0 <= self.std <= 10:
            raise ValueError(f"noise: std is {self.std}; it has to be from 0 to 10")
        pixels = scale_pixels(image)
        if key is None:
            return pixels
        noise = self.std * draw(jax.random.normal, key, pixels.shape)
        return jnp.clip(pixels + noise, 0, 1)
