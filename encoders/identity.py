"""Define an encoder that passes vectors on unchanged."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from encoders.registry import register


@register("identity")
class Identity(nn.Module):
    """Returns its input as float32."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `x` as float32.

        Args:
            x: float[..., D], with any number of leading batch axes.

        Returns:
            float32[..., D], the same numbers.

        Raises:
            ValueError: `x` is an image (uint8), not floating point, or has no axis.
        """
        if x.dtype == jnp.uint8:
            raise ValueError(
                f"identity: got an image, uint8{list(x.shape)}; raw pixels are no features: choose "
                f"'nature_cnn' or 'mlp', or write an encoder and name it 'package.module:Class'"
            )
        if x.ndim < 1 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"identity: expected a float vector [..., D], got {x.dtype}{list(x.shape)}; "
                f"convert it in the environment"
            )
        return x.astype(jnp.float32)
