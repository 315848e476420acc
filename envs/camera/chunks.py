"""Searches whose length differs from ray to ray, a few hundred rays at a time.

A loop over all rays of a picture runs until the last of them is done. On a CPU neighbours are
therefore searched together, and each few hundred stop when they are done; on an accelerator, which
needs many rays at once, all are.
"""

from collections.abc import Callable

import jax

_RAYS = 256


def by_chunks(search: Callable[..., tuple], *arrays: jax.Array) -> tuple:
    """Returns `search(*arrays)`.

    Args:
        search: maps arrays of n rays to a tuple of arrays of n.
        arrays: arrays of R.
    """
    number = len(arrays[0])
    if jax.default_backend() != "cpu":
        return search(*arrays)
    size = max(n for n in range(1, _RAYS + 1) if number % n == 0)
    parts = tuple(x.reshape(-1, size) for x in arrays)
    found = jax.lax.map(lambda part: search(*part), parts)
    return tuple(x.reshape(number) for x in found)
