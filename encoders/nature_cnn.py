"""Define the convolutional network of Mnih et al. (2015), the usual image encoder of deep RL.

Mnih et al., "Human-level control through deep reinforcement learning", Nature 518 (2015),
doi 10.1038/nature14236, Methods, "Model architecture". Initialisation is that of PPO
implementations: orthogonal kernels with gain sqrt(2), zero biases (Huang et al., "The 37
Implementation Details of Proximal Policy Optimization", ICLR blog track 2022, detail 2).
"""

import math
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from encoders.activations import Activation, activation
from encoders.batches import images_of, in_batches
from encoders.blocked_convolution import convolve
from encoders.layers import pad
from encoders.pixels import white
from encoders.registry import register

# (filters, side of the square kernel, stride), from the image up.
LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
PIXELS = 64 * 64 * 64
"""Maximum number of pixels at a time on a CPU, of which there are some 7 MB of products."""


@register("nature_cnn", "Mnih et al. 2015, doi 10.1038/nature14236")
class NatureCNN(nn.Module):
    """Three convolutions and a dense layer, each with an activation.

    Attributes:
        features: width of the output; 16 is about as wide as an ant's proprioception (27).
        padding: "VALID" as published; or "SAME", with zeros around the image and each layer.
        activation: after each layer; a function, or a name of `encoders.activations`.
    """

    features: int = 16
    padding: Literal["VALID", "SAME"] = "VALID"
    activation: str | Activation = "relu"

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Encode images.

        Args:
            image: uint8[..., H, W, C] in 0 to 255, or float[..., H, W, C] that is already scaled. H
                and W are at least 36, 1 with padding "SAME". There may be any number of leading
                batch axes.

        Returns:
            float32[..., features]; with a ReLU not negative.

        Raises:
            ValueError: the image is too small, has fewer than three axes or another dtype,
                `features` is below 1, or `padding` or `activation` is unknown.
        """
        if self.features < 1:
            raise ValueError(f"nature_cnn: features must be at least 1, got {self.features}")
        if self.padding not in ("VALID", "SAME"):
            raise ValueError(f"nature_cnn: padding is {self.padding!r}; it has to be VALID or SAME")
        activate = _relu if self.activation in ("relu", nn.relu) else activation(self.activation)
        brightest = white(image)
        height, width = image.shape[-3:-1]
        _check_size(height, width, self.padding)
        seen = image.reshape(math.prod(image.shape[:-3]), *image.shape[-3:])
        if self.padding == "VALID":
            # Without pixels at the far edges that no position of the last convolution looks at.
            rows, columns = (field_size(output_size(n)) for n in (height, width))
            seen = seen[:, :rows, :columns]
        layers = partial(_layers, white=brightest, activate=activate)
        features = in_batches(layers, self, seen, images_of(PIXELS, image))
        return features.reshape(*image.shape[:-3], self.features)


def _layers(network: NatureCNN, x: jax.Array, white: int, activate: Activation) -> jax.Array:
    init = nn.initializers.orthogonal(math.sqrt(2))
    for filters, size, stride in LAYERS:
        layer = nn.Conv(
            filters,
            (size, size),
            (stride, stride),
            "VALID",
            kernel_init=init,
            # Bytes stay bytes until they are multiplied.
            promote_dtype=lambda *arrays, **_: arrays,
            conv_general_dilated=partial(_convolve_scaled, white=white),
        )
        x = pad(x, size, stride) if network.padding == "SAME" else x
        x, white = activate(layer(x)), 1
    x = x.reshape(len(x), math.prod(x.shape[1:]))
    return activate(nn.Dense(network.features, kernel_init=init)(x))


def _convolve_scaled(x, kernel, *arguments, white, **options):
    return convolve(x, kernel / white, *arguments, **options)


@jax.custom_vjp
def _relu(x: jax.Array) -> jax.Array:
    """Apply `nn.relu`, with the gradient computed from the output, which is kept anyway."""
    return jnp.maximum(x, 0)


_relu.defvjp(lambda x: (_relu(x),) * 2, lambda y, dy: (jnp.where(y > 0, dy, 0),))


def output_size(pixels: int) -> int:
    """Return the output positions along one axis; below 1 if the image is too small."""
    for _, size, stride in LAYERS:
        pixels = (pixels - size) // stride + 1
    return pixels


def field_size(positions: int) -> int:
    """Return the pixels along one axis that `positions` positions of the last layer depend on."""
    for _, size, stride in reversed(LAYERS):
        positions = (positions - 1) * stride + size
    return positions


def _check_size(height: int, width: int, padding: str) -> None:
    if padding == "SAME":
        if min(height, width) < 1:
            raise ValueError(f"nature_cnn: an image of {height}x{width} pixels is empty")
    elif min(output_size(height), output_size(width)) < 1:
        raise ValueError(
            f"nature_cnn: an image of {height}x{width} pixels is smaller than the receptive field "
            f"of its convolutions; the smallest is {field_size(1)}x{field_size(1)}; render larger "
            f"images, say padding=SAME, or choose another encoder"
        )
