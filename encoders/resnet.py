"""Define a small residual network with pre-activation and group normalisation.

He et al., "Identity mappings in deep residual networks", ECCV 2016, arXiv:1603.05027; Wu and He,
"Group normalization", ECCV 2018, arXiv:1803.08494, which keeps no state and does not mix samples.
"""

import flax.linen as nn
import jax

from encoders.layers import convolution, encode, flat_features
from encoders.pixels import scale_pixels
from encoders.registry import register

PIXELS = 24 * 64 * 64
"""Maximum number of pixels at a time on a CPU."""


@register("resnet", "He et al. 2016, arXiv:1603.05027; Wu and He 2018, arXiv:1803.08494")
class ResNet(nn.Module):
    """A convolution of stride 2, residual blocks each of which halves the image, a dense layer.

    The shortcut of a block is an average of 2x2 pixels and a convolution of 1x1 (He et al. 2019,
    arXiv:1812.01187). Kernels of stride 2 are 4x4, so that they are products of blocks on a CPU.

    Attributes:
        features: width of the output.
        channels: filters of each block, multiples of `groups`.
        groups: groups of channels that are normalised together.
    """

    features: int = 16
    channels: tuple[int, ...] = (16, 32, 64)
    groups: int = 8

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Map images of any size to float32[..., features]; see `encoders.layers.encode`."""
        if self.groups < 1 or not self.channels or min(self.channels) < 1:
            raise ValueError(
                f"resnet: groups is {self.groups} and channels {tuple(self.channels)}; each must "
                f"be at least 1"
            )
        if any(n % self.groups for n in self.channels):
            raise ValueError(
                f"resnet: channels is {tuple(self.channels)}; each must be a multiple of groups, "
                f"{self.groups}"
            )
        return encode(_layers, self, image, PIXELS)


def _layers(network: ResNet, x: jax.Array) -> jax.Array:
    rectified = lambda x: nn.relu(nn.GroupNorm(network.groups)(x))
    x = convolution(scale_pixels(x), network.channels[0], 4, 2)
    for filters in network.channels:
        before = rectified(x)
        shortcut = convolution(_halved(before), filters, 1, gain=1)
        change = convolution(before, filters, 4, 2)
        x = shortcut + convolution(rectified(change), filters, 3, gain=1)
    return flat_features(rectified(x), network.features)


def _halved(x: jax.Array) -> jax.Array:
    """Average 2x2 pixels; a last odd row or column is averaged with what there is."""
    return nn.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False)
