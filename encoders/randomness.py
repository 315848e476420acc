"""Draw random numbers in an encoder: noise, dropout.

A module whose `__call__` takes an argument `key` gets PRNG keys [...], one for each sample of its
input [..., H, W, C], or None if it has to be deterministic. They are stored with the experience, so
that learning meets the numbers that acting met. Flax's `make_rng` has one key for all samples, and
is not supported.
"""

import inspect
from collections.abc import Callable

import flax.linen as nn
import jax


def takes_key(module: nn.Module) -> bool:
    """Return whether a module draws random numbers: its `__call__` takes an argument `key`."""
    return "key" in inspect.signature(type(module).__call__).parameters


def fold_in(key: jax.Array, number: int) -> jax.Array:
    """Fold a number into each of several PRNG keys [...]."""
    fold = jax.vmap(fold_in, (0, None)) if key.ndim else jax.random.fold_in
    return fold(key, number)


def draw(
    sample: Callable[[jax.Array, tuple[int, ...]], jax.Array],
    key: jax.Array,
    shape: tuple[int, ...],
) -> jax.Array:
    """Draw an array of random numbers [*shape], those of each sample from its own key.

    Args:
        sample: (key, shape) -> array, such as `jax.random.normal`.
        key: PRNG keys [...], whose axes are the leading ones of `shape`.
        shape: of the whole array.
    """
    if not key.ndim:
        return sample(key, shape)
    return jax.vmap(lambda k: draw(sample, k, shape[1:]))(key)
