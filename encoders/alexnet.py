"""Define AlexNet (Krizhevsky et al. 2012), scaled to small images.

Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks",
NeurIPS 2012. Its layers resemble the ventral stream of the visual cortex (Yamins and DiCarlo 2016).
"""

import flax.linen as nn
import jax

from encoders.layers import convolution, encode, flat_features, max_pool
from encoders.pixels import scale_pixels
from encoders.registry import register

# (filters, side of the square kernel, stride, whether pooling follows): a quarter of AlexNet's
# filters; its first kernel, of 11x11 with stride 4 on 224x224 pixels, is 6x6 with stride 2.
LAYERS = (
    (24, 6, 2, True),
    (64, 5, 1, True),
    (96, 3, 1, False),
    (96, 3, 1, False),
    (64, 3, 1, True),
)
PIXELS = 24 * 64 * 64
"""Maximum number of pixels at a time on a CPU."""


@register("alexnet", "Krizhevsky et al. 2012, NeurIPS")
class AlexNet(nn.Module):
    """Five convolutions, three of them pooled, and a dense layer, each with a ReLU.

    Without AlexNet's response normalisation, dropout and its two dense layers of 4,096.

    Attributes:
        features: width of the output.
    """

    features: int = 16

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Map images of any size to float32[..., features]; see `encoders.layers.encode`."""
        return encode(_layers, self, image, PIXELS)


def _layers(network: AlexNet, x: jax.Array) -> jax.Array:
    x = scale_pixels(x)
    for filters, size, stride, pooled in LAYERS:
        x = nn.relu(convolution(x, filters, size, stride))
        x = max_pool(x) if pooled else x
    return flat_features(x, network.features)
