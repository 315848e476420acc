"""Define dropout, for features or pixels."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from encoders.pixels import scale_pixels
from encoders.randomness import draw
from encoders.registry import register


@register("dropout", "Srivastava et al. 2014, JMLR 15:1929")
class Dropout(nn.Module):
    """Sets entries to 0 at random, new in every step, such as in `nature_cnn | dropout(rate=0.2)`.

    The others are divided by 1 - rate, so that the mean stays. A policy that acts deterministically
    drops nothing.

    Attributes:
        rate: the share that is dropped, 0 or more and below 1.
    """

    rate: float = 0.1

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return float[..., F], or an image, with entries dropped; bytes become float32 in 0 to 1.

        Args:
            x: features or pixels.
            key: PRNG keys [...]; None to drop nothing.

        Raises:
            ValueError: `rate` is out of range.
        """
        if not 0 <= self.rate < 1:
            raise ValueError(f"dropout: rate is {self.rate}; it has to be 0 or more and below 1")
        x = scale_pixels(x) if x.dtype == jnp.uint8 else x
        if key is None:
            return x
        kept = draw(lambda k, shape: jax.random.bernoulli(k, 1 - self.rate, shape), key, x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0)
