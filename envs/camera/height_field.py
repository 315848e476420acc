"""Intersect rays with height fields, following each ray from cell to cell until it is below ground.

As in MuJoCo, the ground has two triangles in each cell of the grid, divided from its lower left to
its upper right corner (mjr_uploadHField, render_context.c), and walls and a bottom. A ray visits
every cell that it crosses, unless it crosses less than a thousandth of a cell at a corner. Heights
have a resolution of 1/32,512 of their range.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.camera.primitives import FAR, Hit, Primitive, Rays, dot
from envs.camera.ray_tiles import by_tiles

_TINY = np.float32(1e-9)
# Levels between the lowest and the highest point of a height field: as many as fit into 15 bits
# such that two of them are never the bits of a NaN.
_LEVELS = 0x7F00
_LOW = (1 << 16) - 1
# How far behind the edge of a cell a ray looks up the next cell, in cells.
_AHEAD = np.float32(1e-3)


@dataclasses.dataclass(frozen=True, eq=False)
class HeightFields:
    """The height fields of a scene.

    Attributes:
        cells: complex64[K], row by row, the bits of four heights, in levels, at the corners of a
            cell: lower left, lower right, upper left, upper right. All four are in one number to
            save table reads, which take most of the time; only complex64 has so many bits.
        starts: int32[A], index of the first cell of each height field.
        counts: int32[A, 2], columns and rows of the grid's points.
        bounds: float32[A, 3], half length along x and y, depth of the base, metres.
        heights: float32[A, 2], the lowest height above the geom's origin, and the range of heights,
            metres.
    """

    cells: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    bounds: np.ndarray
    heights: np.ndarray

    @classmethod
    def from_model(cls, model: mujoco.MjModel, ids: Sequence[int]) -> "HeightFields":
        """Read the height fields `ids` of `model`, with their present data."""
        cells = [np.zeros(1, np.complex64)]
        starts, counts, bounds, heights = [], [], [], []
        for i in ids:
            rows, columns = int(model.hfield_nrow[i]), int(model.hfield_ncol[i])
            first, size = int(model.hfield_adr[i]), model.hfield_size[i]
            data = model.hfield_data[first : first + rows * columns].reshape(rows, columns)
            lowest, span = float(data.min()), max(float(np.ptp(data)), 1e-6)
            starts.append(sum(map(len, cells)))
            cells.append(_packed(np.round((data - lowest) * (_LEVELS / span)).astype(np.uint32)))
            counts.append((columns, rows))
            bounds.append((size[0], size[1], size[3]))
            heights.append((lowest * size[2], span * size[2]))
        return cls(
            np.concatenate(cells),
            np.array(starts, np.int32),
            np.array(counts, np.int32).reshape(-1, 2),
            np.array(bounds, np.float32).reshape(-1, 3),
            np.array(heights, np.float32).reshape(-1, 2),
        )

    @property
    def extents(self) -> np.ndarray:
        """Half lengths float32[A, 3] of bounding boxes centred on the geoms' origins, metres."""
        high = np.maximum(self.heights.sum(1), self.bounds[:, 2])
        return np.concatenate([self.bounds[:, :2], high[:, None]], axis=1)

    def hit(self, rays: Rays, geom: Primitive) -> Hit:
        """Return where rays enter height field `geom.asset`."""
        read = lambda x: jnp.asarray(x)[geom.asset]
        counts, bounds, (lowest, span) = read(self.counts), read(self.bounds), read(self.heights)
        # In units of the grid: x and y in cells from the first column and row, z in levels from the
        # lowest point.
        last = (counts - 1).astype(jnp.float32)
        scale = jnp.append(last / (2 * bounds[:2]), _LEVELS / span)
        shift = jnp.append(last / 2, -lowest * scale[2])
        origin = -(geom.axes * geom.centre[:, None]).sum(0) * scale + shift
        dx, dy, dz = (rays.dot(geom.axes[:, i]) * scale[i] for i in range(3))
        low = jnp.append(jnp.zeros(2), -(bounds[2] + lowest) * scale[2])
        high = jnp.append(last, np.float32(_LEVELS))
        enter, leave, face = _box(origin, (dx, dy, dz), low, high)
        first = jnp.maximum(enter, rays.near)
        ground = _Ground(jnp.asarray(self.cells), read(self.starts), counts, origin)

        def search(tile: jax.Array) -> jax.Array:
            """Return the depths at which rays enter the cell where they meet the ground, or FAR."""

            def walk(depth: jax.Array) -> jax.Array:
                # Unpacked inside the loop, where it is free. The depth of a ray that is done is
                # negated: with a second array for that, XLA would copy both in each step.
                way = _Way(*tile[1:])
                cell = ground.cell(way, depth)
                before, after = ground.meets(way, depth, cell)
                onward = jnp.where(cell.until < way.leave, cell.until, -FAR)
                return jnp.where(depth > 0, jnp.where(before | after, -depth, onward), depth)

            return -jax.lax.while_loop(lambda depth: (depth > 0).any(), walk, tile[0])

        step = 1 / jnp.maximum(jnp.maximum(jnp.abs(dx), jnp.abs(dy)), 1e-6)
        inverse = (1 / jnp.where(jnp.abs(d) < _TINY, _TINY, d) for d in (dx, dy, dx - dy))
        way = _Way(leave, dx, dy, dz, _AHEAD * step, *inverse)
        # Rays that start below the ground have met a wall, or come from inside.
        below = ground.above(way, first, ground.cell(way, first)) <= 0
        wall = below & (enter > rays.near) & (first < leave)
        begin = jnp.where((first < leave) & ~below, first, -FAR)
        depth = by_tiles(search, _width(rays), jnp.stack([begin, *way]))
        there, across, along = ground.meeting(way, depth)
        depth = jnp.where(wall, enter, jnp.where(depth < FAR, there, FAR))
        tilt = -across * scale[0] / scale[2], -along * scale[1] / scale[2]
        length = jax.lax.rsqrt(1 + tilt[0] ** 2 + tilt[1] ** 2)
        up = tilt[0] * length, tilt[1] * length, length
        out = [jnp.where(face == i, -jnp.sign(d), 0) for i, d in enumerate((dx, dy, dz))]
        normal = [jnp.where(wall, o, u) for o, u in zip(out, up, strict=True)]
        return Hit(depth, tuple(dot(geom.axes[k], normal) for k in range(3)))


