"""Define a stage that shows a part of the image."""

import flax.linen as nn
import jax

from encoders.pixels import white
from encoders.registry import register


@register("crop")
class Crop(nn.Module):
    """Cuts out a rectangle.

    Attributes:
        height, width: its size, pixels.
        top, left: its first row and column; None for the middle.
    """

    height: int = 32
    width: int = 32
    top: int | None = None
    left: int | None = None

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return a part of an image, [..., H, W, C] -> [..., height, width, C] of the same dtype.

        Raises:
            ValueError: it is not inside the image.
        """
        white(image)
        rows, columns = image.shape[-3:-1]
        top = (rows - self.height) // 2 if self.top is None else self.top
        left = (columns - self.width) // 2 if self.left is None else self.left
        bottom, right = top + self.height, left + self.width
        if not (0 <= top < bottom <= rows and 0 <= left < right <= columns):
            raise ValueError(
                f"crop: rows {top} to {bottom} and columns {left} to {right} are not a part of an "
                f"image of {rows}x{columns}"
            )
        return image[..., top:bottom, left:right, :]
