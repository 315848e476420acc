"""Run layers on few images at a time on a CPU, so that values between layers stay in its cache."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp


def in_batches(
    layers: Callable[[nn.Module, jax.Array], jax.Array], module: nn.Module, x: jax.Array, size: int
) -> jax.Array:
    """Applies layers to at most `size` samples at a time, where the back end is a CPU.

    The same numbers as `layers(module, x)`. Between two layers of a convolutional network lie
    megabytes; for a whole minibatch a CPU spends more time on moving them to memory and back than
    on arithmetic. Other back ends get all samples at once.

    Args:
        layers: called with a module, whose parameters it may make and use, and [b, ...].
        module: the one that calls this, in its `__call__`.
        x: [B, ...].
        size: the most samples at a time; the actual number divides B as evenly as can be.

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
