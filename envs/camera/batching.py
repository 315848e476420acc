"""Loop over blocks of environments and over parts of images.

`jax.vmap` of a search with loops gives loops that run until every environment is done, and that
hold the arrays of all environments in memory at once. The camera's searches take a whole batch
instead, and work through it in blocks.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# An accelerator takes this many times the work that fits a CPU's caches.
_ACCELERATOR = 64


def at_once(number: int) -> int:
    """Return how many items to process together: on a CPU `number`, which fits its caches."""
    return number if jax.default_backend() == "cpu" else _ACCELERATOR * number


def each(draw: Callable[..., Any], *args: Any) -> Any:
    """Return `jax.vmap(draw)(*args)`, without `jax.vmap` if the batch has one item.

    A loop under `jax.vmap` spends time on selecting, at every step, which items are not done yet.
    """
    if len(jax.tree.leaves(args)[0]) > 1:
        return jax.vmap(draw)(*args)
    return jax.tree.map(lambda x: x[None], draw(*jax.tree.map(lambda x: x[0], args)))


def in_blocks(block: int, draw: Callable[..., Any], *args: Any) -> Any:
    """Return `draw(*args)`, a tree of arrays [N, ...], computed `block` environments at a time.

    Args:
        block: the most environments in one call of `draw`.
        draw: maps trees of arrays [n, ...] to a tree of arrays [n, ...].
        args: trees of arrays [N, ...].
    """
    number = len(jax.tree.leaves(args)[0])
    if number <= block:
        return draw(*args)
    # Where `block` does not divide N, the last block overlaps the one before it.
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


def in_parts(update: Callable[..., jax.Array], first: jax.Array, *others: jax.Array) -> jax.Array:
    """Return `update(first, *others)`, an elementwise function, computed in place of `first`.

    A loop over a few parts of the image keeps XLA from fusing `update` with the code that computes
    its arguments. Table reads and byte stores are scalar code on a CPU, and whatever is fused with
    them becomes scalar too. (An optimization barrier does not help: XLA drops it before it fuses.)

    Args:
        update: maps int32[n] and arrays [n] to int32[n].
        first: int32[R].
        others: arrays [R].
    """
    parts = next((n for n in (2, 3, 5, 7) if len(first) % n == 0), 1)
    size = len(first) // parts

    def step(i: jax.Array, buffer: jax.Array) -> jax.Array:
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, i * size, size)
        return jax.lax.dynamic_update_slice_in_dim(
            buffer, update(cut(buffer), *map(cut, others)), i * size, 0
        )

    return jax.lax.fori_loop(0, parts, step, first)
