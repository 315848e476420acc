"""Define a stage that sees what changes."""

import flax.linen as nn
import jax

from encoders.pixels import scale_pixels
from encoders.registry import register


@register("motion")
class Motion(nn.Module):
    """Subtracts each frame of a stack from the next one; what stands still is 1/2.

    The output is 1/2 + (frame[k + 1] - frame[k]) / 2. Stack frames with `--frames`.

    Attributes:
        channels: channels of a single frame; None for those that the image of one frame has after
            the stages before this one in a spec (`gray` leaves 1), and 3 outside of a spec.
    """

    channels: int | None = None

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return the differences of consecutive frames.

        Args:
            image: uint8 or float[..., H, W, frames * channels], the oldest frame first.

        Returns:
            float32[..., H, W, (frames - 1) * channels].

        Raises:
            ValueError: there are not at least two whole frames.
        """
        pixels = scale_pixels(image)
        n = 3 if self.channels is None else self.channels
        channels = image.shape[-1]
        if n < 1 or channels % n or channels < 2 * n:
            raise ValueError(
                f"motion: needs two or more frames of {n} channels each, got {channels} channels; "
                f"stack frames with --frames 2, or say motion(channels=N) if a frame has N"
            )
        return (1 + pixels[..., n:] - pixels[..., :-n]) / 2
