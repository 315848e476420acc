"""Colours of surfaces and of the sky: one flat table of texels that a pixel reads once.

A texture is stored as a pyramid of ever coarser squares (Williams 1983, "Pyramidal parametrics"),
so that a far pixel reads the mean of what it covers; a plain colour is a texture of one texel. The
sky is a cube of six squares at the one size that suits a camera.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# The longest side of a texture, and of a face of the sky, that is kept; powers of two.
_LARGEST = 512
# What a texel takes from each neighbour. MuJoCo mixes the four texels around a point on each of two
# levels, and a pixel here reads one; with 0.15, dm_control's grass agrees best at most distances.
_SHARE = 0.15
# The level of detail is rounded up from a quarter on, a factor of 2^(2 * 0.75) in the area: a pixel
# that reads one texel is calmer for reading a larger one.
_ROUNDING = np.float32(2**1.5)


def low_bits(x: jax.Array) -> jax.Array:
    """The low 22 bits, in two's complement, of the integer nearest x; for |x| < 2^22.

    Adding 1.5 * 2^23 leaves them in the mantissa. XLA's own conversion saturates and looks for
    NaN, at six times the cost.
    """
    shifted = x + np.float32(1.5 * 2**23)
    return jax.lax.bitcast_convert_type(shifted, jnp.int32) & np.int32((1 << 22) - 1)


def low_bits_of_floor(x: jax.Array) -> jax.Array:
    """The low 19 bits of the greatest integer not above x + 1/16; for |x| < 2^19.

    By way of the nearest eighth: XLA adds up constants, and half of one taken from x would be lost
    in the large number that `low_bits` adds.
    """
    return low_bits(8 * x) >> 3


@dataclasses.dataclass(frozen=True)
class Surface:
    """Where a surface's texels lie.

    Attributes:
        start: of its pyramid in the table.
        side: texels along the finest square, a power of two.
    """

    start: int
    side: int


class Coordinates(NamedTuple):
    """Where on a texture pixels fall, if they show it.

    Attributes:
        across: float32[R], in repeats of the texture, from its left.
        down: float32[R], in repeats, from its top.
        area: float32[R], the square of the longest extent of a pixel, in repeats.
    """

    across: jax.Array
    down: jax.Array
    area: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Palette:
    """The surfaces of a scene, and its sky.

    Attributes:
        texels: uint32[K], red in the lowest byte, then green and blue.
        surfaces: what lies where.
        sky: float[6, S, S, 3] in [0, 1], the faces right, left, up, down, front, back of a cube
            as OpenGL has them, S a power of two.
    """

    texels: np.ndarray
    surfaces: tuple[Surface, ...]
    sky: np.ndarray

    @classmethod
    def from_textures(cls, textures: list[np.ndarray], sky: np.ndarray) -> "Palette":
        """Builds the table.

        Args:
            textures: for each surface its colours, float[H, W, 3] in [0, 1]; plain colours, of
              one texel, before all others.
            sky: float[6, N, N, 3] in [0, 1].
        """
        tables, start = [np.zeros((1, 3))], 1
        known: dict[bytes, Surface] = {}
        surfaces = []
        for colours in textures:
            name = colours.tobytes()
            # Plain colours are not shared: `index` counts on their order.
            if _side(colours) == 1 or name not in known:
                pyramid = _pyramid(_resample(colours, _side(colours)))
                known[name] = Surface(start, _side(colours))
                tables.append(pyramid)
                start += len(pyramid)
            surfaces.append(known[name])
        faces = np.stack([_resample(face, _side(face)) for face in sky])
        return cls(_packed(np.concatenate(tables)), tuple(surfaces), faces)

    def index(self, surface: jax.Array, where: Coordinates | None) -> jax.Array:
        """Finds the texel that a pixel reads.

        Args:
            surface: int32[R], which one is seen.
            where: on its texture, of pixels that show one; anything for others.

        Returns:
            int32[R], of the table that `read` reads.
        """
        # The texel of plain colour i comes at 2 i + 2: black is before it, and one is wasted each.
        index = 2 * surface + 2
        sides = [place.side for place in self.surfaces]
        plain = next((i for i, side in enumerate(sides) if side > 1), len(sides))
        textured = sorted({(place.start, place.side) for place in self.surfaces[plain:]})
        if where is None or not textured:
            return index
        if len(textured) == 1:
            ((start, side),) = textured
            texel = start + _texel(side.bit_length() - 1, where)
        else:
            at = lambda x: jnp.asarray(x).at[surface].get(mode="promise_in_bounds")
            starts = at(np.array([place.start for place in self.surfaces], np.int32))
            texel = starts + _texel(at(np.log2(sides).astype(np.int32)), where)
        return jnp.where(surface >= plain, texel, index)

    def sky_index(self, direction: tuple[jax.Array, ...], pixel: float) -> jax.Array:
        """Finds the texel of the sky that a pixel reads.

        Args:
            direction: three of float32[R], in the world's frame, of any length.
            pixel: how wide a pixel is, radians.

        Returns:
            int32[R], of the table that `read` reads with the same `pixel`.
        """
        side = self._sky_side(pixel)
        if not self.sky.any():
            return jnp.zeros((), jnp.int32)
        # MuJoCo turns the cube: its y axis is the world's z axis.
        x, y, z = direction[0], direction[2], -direction[1]
        size = [jnp.abs(a) for a in (x, y, z)]
        on_x = (size[0] >= size[1]) & (size[0] >= size[2])
        on_y = size[1] >= size[2]
        # OpenGL's table of the faces of a cube map (OpenGL 2.1 specification, table 3.19).
        pick = lambda a, b, c: jnp.where(on_x, a, jnp.where(on_y, b, c))
        major = pick(x, y, z)
        face = pick(0, 2, 4) + (major < 0)
        across = pick(jnp.where(x < 0, z, -z), x, jnp.where(z < 0, -x, x))
        down = pick(-y, jnp.where(y < 0, -z, z), -y)
        # A little less than half, so that no edge rounds to the next face.
        scale = np.float32(0.5 * side - 0.125) / jnp.abs(major)
        column, row = (
            low_bits_of_floor(a * scale + np.float32(0.5 * side)) for a in (across, down)
        )
        return len(self.texels) + (face * side + row) * side + column

    def read(self, index: jax.Array, pixel: float) -> jax.Array:
        """Returns int32[R], the texels at `index` int32[R] of the surfaces and then of the sky."""
        side = self._sky_side(pixel)
        sky = np.stack([_soft(_resample(face, side), "edge") for face in self.sky])
        table = np.concatenate([self.texels, _packed(sky.reshape(-1, 3))])
        texels = jnp.asarray(table.view(np.int32))
        return in_parts(lambda i: texels.at[i].get(mode="promise_in_bounds"), index)

    def _sky_side(self, pixel: float) -> int:
        # A face is two units wide, seen from one unit away.
        return min(self.sky.shape[1], max(1, 1 << round(np.log2(2 / pixel))))


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


def _texel(levels: int | jax.Array, where: Coordinates) -> jax.Array:
    """The texel, from the start of a pyramid whose finest square has a side of 2^levels."""
    side = jnp.left_shift(1, levels)
    # Half the binary exponent of the area in texels is the level whose texels are as large.
    size = side.astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(where.area * (_ROUNDING * size * size), jnp.int32)
    level = jnp.clip(((bits >> 23) - 127) >> 1, 0, levels)
    across, down = (low_bits_of_floor(x * size) & (side - 1) for x in (where.across, where.down))
    here = side >> level
    return here * here + (down >> level) * here + (across >> level)


def _side(colours: np.ndarray) -> int:
    return min(_LARGEST, 1 << (min(colours.shape[:2]).bit_length() - 1))


def _packed(colours: np.ndarray) -> np.ndarray:
    """uint32[K] of float[K, 3] in [0, 1]."""
    levels = np.round(np.clip(colours, 0, 1) * 255).astype(np.uint32)
    return levels @ np.array([1, 1 << 8, 1 << 16], np.uint32)


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
        table[side * side : 2 * side * side] = _soft(colours, "wrap").reshape(-1, 3)
        side //= 2
        colours = _resample(colours, side) if side else colours
    return table


def _soft(colours: np.ndarray, mode: Literal["wrap", "edge"]) -> np.ndarray:
    """Each texel with a share of its neighbours: what reading between texels gives on average."""
    for axis in range(2):
        pad = [(1, 1) if i == axis else (0, 0) for i in range(3)]
        wide = np.pad(colours, pad, mode=mode)
        number = np.arange(colours.shape[axis])
        around = np.take(wide, number, axis) + np.take(wide, number + 2, axis)
        colours = (1 - 2 * _SHARE) * colours + _SHARE * around
    return colours