class _Way(NamedTuple):
    """Rays over the grid, in units of the grid; all float32[...].

    Attributes:
        leave: depth at which they leave the grid's box, metres.
        dx: change of x per metre of depth.
        dy: change of y per metre of depth.
        dz: change of z per metre of depth.
        ahead: depth by which they look ahead for the next cell, metres.
        inverse_x: 1 / dx.
        inverse_y: 1 / dy.
        inverse_turn: 1 / (dx - dy).
    """

    leave: jax.Array
    dx: jax.Array
    dy: jax.Array
    dz: jax.Array
    ahead: jax.Array
    inverse_x: jax.Array
    inverse_y: jax.Array
    inverse_turn: jax.Array


class _Cell(NamedTuple):
    """The cells that rays are in; all float32[...].

    Attributes:
        x: position of the camera from the cell's lower left corner, in cells.
        y: the same along y.
        corners: heights of the four corners, in levels.
        until: depth at which the ray leaves the cell, metres.
        diagonal: depth at which it crosses the diagonal, metres.
    """

    x: jax.Array
    y: jax.Array
    corners: tuple[jax.Array, ...]
    until: jax.Array
    diagonal: jax.Array

    def slopes(self, upper: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the slopes along x and y of the upper left triangle, or of the lower right one."""
        a, b, c, d = self.corners
        return jnp.where(upper, d - c, b - a), jnp.where(upper, c - a, d - b)


class _Ground(NamedTuple):
    """One height field, and the position of the camera in its grid.

    Attributes:
        cells: complex64[K], `HeightFields.cells`.
        start: int32[], index of its first cell.
        counts: int32[2], columns and rows of points.
        origin: float32[3], the camera, in units of the grid.
    """

    cells: jax.Array
    start: jax.Array
    counts: jax.Array
    origin: jax.Array

    def cell(self, way: _Way, depth: jax.Array) -> _Cell:
        """Return the cells that rays enter at `depth`."""
        # Looked up a little further on, so that rounding cannot keep a ray on an edge.
        inside = depth + way.ahead
        column, row = (
            jnp.floor(jnp.clip(self.origin[i] + inside * d, 0, self.counts[i] - 2))
            for i, d in enumerate((way.dx, way.dy))
        )
        at = self.start + row.astype(jnp.int32) * self.counts[0] + column.astype(jnp.int32)
        four = self.cells.at[at].get(mode="promise_in_bounds")
        corners: list[jax.Array] = []
        for half in (four.real, four.imag):
            pair = jax.lax.bitcast_convert_type(half, jnp.int32)
            corners += [pair & _LOW, pair >> 16]
        x, y = self.origin[0] - column, self.origin[1] - row
        edges = ((way.dx > 0) - x) * way.inverse_x, ((way.dy > 0) - y) * way.inverse_y
        return _Cell(
            x,
            y,
            tuple(corner.astype(jnp.float32) for corner in corners),
            jnp.maximum(jnp.minimum(*edges), inside),
            (y - x) * way.inverse_turn,
        )

    def above(self, way: _Way, depth: jax.Array, cell: _Cell) -> jax.Array:
        """Return how far rays are above the ground of `cell` at `depth`, in levels."""
        right, up = cell.x + depth * way.dx, cell.y + depth * way.dy
        across, along = cell.slopes(up > right)
        return self.origin[2] + depth * way.dz - (cell.corners[0] + right * across + up * along)

    def meets(self, way: _Way, depth: jax.Array, cell: _Cell) -> tuple[jax.Array, jax.Array]:
        """Return whether rays are below the ground at the diagonal, and at the cell's far edge."""
        after = self.above(way, jnp.minimum(cell.until, way.leave), cell) < 0
        right = cell.x + cell.diagonal * way.dx
        a, _, _, d = cell.corners
        before = self.origin[2] + cell.diagonal * way.dz < a + right * (d - a)
        return before & (cell.diagonal > depth) & (cell.diagonal < cell.until), after

    def meeting(self, way: _Way, depth: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return where rays meet the ground of the cell that they enter at `depth`.

        Returns:
            the depth, metres, and the slopes along x and y there, in levels per cell.
        """
        cell = self.cell(way, depth)
        before, _ = self.meets(way, depth, cell)
        # Which triangle: the one below the middle of the part in which the ray meets the ground.
        until = jnp.minimum(cell.until, way.leave)
        part = jnp.clip(cell.diagonal, depth, until)
        middle = 0.5 * (part + jnp.where(before, depth, until))
        across, along = cell.slopes(cell.y + middle * way.dy > cell.x + middle * way.dx)
        over = self.origin[2] - cell.corners[0] - cell.x * across - cell.y * along
        rise = way.dz - way.dx * across - way.dy * along
        return jnp.clip(-over / jnp.minimum(rise, -_TINY), depth, until), across, along


def _packed(levels: np.ndarray) -> np.ndarray:
    """Pack heights uint32[rows, columns] into cells complex64[rows * columns].

    The last cell of each row and of each column is unused.
    """
    pairs = levels | np.roll(levels, -1, axis=1) << 16
    return np.stack([pairs, np.roll(pairs, -1, axis=0)], axis=-1).view(np.complex64).ravel()


def _width(rays: Rays) -> int:
    """Return the width of the image that `rays`, which are constants of a program, belong to."""
    below = np.flatnonzero(np.asarray(rays.v) != rays.v[0])
    return int(below[0]) if len(below) else len(rays.v)


def _box(origin, direction, low, high):
    """Return the depths at which rays enter and leave a box, and the axis of the face of entry."""
    enter, leave = [], []
    for i, d in enumerate(direction):
        slope = 1 / jnp.where(jnp.abs(d) < _TINY, _TINY, d)
        ends = (low[i] - origin[i]) * slope, (high[i] - origin[i]) * slope
        enter.append(jnp.minimum(*ends))
        leave.append(jnp.maximum(*ends))
    first = jnp.maximum(jnp.maximum(enter[0], enter[1]), enter[2])
    last = jnp.minimum(jnp.minimum(leave[0], leave[1]), leave[2])
    face = jnp.where(enter[2] >= first, 2, jnp.where(enter[1] >= first, 1, 0))
    return first, last, face
