"""Keep the colours of all surfaces and of the sky in one table, of which a pixel reads one texel.

Each texture is stored as a pyramid of ever coarser squares (a mipmap: Williams 1983, "Pyramidal
parametrics"), so that a distant pixel reads the mean colour of the area that it covers. A plain
colour is a texture of one texel. The sky is a cube of six squares, kept only at the size that fits
the camera's pixels.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera.batching import in_parts
from envs.camera.rounding import low_bits_of_floor

# The longest side that is kept of a texture and of a face of the sky, texels; a power of two.
_LARGEST = 512
# The share of each neighbour in a texel. MuJoCo mixes the four texels around a point on each of two
# levels, while a pixel here reads one; dm_control's grass agrees best with 0.15 at most distances.
_SHARE = 0.15
# The level of detail is rounded up from a quarter on, which is a factor of 2^(2 * 0.75) in area:
# reading one coarser texel flickers less.
_ROUNDING = np.float32(2**1.5)


@dataclasses.dataclass(frozen=True)
class Surface:
    """The texels of one surface.

    Attributes:
        start: index of its pyramid in the table.
        side: texels along the finest square, a power of two.
    """

    start: int
    side: int


class Coordinates(NamedTuple):
    """Texture coordinates of pixels.

    Attributes:
        across: float32[R], in repeats of the texture, from its left.
        down: float32[R], in repeats, from its top.
        area: float32[R], the squared length of the longer side of a pixel on the texture, in
            repeats squared.
    """

    across: jax.Array
    down: jax.Array
    area: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class TextureAtlas:
    """The texels of all surfaces of a scene, and its sky.

    Attributes:
        texels: uint32[K], red in the lowest byte, then green and blue.
        surfaces: plain colours first, then textures.
        sky: float[6, S, S, 3] in [0, 1], the faces right, left, up, down, front, back of a cube
            as OpenGL has them, S a power of two.
    """

    texels: np.ndarray
    surfaces: tuple[Surface, ...]
    sky: np.ndarray

    @classmethod
    def from_textures(cls, textures: list[np.ndarray], sky: np.ndarray) -> "TextureAtlas":
        """Build the table.

        Args:
            textures: the colours of each surface, float[H, W, 3] in [0, 1]; plain colours, of one
              texel, before all others.
            sky: float[6, N, N, 3] in [0, 1].
        """
        tables, start = [np.zeros((1, 3))], 1
        known: dict[bytes, Surface] = {}
        surfaces = []
        for colours in textures:
            name = colours.tobytes()
            # Equal plain colours are kept apart: `index` computes where they are.
            if _side(colours) == 1 or name not in known:
                pyramid = _pyramid(_resample(colours, _side(colours)))
                known[name] = Surface(start, _side(colours))
                tables.append(pyramid)
                start += len(pyramid)
            surfaces.append(known[name])
        faces = np.stack([_resample(face, _side(face)) for face in sky])
        return cls(_packed(np.concatenate(tables)), tuple(surfaces), faces)

    def index(self, surface: jax.Array, where: Coordinates | None) -> jax.Array:
        """Find the texels that pixels read.

        Args:
            surface: int32[R], the surface that each pixel shows.
            where: texture coordinates, which are ignored for pixels that show a plain colour; None
              if no surface has a texture.

        Returns:
            int32[R], indices into the table that `read` reads.
        """
        # Texel 0 is black. A pyramid of one texel takes two entries, so colour i is at 2 i + 2.
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
        """Find the texels of the sky that pixels read.

        Args:
            direction: three of float32[R], in the world's frame, of any length.
            pixel: the width of a pixel, radians.

        Returns:
            int32[R], indices into the table that `read` reads with the same `pixel`.
        """
        side = self._sky_side(pixel)
        if not self.sky.any():
            return jnp.zeros((), jnp.int32)
        # The cube's y axis is the world's z axis in MuJoCo.
        x, y, z = direction[0], direction[2], -direction[1]
        size = [jnp.abs(a) for a in (x, y, z)]
        on_x = (size[0] >= size[1]) & (size[0] >= size[2])
        on_y = size[1] >= size[2]
        # The faces of a cube map (OpenGL 2.1 specification, table 3.19).
        pick = lambda a, b, c: jnp.where(on_x, a, jnp.where(on_y, b, c))
        major = pick(x, y, z)
        face = pick(0, 2, 4) + (major < 0)
        across = pick(jnp.where(x < 0, z, -z), x, jnp.where(z < 0, -x, x))
        down = pick(-y, jnp.where(y < 0, -z, z), -y)
        # Scaled to a little less than half a face, so that no edge is rounded to the next face.
        scale = np.float32(0.5 * side - 0.125) / jnp.abs(major)
        column, row = (
            low_bits_of_floor(a * scale + np.float32(0.5 * side)) for a in (across, down)
        )
        return len(self.texels) + (face * side + row) * side + column

    def read(self, index: jax.Array, pixel: float) -> jax.Array:
        """Return the texels int32[R] at `index` int32[R]; the sky's come after `texels`."""
        side = self._sky_side(pixel)
        sky = np.stack([_soften(_resample(face, side), "edge") for face in self.sky])
        table = np.concatenate([self.texels, _packed(sky.reshape(-1, 3))])
        texels = jnp.asarray(table.view(np.int32))
        return in_parts(lambda i: texels.at[i].get(mode="promise_in_bounds"), index)

    def _sky_side(self, pixel: float) -> int:
        # A face is two units wide at a distance of one unit.
        return min(self.sky.shape[1], max(1, 1 << round(np.log2(2 / pixel))))


