"""Define a multilayer perceptron encoder for vectors and, as a baseline, for flattened images."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from encoders.activations import Activation, activation
from encoders.pixels import scale_pixels
from encoders.registry import register


@register("mlp")
class MLP(nn.Module):
    """Dense layers, each followed by the activation.

    Kernels start orthogonal with gain sqrt(2), biases zero, as in `nature_cnn`.

    Attributes:
        hidden_layer_sizes: width of each layer; the last one is the width of the output.
        activation: applied after every layer, the last one too; a function, or a name of
            `encoders.activations`.
    """

    hidden_layer_sizes: tuple[int, ...] = (64, 64)
    activation: str | Activation = "relu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Encode vectors or images.

        Args:
            x: vectors float[..., D] or images uint8[..., H, W, C], with any number of leading batch
                axes. Images are scaled to 0 to 1 and their last three axes flattened.

        Returns:
            float32[..., hidden_layer_sizes[-1]].

        Raises:
            ValueError: there are no layers, a width is below 1, or `x` is neither of the above.
        """
        if not self.hidden_layer_sizes or min(self.hidden_layer_sizes) < 1:
            raise ValueError(
                f"mlp: hidden_layer_sizes must name at least one width, each at least 1; got "
                f"{tuple(self.hidden_layer_sizes)}"
            )
        activate = activation(self.activation)
        x = _as_vectors(x)
        for width in self.hidden_layer_sizes:
            layer = nn.Dense(width, kernel_init=nn.initializers.orthogonal(math.sqrt(2)))
            x = activate(layer(x))
        return x


def _as_vectors(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.uint8:
        pixels = scale_pixels(x)
        return pixels.reshape(*x.shape[:-3], math.prod(x.shape[-3:]))
    if x.ndim < 1 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"mlp: expected a float vector [..., D] or a uint8 image [..., H, W, C], got "
            f"{x.dtype}{list(x.shape)}"
        )
    return x.astype(jnp.float32)
