"""Draw random numbers that do not depend on how many devices share the work.

Each environment has its own key for acting, and each group of environments (see
`vnl_ppo.rollout.groups_in_rows`) its own key for learning. These keys are folded from a key that
all devices share and the global index of the environment or group.
"""

from collections.abc import Callable

import jax


def keys_of(key: jax.Array, numbers: jax.Array) -> jax.Array:
    """Return keys [K], made by folding each of `numbers`, int32[K], into a key."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def fold_in(key: jax.Array, number: jax.Array | int) -> jax.Array:
    """Fold a number into one key, or into each of several keys [...]."""
    fold = jax.vmap(fold_in, (0, None)) if key.ndim else jax.random.fold_in
    return fold(key, number)


def draw(
    sample: Callable[[jax.Array, tuple[int, ...]], jax.Array],
    key: jax.Array,
    shape: tuple[int, ...],
) -> jax.Array:
    """Draw an array of random numbers, [*shape].

    Args:
        sample: (key, shape) -> array, such as `jax.random.normal`.
        key: one PRNG key; or keys [K], each of which draws an equal part of the first axis, in
            order. K has to divide shape[0].
        shape: the shape of the whole array.
    """
    if not key.ndim:
        return sample(key, shape)
    share = (shape[0] // len(key), *shape[1:])
    return jax.vmap(lambda k: sample(k, share))(key).reshape(shape)
