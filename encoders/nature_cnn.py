"""The convolutional network of Mnih et al. (2015), the usual eye of a deep RL agent.

Mnih et al., "Human-level control through deep reinforcement learning", Nature 518 (2015),
doi 10.1038/nature14236, Methods, "Model architecture". Initialisation is that of PPO
implementations: orthogonal kernels with gain sqrt(2), zero biases (Huang et al., "The 37
Implementation Details of Proximal Policy Optimization", ICLR blog track 2022, detail 2).
"""

import math

import flax.linen as nn
import jax

from encoders.blocked_convolution import convolve
from encoders.pixels import scale_pixels
from encoders.registry import register

# (filters, side of the square kernel, stride), from the image up.
LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


@register("nature_cnn")
class NatureCNN(nn.Module):
    """Three convolutions and a dense layer, each with a ReLU.

    Attributes:
        features: width of the output; 16 leaves vision and proprioception of an ant about level.
    """

    features: int = 16

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Encodes images.

        Args:
            image: uint8[..., H, W, C] in 0 to 255, or float[..., H, W, C] scaled already.
                H and W at least 36. Any leading batch axes, also none.

        Returns:
            float32[..., features], not negative.

        Raises:
            ValueError: if the image is too small, has fewer than three axes or another dtype, or
                `features` is below 1.
        """
        if self.features < 1:
            raise ValueError(f"nature_cnn: features must be at least 1, got {self.features}")
        init = nn.initializers.orthogonal(math.sqrt(2))
        x = scale_pixels(image)
        _check_size(*x.shape[-3:-1])
        for filters, size, stride in LAYERS:
            layer = nn.Conv(
                filters,
                (size, size),
                (stride, stride),
                "VALID",
                kernel_init=init,
                conv_general_dilated=convolve,
            )
            x = nn.relu(layer(x))
        x = x.reshape(*x.shape[:-3], math.prod(x.shape[-3:]))
        return nn.relu(nn.Dense(self.features, kernel_init=init)(x))


def output_size(pixels: int) -> int:
    """Positions left along one axis after the convolutions; below 1 if the image is too small."""
    for _, size, stride in LAYERS:
        pixels = (pixels - size) // stride + 1
    return pixels


def field_size(positions: int) -> int:
    """Pixels along one axis that so many positions of the last convolution look at."""
    for _, size, stride in reversed(LAYERS):
        positions = (positions - 1) * stride + size
    return positions


def _check_size(height: int, width: int) -> None:
    if min(output_size(height), output_size(width)) < 1:
        raise ValueError(
            f"nature_cnn: an image of {height}x{width} pixels is smaller than the receptive field "
            f"of its convolutions; the smallest is {field_size(1)}x{field_size(1)}; render larger "
            f"images or choose another encoder"
        )
