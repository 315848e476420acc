"""Scale pixels to numbers between 0 and 1, the first step of every image encoder, and back."""

import jax
import jax.numpy as jnp


def scale_pixels(image: jax.Array) -> jax.Array:
    """Return an image as float32, scaled to 0 to 1 if it is uint8.

    Args:
        image: [..., H, W, C]; uint8 in 0 to 255, or floating point.

    Returns:
        float32[..., H, W, C]: uint8 pixels divided by 255; floating point pixels unchanged, since a
        depth image, for instance, has its own units.

    Raises:
        ValueError: as `white`.
    """
    return image.astype(jnp.float32) / white(image)


def white(image: jax.Array) -> int:
    """Return the value of the brightest pixel: 255 in uint8, 1 in floating point.

    Raises:
        ValueError: the array has fewer than three axes, or holds neither uint8 nor floats.
    """
    if image.ndim < 3:
        raise ValueError(
            f"an image has three axes, height, width and channels, after any batch axes; got shape "
            f"{list(image.shape)}; use the encoder 'mlp' or 'identity' for a vector"
        )
    if image.dtype == jnp.uint8:
        return 255
    if jnp.issubdtype(image.dtype, jnp.floating):
        return 1
    raise ValueError(
        f"an image holds uint8 in 0 to 255 or floating point numbers; got {image.dtype}; "
        f"convert it in the environment"
    )


def as_before(pixels: jax.Array, image: jax.Array) -> jax.Array:
    """Return pixels in 0 to 1 as the image that they were made of was: rounded bytes if it was.

    Args:
        pixels: float32[..., H, W, C], for instance an average of `scale_pixels(image)`.
        image: of the dtype to return.

    Returns:
        uint8 if the image is uint8, else float32, of the shape of `pixels`.
    """
    if image.dtype == jnp.uint8:
        return jnp.round(255 * pixels).astype(jnp.uint8)
    return pixels


def length(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return sqrt(x^2 + y^2), whose gradient at 0 is 0 instead of NaN."""
    squared = jnp.square(x) + jnp.square(y)
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)
