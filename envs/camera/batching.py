"""Work on many environments at once, a block of them at a time.

`jax.vmap` would turn the loops of a search into loops that all environments leave together, and
hold what all of them need in memory. Here a search is told how many environments there are.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def over_environments(search: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Lets `search`, which knows of many environments, be called for one, and vmapped.

    Args:
        search: maps keys int32[N, R] and trees of arrays [N, ...] to keys int32[N, R].

    Returns:
        The same without the leading axis.
    """

    @jax.custom_batching.custom_vmap
    def batched(keys: jax.Array, *args: Any) -> jax.Array:
        return search(keys, *args)

    @batched.def_vmap
    def _(axis_size: int, in_batched: Any, *args: Any) -> tuple[jax.Array, bool]:
        # A batch of batches is a longer batch.
        whole = [
            jax.tree.map(
                lambda x, b: x if b else jnp.broadcast_to(x, (axis_size, *x.shape)), arg, batched
            )
            for arg, batched in zip(args, in_batched, strict=True)
        ]
        number = whole[0].shape[1]
        join = lambda x: x.reshape(axis_size * number, *x.shape[2:])
        keys = batched(*jax.tree.map(join, whole))
        return keys.reshape(axis_size, number, -1), True

    return lambda *args: batched(*jax.tree.map(lambda x: x[None], args))[0]


def in_blocks(
    keys: jax.Array, args: Any, block: int, draw: Callable[[jax.Array, Any], jax.Array]
) -> jax.Array:
    """Returns keys int32[N, R] that `draw` has lowered, `block` environments at a time.

    Args:
        keys: int32[N, R].
        args: tree of arrays [N, ...].
        block: of environments, N at most.
        draw: maps keys int32[block, R] and a tree of arrays [block, ...] to lower keys.
    """
    number = len(keys)

    def visit(i: jax.Array, keys: jax.Array) -> jax.Array:
        # The last block may overlap the one before: a minimum can be taken twice.
        first = jnp.minimum(i * block, number - block)
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, first, block)
        return jax.lax.dynamic_update_slice_in_dim(
            keys, draw(cut(keys), jax.tree.map(cut, args)), first, 0
        )

    return jax.lax.fori_loop(0, -(-number // block), visit, keys)
