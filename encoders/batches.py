"""Run layers on a few images at a time on a CPU, so that intermediate values stay in its cache."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def images_of(pixels: int, image: jax.Array) -> int:
    """Return how many images [..., H, W, C] have at most `pixels` pixels together; at least 1."""
    height, width = image.shape[-3:-1]
    return max(1, pixels // (height * width))


def in_batches(
    layers: Callable[[Any, jax.Array], jax.Array], module: nn.Module, x: jax.Array, size: int
) -> jax.Array:
    """Apply layers to at most `size` samples at a time on a CPU.

    The result equals `layers(module, x)`. For a whole minibatch the values between convolutional
    layers take megabytes, and a CPU spends more time on moving them to memory and back than on
    arithmetic. Other back ends get all samples at once.

    Args:
        layers: (module, [b, ...]) -> [b, ...]; it may create and use the module's parameters. What
            it sows into losses and metrics is lost if there are several batches; sow what is made
            of the result instead.
        module: the module whose `__call__` calls this.
        x: [B, ...].
        size: the maximum number of samples at a time; batches are as equal in size as possible.

    Returns:
        [B, ...], one result of `layers` per sample.
    """
    count = len(x)
    # Recorded values of the layers in between have to be those of all samples.
    watched = module.is_mutable_collection("intermediates")
    if jax.default_backend() != "cpu" or count <= size or watched:
        return layers(module, x)
    number = -(-count // size)
    each = -(-count // number)
    filled = jnp.pad(x, ((0, number * each - count), *((0, 0),) * (x.ndim - 1)))
    over_batches = nn.scan(
        lambda module, carry, x: (carry, layers(module, x)),
        variable_broadcast="params",
        split_rngs={"params": False},
    )
    _, y = over_batches(module, (), filled.reshape(number, each, *x.shape[1:]))
    return y.reshape(number * each, *y.shape[2:])[:count]
