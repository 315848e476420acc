"""Let functions of a whole batch of environments be called for one, under `jax.vmap`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def over_environments(of_batch: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a function of a batch of environments into a function of one, which may be vmapped.

    Under `jax.vmap`, even nested, `of_batch` is called once with the whole batch.

    Args:
        of_batch: maps trees of arrays [N, ...] to a tree of arrays [N, ...]. It may ask for N.

    Returns:
        The same function without the leading axis.
    """

    @jax.custom_batching.custom_vmap
    def batched(*args: Any) -> Any:
        return of_batch(*args)

    @batched.def_vmap
    def _(axis_size: int, in_batched: Any, *args: Any) -> tuple[Any, Any]:
        # Join a batch of batches into one batch.
        whole = jax.tree.map(
            lambda x, b: x if b else jnp.broadcast_to(x, (axis_size, *x.shape)),
            args,
            tuple(in_batched),
        )
        join = lambda x: x.reshape(axis_size * x.shape[1], *x.shape[2:])
        found = batched(*jax.tree.map(join, whole))
        split = lambda x: x.reshape(axis_size, len(x) // axis_size, *x.shape[1:])
        return jax.tree.map(split, found), jax.tree.map(lambda _: True, found)

    def single(*args: Any) -> Any:
        found = batched(*jax.tree.map(lambda x: x[None], args))
        return jax.tree.map(lambda x: x[0], found)

    return single
