"""Colours of surfaces: one flat table of texels that a pixel reads once.

A texture is stored as a pyramid of ever coarser squares (Williams 1983, "Pyramidal parametrics"),
so that a far pixel reads the mean of what it covers; a plain colour is a texture of one texel.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def low_bits(x: jax.Array) -> jax.Array:
    """The low 22 bits, in two's complement, of the integer nearest x; for |x| < 2^22.

    Adding 1.5 * 2^23 leaves them in the mantissa. XLA's own conversion saturates and looks for
    NaN, at six times the cost.
    """
    shifted = x + np.float32(1.5 * 2**23)
    return jax.lax.bitcast_convert_type(shifted, jnp.int32) & np.int32((1 << 22) - 1)


@dataclasses.dataclass(frozen=True)
class Surface:
    """Where a surface's texels lie.

    Attributes:
        start: of its pyramid in the table.
        side: texels along the finest square, a power of two.
        repeat: how often the texture repeats per metre, along its two axes.
    """

    start: int
    side: int
    repeat: tuple[float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Palette:
    """The surfaces of a scene.

    Attributes:
        texels: uint32[K], red in the lowest byte, then green and blue.
        surfaces: what lies where.
    """

    texels: np.ndarray
    surfaces: tuple[Surface, ...]

    @classmethod
    def from_textures(
        cls, textures: list[tuple[np.ndarray, tuple[float, float]]], largest: int = 128
    ) -> "Palette":
        """Builds the table.

        Args:
            textures: for each surface its colours, float[H, W, 3] in [0, 1], and its repeats per
              metre.
            largest: the longest side that is kept, a power of two.
        """
        tables, surfaces, start = [], [], 0
        for colours, repeat in textures:
            side = min(largest, 1 << (min(colours.shape[:2]).bit_length() - 1))
            pyramid = _pyramid(_resample(colours, side))
            surfaces.append(Surface(start, side, repeat))
            tables.append(pyramid)
            start += len(pyramid)
        tables = tables or [np.zeros((1, 3))]
        levels = np.round(np.clip(np.concatenate(tables), 0, 1) * 255).astype(np.uint32)
        return cls(levels @ np.array([1, 1 << 8, 1 << 16], np.uint32), tuple(surfaces))

    def index(self, surface: jax.Array, point: tuple[jax.Array, ...], area: jax.Array) -> jax.Array:
        """Finds the texel that a pixel reads.

        The texture is laid out in the world: along x + z and y + z, so that it varies over every
        axis-aligned face.

        Args:
            surface: int32[R], which one is seen.
            point: three of float32[R], where in the world, metres.
            area: float32[R], what the pixel covers of the surface, square metres.

        Returns:
            int32[R].
        """
        index = jnp.zeros(surface.shape, jnp.int32)
        for i, this in enumerate(self.surfaces):
            texel = this.start + (_texel(this, point, area) if this.side > 1 else 1)
            index = jnp.where(surface == i, texel, index)
        return index

    def read(self, index: jax.Array) -> jax.Array:
        """Returns int32[R], the texels at `index` int32[R]."""
        texels = jnp.asarray(self.texels.view(np.int32))
        return in_parts(lambda i: texels.at[i].get(mode="promise_in_bounds"), index)


def in_parts(update: Callable[..., jax.Array], first: jax.Array, *others: jax.Array) -> jax.Array:
    """Returns `update(first, *others)`, pixel by pixel, computed in place of `first`.

    Table reads and byte stores are scalar code on a CPU, and XLA would fuse into them all the
    arithmetic that they need, drop an optimization barrier in between, and so make that scalar too.
    A loop over parts of the picture keeps the two apart.

    Args:
        update: maps int32[n] and the same n of every other to int32[n].
        first: int32[R].
        others: arrays of R.
    """
    parts = next((n for n in (2, 3, 5, 7) if len(first) % n == 0), 1)
    size = len(first) // parts

    def step(i: jax.Array, buffer: jax.Array) -> jax.Array:
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, i * size, size)
        return jax.lax.dynamic_update_slice_in_dim(
            buffer, update(cut(buffer), *map(cut, others)), i * size, 0
        )

    return jax.lax.fori_loop(0, parts, step, first)


def _texel(surface: Surface, point: tuple[jax.Array, ...], area: jax.Array) -> jax.Array:
    side = surface.side
    finest = surface.repeat[0] * surface.repeat[1] * side**2
    # Half the binary exponent of the area in texels is the level whose texels are as large.
    bits = jax.lax.bitcast_convert_type(area * np.float32(2 * finest), jnp.int32)
    level = jnp.clip(((bits >> 23) - 127) >> 1, 0, side.bit_length() - 1)
    across, down = (
        low_bits((point[i] + point[2]) * np.float32(surface.repeat[i] * side)) & (side - 1)
        for i in range(2)
    )
    here = side >> level
    return here * here + (down >> level) * here + (across >> level)


def _resample(colours: np.ndarray, side: int) -> np.ndarray:
    """Means over a grid of side x side cells."""
    for axis in range(2):
        edges = np.linspace(0, colours.shape[axis], side + 1).astype(int)
        sums = np.add.reduceat(colours, edges[:-1], axis=axis)
        counts = np.diff(edges).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
        colours = sums / counts
    return colours


def _pyramid(colours: np.ndarray) -> np.ndarray:
    """Every level down to one texel; the level of n x n texels starts at n^2, float[K, 3].

    That wastes a third of the table, and spares every pixel a division.
    """
    side = colours.shape[0]
    table = np.zeros((2 * side * side, 3))
    while side:
        table[side * side : 2 * side * side] = colours.reshape(-1, 3)
        side //= 2
        colours = _resample(colours, side) if side else colours
    return table
