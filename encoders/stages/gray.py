"""Define a stage that turns colours into brightness."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from encoders.pixels import as_before, scale_pixels
from encoders.registry import register

WEIGHTS = (0.299, 0.587, 0.114)
"""Weights of red, green and blue, as Recommendation ITU-R BT.601 defines luma."""


@register("gray", "luma of ITU-R BT.601")
class Gray(nn.Module):
    """Averages red, green and blue, weighted as they contribute to brightness."""

    @nn.nowrap
    def frame_channels(self, channels: int) -> int:
        """Return how many channels one frame has afterwards, of how many before.

        Raises:
            ValueError: that is no multiple of 3. Three frames of one channel are no colours.
        """
        if channels % 3:
            raise ValueError(
                f"gray: takes images of red, green and blue; a frame has {channels} channels here"
            )
        return channels // 3

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return the brightness of each pixel.

        Args:
            image: uint8 or float[..., H, W, 3 * frames], the frames one after the other.

        Returns:
            uint8 (rounded) or float32[..., H, W, frames].

        Raises:
            ValueError: the number of channels is not a multiple of 3.
        """
        pixels = scale_pixels(image)
        *space, channels = image.shape
        if channels % 3:
            raise ValueError(f"gray: takes images of red, green and blue; got {channels} channels")
        colours = pixels.reshape(*space, channels // 3, 3)
        return as_before((colours * jnp.asarray(WEIGHTS)).sum(-1), image)
