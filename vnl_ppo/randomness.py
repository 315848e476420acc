"""Random numbers that are the same however the work is shared out.

Whoever draws has a key of its own: an environment while it acts, a group of environments while it
is learned from (see `vnl_ppo.rollout.groups_in_rows`). These keys are folded from one that all
devices share and a number that tells environments, or groups, from each other over all devices.
"""

from collections.abc import Callable

import jax


def keys_of(key: jax.Array, numbers: jax.Array) -> jax.Array:
    """Keys [K], one for each of `numbers`, int32[K]."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def fold_in(key: jax.Array, number: jax.Array | int) -> jax.Array:
    """`jax.random.fold_in` for one key or for each of several, [...]."""
    fold = jax.vmap(fold_in, (0, None)) if key.ndim else jax.random.fold_in
    return fold(key, number)


def draw(
    sample: Callable[[jax.Array, tuple[int, ...]], jax.Array],
    key: jax.Array,
    shape: tuple[int, ...],
) -> jax.Array:
    """An array of random numbers, [*shape].

    Args:
        sample: (key, shape) -> array, such as `jax.random.normal`.
        key: one that draws all, or keys [K], each of which draws its share of the first axis, one
            after the other. K divides that axis.
        shape: of all.
    """
    if not key.ndim:
        return sample(key, shape)
    share = (shape[0] // len(key), *shape[1:])
    return jax.vmap(lambda k: sample(k, share))(key).reshape(shape)
