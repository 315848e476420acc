"""Define a stage that makes images smaller."""

import flax.linen as nn
import jax

from encoders.pixels import as_before, scale_pixels
from encoders.registry import register


@register("downsample")
class Downsample(nn.Module):
    """Averages blocks of pixels.

    Attributes:
        factor: side of a block, pixels.
    """

    factor: int = 2

    def __call__(self, image: jax.Array) -> jax.Array:
        """Average blocks; pixels at the far borders that fill no block are left out.

        Args:
            image: uint8 or float[..., H, W, C].

        Returns:
            uint8 (rounded) or float32[..., H // factor, W // factor, C].

        Raises:
            ValueError: `factor` is below 1 or larger than the image.
        """
        pixels, k = scale_pixels(image), self.factor
        *leading, height, width, channels = pixels.shape
        if not 1 <= k <= min(height, width):
            raise ValueError(
                f"downsample: factor is {k}; for images of {height}x{width} it has to be 1 to "
                f"{min(height, width)}"
            )
        rows, columns = height // k, width // k
        whole = pixels[..., : rows * k, : columns * k, :]
        blocks = whole.reshape(*leading, rows, k, columns, k, channels)
        return as_before(blocks.mean((-4, -2)), image)