def _texel(levels: int | jax.Array, where: Coordinates) -> jax.Array:
    """Return indices into a pyramid whose finest square has 2^levels texels along a side."""
    side = jnp.left_shift(1, levels)
    # The level whose texels are as large as the pixel is half the binary exponent of the pixel's
    # area in texels of the finest level.
    size = side.astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(where.area * (_ROUNDING * size * size), jnp.int32)
    level = jnp.clip(((bits >> 23) - 127) >> 1, 0, levels)
    across, down = (low_bits_of_floor(x * size) & (side - 1) for x in (where.across, where.down))
    here = side >> level
    return here * here + (down >> level) * here + (across >> level)


def _side(colours: np.ndarray) -> int:
    return min(_LARGEST, 1 << (min(colours.shape[:2]).bit_length() - 1))


def _packed(colours: np.ndarray) -> np.ndarray:
    """Return uint32[K] of float[K, 3] in [0, 1]."""
    levels = np.round(np.clip(colours, 0, 1) * 255).astype(np.uint32)
    return levels @ np.array([1, 1 << 8, 1 << 16], np.uint32)


def _resample(colours: np.ndarray, side: int) -> np.ndarray:
    """Return the means over a grid of side x side cells."""
    for axis in range(2):
        edges = np.linspace(0, colours.shape[axis], side + 1).astype(int)
        sums = np.add.reduceat(colours, edges[:-1], axis=axis)
        counts = np.diff(edges).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
        colours = sums / counts
    return colours


def _pyramid(colours: np.ndarray) -> np.ndarray:
    """Return all levels down to one texel, float[K, 3]; the level of n x n texels starts at n^2.

    That leaves a third of the table unused and saves every pixel a division.
    """
    side = colours.shape[0]
    table = np.zeros((2 * side * side, 3))
    while side:
        table[side * side : 2 * side * side] = _soften(colours, "wrap").reshape(-1, 3)
        side //= 2
        colours = _resample(colours, side) if side else colours
    return table


def _soften(colours: np.ndarray, mode: Literal["wrap", "edge"]) -> np.ndarray:
    """Mix each texel with its neighbours, as interpolation between texels does on average."""
    for axis in range(2):
        pad = [(1, 1) if i == axis else (0, 0) for i in range(3)]
        wide = np.pad(colours, pad, mode=mode)
        number = np.arange(colours.shape[axis])
        around = np.take(wide, number, axis) + np.take(wide, number + 2, axis)
        colours = (1 - 2 * _SHARE) * colours + _SHARE * around
    return colours
