"""Run a search whose length differs from ray to ray, one tile of the image at a time.

A loop over all rays of an image runs until the last ray is done. On a CPU the image is therefore
cut into tiles of neighbouring rays, and the loop of each tile stops when its own rays are done. An
accelerator needs many rays at once and searches all together.
"""

from collections.abc import Callable

import jax

# The most rows and columns of a tile. XLA splits a step over more rays among threads, which takes
# longer than the step itself.
_HEIGHT, _WIDTH = 8, 32


def by_tiles(search: Callable[[jax.Array], jax.Array], width: int, rays: jax.Array) -> jax.Array:
    """Return `search(rays)`, an array [R].

    Args:
        search: maps [k, ...] to [...], ray by ray.
        width: width of the image, in rays.
        rays: [k, R], k numbers for each ray, row by row. It is one array because cutting tiles from
            several took longer.
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
    """Return the greatest divisor of `number` that is not above `most`."""
    return max(n for n in range(1, most + 1) if number % n == 0)
