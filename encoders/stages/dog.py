"""Define a stage of cells with a centre and a surround, as in the retina."""

import flax.linen as nn
import jax

from encoders.pixels import scale_pixels
from encoders.registry import register
from encoders.stages.blur import smooth


@register("dog", "Rodieck 1965, doi 10.1016/0042-6989(65)90033-7")
class DifferenceOfGaussians(nn.Module):
    """Subtracts a wide Gaussian of each channel from a narrow one, as retinal ganglion cells do.

    The output is 1/2 + (center - surround) / 2: on-centre cells are above 1/2, off-centre cells
    below it. R. W. Rodieck, "Quantitative analysis of cat retinal ganglion cell response to visual
    stimuli", Vision Research 5 (1965).

    Attributes:
        center, surround: standard deviations of the two Gaussians, pixels; the ratio of 1.6 makes
            it the Laplacian of a Gaussian, nearly (Marr and Hildreth 1980).
    """

    center: float = 1.0
    surround: float = 1.6

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return the cells' responses, uint8 or float[..., H, W, C] -> float32[..., H, W, C].

        Raises:
            ValueError: the centre is not narrower than the surround.
        """
        if not self.center < self.surround:
            raise ValueError(
                f"dog: center is {self.center} and surround {self.surround}; the center has to be "
                f"narrower"
            )
        pixels = scale_pixels(image)
        center = smooth(pixels, self.center, "dog: center")
        return (1 + center - smooth(pixels, self.surround, "dog: surround")) / 2
