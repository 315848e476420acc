"""Define what convolutional encoders have in common: padded layers, pooling, leading axes."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from encoders.batches import images_of, in_batches
from encoders.blocked_convolution import convolve
from encoders.pixels import white

GAIN = math.sqrt(2)
"""Gain of orthogonal kernels before a ReLU, as PPO implementations have it (see `nature_cnn`)."""


def encode(
    layers: Callable[[Any, jax.Array], jax.Array],
    module: Any,
    image: jax.Array,
    pixels: int,
    smallest: int = 1,
) -> jax.Array:
    """Apply an encoder's layers to images with any leading axes, a few at a time on a CPU.

    Args:
        layers: (module, uint8 or float[b, H, W, C]) -> float[b, features].
        module: the encoder, which has a setting `features`.
        image: uint8 or float[..., H, W, C].
        pixels: the maximum number of pixels at a time on a CPU, see `encoders.batches`.
        smallest: the fewest pixels that H and W may have.

    Returns:
        float32[..., features].

    Raises:
        ValueError: the image is too small or is none, or `features` is below 1.
    """
    name = type(module).__name__.lower()
    if module.features < 1:
        raise ValueError(f"{name}: features must be at least 1, got {module.features}")
    white(image)
    height, width = image.shape[-3:-1]
    if min(height, width) < smallest:
        raise ValueError(
            f"{name}: an image of {height}x{width} pixels is too small; the smallest is "
            f"{smallest}x{smallest}; render larger images or choose another encoder"
        )
    flat = image.reshape(math.prod(image.shape[:-3]), *image.shape[-3:])
    features = in_batches(layers, module, flat, images_of(pixels, image))
    return features.reshape(*image.shape[:-3], module.features)


def convolution(
    x: jax.Array, filters: int, size: int, stride: int = 1, gain: float = GAIN
) -> jax.Array:
    """Convolve [b, H, W, C] with zeros around it: [b, ceil(H / stride), ceil(W / stride), filters].

    Call it in a module's compact method; the parameters are those of `nn.Conv` with padding "SAME".
    Padding apart lets `convolve` run as products: on two cores of a CPU, gradients inside a scan
    are 5 to 11 times as fast as by XLA's convolutions (`benchmarks/visual_systems.py`).
    """
    layer = nn.Conv(
        filters,
        (size, size),
        (stride, stride),
        "VALID",
        kernel_init=nn.initializers.orthogonal(gain),
        conv_general_dilated=convolve,
    )
    return layer(pad(x, size, stride))


def pad(x: jax.Array, size: int, stride: int) -> jax.Array:
    """Put zeros around [b, H, W, C] so that windows without padding are those of "SAME"."""
    windows = lax.padtype_to_pads(x.shape[1:3], (size, size), (stride, stride), "SAME")
    return jnp.pad(x, ((0, 0), *windows, (0, 0)))


def max_pool(x: jax.Array) -> jax.Array:
    """Return the maximum of each window of 3x3, stride 2: [b, ceil(H / 2), ceil(W / 2), C]."""
    return nn.max_pool(x, (3, 3), (2, 2), "SAME")


def flat_features(x: jax.Array, features: int) -> jax.Array:
    """Map [b, ...], flattened, to `features` rectified units of a dense layer."""
    x = x.reshape(len(x), math.prod(x.shape[1:]))
    return nn.relu(nn.Dense(features, kernel_init=nn.initializers.orthogonal(GAIN))(x))
