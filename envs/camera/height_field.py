"""Height fields: rays march over the grid until they are below the ground, then close in on it.

The ground is MuJoCo's own: two triangles in each cell of the grid, cut from its lower left to its
upper right corner (mjr_uploadHField, render_context.c), with walls and a bottom.

Error: a ray looks at the ground once per cell, or once per pixel where a pixel at its distance is
wider than a cell. A ridge that it enters and leaves between two looks is missed: at most one cell
of width, or one pixel of the picture. What it finds is right to 1/32 of such a step, and exactly
where the step lies within one triangle.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.camera.chunks import by_chunks
from envs.camera.primitives import FAR, Hit, Primitive, Rays

_TINY = np.float32(1e-9)
_BISECTIONS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class HeightFields:
    """The height fields of a scene.

    Attributes:
        heights: float32[K], all of them, row by row, metres above the geom's origin.
        starts: int32[A], where each begins in `heights`.
        counts: int32[A, 2], columns and rows.
        bounds: float32[A, 4], half length along x and y, greatest height, depth of the base,
            metres.
    """

    heights: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    bounds: np.ndarray

    @classmethod
    def from_model(cls, model: mujoco.MjModel, ids: Sequence[int]) -> "HeightFields":
        """Reads the height fields `ids` of `model`, with the data that they have now."""
        heights: list[np.ndarray] = []
        starts, counts, bounds = [], [], []
        for i in ids:
            rows, columns = int(model.hfield_nrow[i]), int(model.hfield_ncol[i])
            start, size = int(model.hfield_adr[i]), model.hfield_size[i]
            data = model.hfield_data[start : start + rows * columns] * size[2]
            starts.append(sum(map(len, heights)))
            heights.append(data)
            counts.append((columns, rows))
            bounds.append((size[0], size[1], max(float(data.max()), 1e-6), size[3]))
        return cls(
            np.concatenate([*heights, np.zeros(1)]).astype(np.float32),
            np.array(starts, np.int32),
            np.array(counts, np.int32).reshape(-1, 2),
            np.array(bounds, np.float32).reshape(-1, 4),
        )

    @property
    def extents(self) -> np.ndarray:
        """float32[A, 3], half lengths of boxes around them, centred on the geom's origin, m."""
        high = self.bounds[:, 2:].max(1, keepdims=True, initial=0)
        return np.concatenate([self.bounds[:, :2], high], axis=1)

    def hit(self, rays: Rays, geom: Primitive) -> Hit:
        """Where rays enter height field `geom.asset`."""
        counts = jnp.asarray(self.counts)[geom.asset]
        bounds = jnp.asarray(self.bounds)[geom.asset]
        start = jnp.asarray(self.starts)[geom.asset]
        last = (counts - 1).astype(jnp.float32)
        # x and y are in cells from the first column and row, z in metres.
        scale = jnp.append(last / (2 * bounds[:2]), 1.0)
        shift = jnp.append(last / 2, 0.0)
        local = -(geom.axes * geom.centre[:, None]).sum(0)
        origin = local * scale + shift
        towards = [rays.dot(geom.axes[:, i]) * scale[i] for i in range(3)]
        low = jnp.append(jnp.zeros(2), -bounds[3])
        high = jnp.append(last, bounds[2])
        spread = np.float32(abs(rays.u[1] - rays.u[0]) if len(rays.u) > 1 else 0)
        heights = jnp.asarray(self.heights)

        def corners(x, y):
            """Heights around points of the grid, and where in their cell the points are."""
            column = jnp.clip(x, 0, last[0] - 1).astype(jnp.int32)
            row = jnp.clip(y, 0, last[1] - 1).astype(jnp.int32)
            at = start + row * counts[0] + column
            read = lambda i: heights.at[i].get(mode="promise_in_bounds")
            around = read(at), read(at + 1), read(at + counts[0]), read(at + counts[0] + 1)
            return around, x - column, y - row

        def slopes(x, y):
            (a, b, c, d), right, up = corners(x, y)
            upper = up >= right
            across, along = jnp.where(upper, d - c, b - a), jnp.where(upper, c - a, d - b)
            return a + right * across + up * along, across, along

        def above(depth, dx, dy, dz):
            """How far the points at `depth` are above the ground, metres."""
            ground, _, _ = slopes(origin[0] + depth * dx, origin[1] + depth * dy)
            return origin[2] + depth * dz - ground

        def search(dx, dy, dz):
            enter, leave, face = _box(origin, (dx, dy, dz), low, high)
            first = jnp.maximum(enter, rays.near)
            met = first < leave
            inside = above(first, dx, dy, dz) <= 0
            wall = met & inside & (enter > rays.near)
            cell = 1 / jnp.maximum(jnp.maximum(jnp.abs(dx), jnp.abs(dy)), 1e-6)

            def searching(state):
                return state[2].any()

            def march(state):
                depth, before, active = state
                after = jnp.minimum(depth + jnp.maximum(cell, spread * depth), leave)
                below = above(after, dx, dy, dz) < 0
                # Once below, `before` stays behind as the last point above the ground.
                before = jnp.where(active, depth, before)
                depth = jnp.where(active, after, depth)
                return depth, before, active & ~below & (after < leave)

            start_at = (first, first, met & ~inside)
            far, near, _ = jax.lax.while_loop(searching, march, start_at)
            sunk = met & ~inside & (above(far, dx, dy, dz) < 0)

            def halve(_, ends):
                near, far = ends
                middle = 0.5 * (near + far)
                below = above(middle, dx, dy, dz) < 0
                return jnp.where(below, near, middle), jnp.where(below, middle, far)

            near, far = jax.lax.fori_loop(0, _BISECTIONS, halve, (near, far))
            over, under = above(near, dx, dy, dz), -above(far, dx, dy, dz)
            depth = near + (far - near) * over / jnp.maximum(over + under, _TINY)
            depth = jnp.where(wall, enter, depth)
            _, across, along = slopes(origin[0] + depth * dx, origin[1] + depth * dy)
            slope = -across * scale[0], -along * scale[1]
            length = jax.lax.rsqrt(1 + slope[0] ** 2 + slope[1] ** 2)
            ground = (slope[0] * length, slope[1] * length, length)
            side = [
                jnp.where(d < 0, np.float32(1), np.float32(-1)) * (face == i)
                for i, d in enumerate((dx, dy, dz))
            ]
            normal = [jnp.where(wall, s, g) for s, g in zip(side, ground, strict=True)]
            return jnp.where(wall | sunk, depth, FAR), *normal

        depth, *normal = by_chunks(search, *towards)
        turned = tuple(sum(geom.axes[k, i] * n for i, n in enumerate(normal)) for k in range(3))
        return Hit(depth, turned)


def _box(origin, direction, low, high):
    """Depths at which rays enter and leave a box, and the axis of the face of entry."""
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
