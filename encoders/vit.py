"""Define a tiny vision transformer.

Dosovitskiy et al., "An image is worth 16x16 words: transformers for image recognition at scale",
ICLR 2021, arXiv:2010.11929, with the mean of all patches in place of a class token (Beyer et al.
2022, arXiv:2205.01580).
"""

import flax.linen as nn
import jax

from encoders.blocked_convolution import convolve
from encoders.layers import encode, flat_features
from encoders.pixels import scale_pixels
from encoders.registry import register

PIXELS = 512 * 64 * 64
"""Maximum number of pixels at a time on a CPU. Tokens are few: a loop costs more than it saves."""


@register("vit", "Dosovitskiy et al. 2021, arXiv:2010.11929")
class ViT(nn.Module):
    """Patches with learned positions, layers of self-attention, the mean, and a dense layer.

    Pixels at the far borders that fill no patch are not seen.

    Attributes:
        features: width of the output.
        patch: side of a patch, pixels.
        width: channels of a patch's token, a multiple of `heads`.
        depth: layers of attention.
        heads: heads of attention in each layer.
    """

    features: int = 16
    patch: int = 8
    width: int = 64
    depth: int = 2
    heads: int = 4

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Encode images.

        Args:
            image: uint8[..., H, W, C] in 0 to 255, or float[..., H, W, C] that is already scaled. H
                and W are at least `patch`.

        Returns:
            float32[..., features], not negative.

        Raises:
            ValueError: the image is smaller than a patch or is none, or a setting is out of range.
        """
        if min(self.patch, self.width, self.heads) < 1 or not 0 <= self.depth <= 100:
            raise ValueError(
                f"vit: patch is {self.patch}, width {self.width}, heads {self.heads} and depth "
                f"{self.depth}; each must be at least 1, and depth 0 to 100"
            )
        if self.width % self.heads:
            raise ValueError(
                f"vit: width is {self.width}; it must be a multiple of heads, {self.heads}"
            )
        return encode(_layers, self, image, PIXELS, smallest=self.patch)


def _layers(network: ViT, x: jax.Array) -> jax.Array:
    sides = (network.patch, network.patch)
    layer = nn.Conv(network.width, sides, sides, "VALID", conv_general_dilated=convolve)
    x = layer(scale_pixels(x))
    x = x.reshape(len(x), x.shape[1] * x.shape[2], network.width)
    places = nn.initializers.normal(0.02)
    x = x + network.param("position", places, (1, *x.shape[1:]))
    for _ in range(network.depth):
        attention = nn.MultiHeadDotProductAttention(network.heads)
        x = x + attention(nn.LayerNorm()(x))
        hidden = nn.gelu(nn.Dense(2 * network.width)(nn.LayerNorm()(x)))
        x = x + nn.Dense(network.width)(hidden)
    return flat_features(nn.LayerNorm()(x).mean(1), network.features)
