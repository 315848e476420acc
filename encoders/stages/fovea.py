"""Define a stage that sees best in the middle."""

import flax.linen as nn
import jax
import numpy as np

from encoders.pixels import as_before, scale_pixels
from encoders.registry import register


@register("fovea", "Schwartz 1977, doi 10.1007/BF01885636")
class Fovea(nn.Module):
    """Samples an image in log-polar coordinates, as the map from the retina to the cortex does.

    Row i is a ring around the middle of the image, of radius
    inner * (outer / inner)^(i / (rings - 1)), where outer is the largest circle in the image.
    Column j is the direction 2 pi j / angles, from the right clockwise. Pixels are interpolated
    linearly and not averaged over the outer rings' wide spacing: `blur` first against aliasing.
    E. L. Schwartz, "Spatial mapping in the primate sensory projection", Biological Cybernetics 25
    (1977).

    Attributes:
        rings, angles: the numbers of rows and columns of the output.
        inner: radius of the innermost ring, pixels.
    """

    rings: int = 32
    angles: int = 64
    inner: float = 1.0

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return the image in log-polar coordinates.

        Args:
            image: uint8 or float[..., H, W, C].

        Returns:
            uint8 (rounded) or float32[..., rings, angles, C].

        Raises:
            ValueError: there are fewer than two rings or one angle, or more than 1000, or the inner
                ring is not inside the image.
        """
        pixels = scale_pixels(image)
        if not (2 <= self.rings <= 1000 and 1 <= self.angles <= 1000):
            raise ValueError(
                f"fovea: there are {self.rings} rings and {self.angles} angles; there have to be "
                f"at least 2 and 1, and at most 1000 of each"
            )
        y, x = self.coordinates(*image.shape[-3:-1])
        down, right = (y - (top := _floor(y)))[..., None], (x - (left := _floor(x)))[..., None]
        bottom, far = (np.ceil(z).astype(int) for z in (y, x))
        at = lambda rows, columns: pixels[..., rows, columns, :]
        upper = at(top, left) * (1 - right) + at(top, far) * right
        lower = at(bottom, left) * (1 - right) + at(bottom, far) * right
        return as_before(upper * (1 - down) + lower * down, image)

    @nn.nowrap
    def coordinates(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return row and column of each sample, float32[rings, angles] each."""
        outer = (min(height, width) - 1) / 2
        if not 0 < self.inner < outer:
            raise ValueError(
                f"fovea: inner is {self.inner}; for images of {height}x{width} it has to be above "
                f"0 and below {outer}"
            )
        radius = np.geomspace(self.inner, outer, self.rings)[:, None]
        angle = np.arange(self.angles) * (2 * np.pi / self.angles)
        # Rounding must not lead out of the image.
        row = np.clip((height - 1) / 2 + radius * np.sin(angle), 0, height - 1)
        column = np.clip((width - 1) / 2 + radius * np.cos(angle), 0, width - 1)
        return row.astype(np.float32), column.astype(np.float32)


def _floor(x: np.ndarray) -> np.ndarray:
    return np.floor(x).astype(int)
