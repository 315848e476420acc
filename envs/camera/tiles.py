"""Searches whose length differs from ray to ray, a tile of a picture at a time.

A loop over all rays of a picture runs until the last of them is done. On a CPU neighbours are
therefore searched together, and each tile stops when its rays are done; on an accelerator, which
needs many rays at once, all are.
"""

from collections.abc import Callable

import jax

# Rays of a tile down and across at most. XLA shares a step of more rays than that among threads,
# which takes longer than the step.
_HEIGHT, _WIDTH = 8, 32


def by_tiles(search: Callable[[jax.Array], jax.Array], width: int, rays: jax.Array) -> jax.Array:
    """Returns `search(rays)`, an array [R].

    Args:
        search: maps [k, ...] to [...].
        width: of the picture, in rays.
        rays: [k, R], what is known of each ray, row by row. In one array: cut from several, a
            picture of the bowl took a third longer.
    """
    number = rays.shape[1]
    if jax.default_backend() != "cpu":
        return search(rays)
    h, w = _divisor(number // width, _HEIGHT), _divisor(width, _WIDTH)
    down, across = number // width // h, width // w
    tiles = rays.reshape(-1, down, h, across, w).transpose(1, 3, 0, 2, 4)
    found = jax.lax.map(search, tiles.reshape(down * across, -1, h, w))
    return found.reshape(down, across, h, w).swapaxes(1, 2).reshape(number)


def _divisor(number: int, most: int) -> int:
    """The greatest divisor of `number` that is not above `most`."""
    return max(n for n in range(1, most + 1) if number % n == 0)
