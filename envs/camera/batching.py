"""Work on many environments at once, a block of them at a time.

`jax.vmap` would turn the loops of a search into loops that all environments leave together, and
hold what all of them need in memory. Here a search is told how many environments there are.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# What suits the caches of a CPU is this many times less than what an accelerator takes.
_ACCELERATOR = 64


def at_once(number: int) -> int:
    """How many things to work on together where `number` suits the caches of a CPU."""
    return number if jax.default_backend() == "cpu" else _ACCELERATOR * number


def over_environments(search: Callable[..., Any]) -> Callable[..., Any]:
    """Lets `search`, which knows of many environments, be called for one, and vmapped.

    Args:
        search: maps trees of arrays [N, ...] to a tree of arrays [N, ...].

    Returns:
        The same without the leading axis.
    """

    @jax.custom_batching.custom_vmap
    def batched(*args: Any) -> Any:
        return search(*args)

    @batched.def_vmap
    def _(axis_size: int, in_batched: Any, *args: Any) -> tuple[Any, Any]:
        # A batch of batches is a longer batch.
        whole = jax.tree.map(
            lambda x, b: x if b else jnp.broadcast_to(x, (axis_size, *x.shape)),
            args,
            tuple(in_batched),
        )
        join = lambda x: x.reshape(axis_size * x.shape[1], *x.shape[2:])
        found = batched(*jax.tree.map(join, whole))
        split = lambda x: x.reshape(axis_size, -1, *x.shape[1:])
        return jax.tree.map(split, found), jax.tree.map(lambda _: True, found)

    def single(*args: Any) -> Any:
        found = batched(*jax.tree.map(lambda x: x[None], args))
        return jax.tree.map(lambda x: x[0], found)

    return single


def each(draw: Callable[..., Any], *args: Any) -> Any:
    """Returns `jax.vmap(draw)(*args)`, of a single thing without `jax.vmap`.

    A loop under `jax.vmap` also chooses, at every step and for every thing, whether that goes on.
    """
    if len(jax.tree.leaves(args)[0]) > 1:
        return jax.vmap(draw)(*args)
    return jax.tree.map(lambda x: x[None], draw(*jax.tree.map(lambda x: x[0], args)))


def in_blocks(block: int, draw: Callable[..., Any], *args: Any) -> Any:
    """Returns `draw(*args)`, a tree of arrays [N, ...], found `block` environments at a time.

    Args:
        block: how many at most.
        draw: maps trees of arrays [n, ...] to a tree of arrays [n, ...].
        args: trees of arrays [N, ...].
    """
    number = len(jax.tree.leaves(args)[0])
    if number <= block:
        return draw(*args)
    # The last block overlaps the one before where N is no multiple.
    starts = np.minimum(np.arange(0, number, block, dtype=np.int32), number - block)

    def visit(first: jax.Array) -> Any:
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, first, block)
        return draw(*jax.tree.map(cut, args))

    def join(parts: jax.Array) -> jax.Array:
        again = len(parts) * block - number
        if not again:
            return parts.reshape(number, *parts.shape[2:])
        before = parts[:-1].reshape(-1, *parts.shape[2:])
        return jnp.concatenate([before, parts[-1, again:]])

    return jax.tree.map(join, jax.lax.map(visit, starts))
