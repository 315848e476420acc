"""Define the residual network of IMPALA (Espeholt et al. 2018), the larger usual encoder of RL.

Espeholt et al., "IMPALA: Scalable distributed deep-RL with importance weighted actor-learner
architectures", ICML 2018, arXiv:1802.01561, figure 3 (right), without its LSTM.
"""

import math

import flax.linen as nn
import jax

from encoders.layers import GAIN, convolution, encode, flat_features, max_pool
from encoders.pixels import scale_pixels
from encoders.registry import register

BLOCKS = 2
"""Residual blocks in a stage."""
PIXELS = 8 * 64 * 64
"""Maximum number of pixels at a time on a CPU, of which there are some 20 MB of windows."""


@register("impala", "Espeholt et al. 2018, arXiv:1802.01561")
class Impala(nn.Module):
    """Three stages of a convolution, a pooling and two residual blocks; then a dense layer.

    Kernels start orthogonal; the last one of a residual block is scaled by one over the root of the
    number of blocks, so that features do not grow with depth.

    Attributes:
        features: width of the output; 256 as published.
        channels: filters of each stage; each halves height and width.
    """

    features: int = 16
    channels: tuple[int, ...] = (16, 32, 32)

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Map images of any size to float32[..., features]; see `encoders.layers.encode`."""
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"impala: channels is {tuple(self.channels)}; each must be at least 1")
        return encode(_layers, self, image, PIXELS)


def _layers(network: Impala, x: jax.Array) -> jax.Array:
    x = scale_pixels(x)
    gain = GAIN / math.sqrt(BLOCKS * len(network.channels))
    for filters in network.channels:
        x = max_pool(convolution(x, filters, 3))
        for _ in range(BLOCKS):
            change = convolution(nn.relu(x), filters, 3)
            x = x + convolution(nn.relu(change), filters, 3, gain=gain)
    return flat_features(nn.relu(x), network.features)
