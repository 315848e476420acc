"""A row of boxes along x as one primitive, for corridors of many platforms.

The boxes share their extents in y and z, so a ray crosses their common slab once, between two
depths, and what is left is one-dimensional: which box is the first at or after the point of entry?
That is some ten operations per box and ray instead of some thirty.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera.primitives import FAR
from envs.camera.scene import Row

_TINY = np.float32(1e-9)
# A box's texture begins at the box's middle; so many bits say where that is within a repeat.
PHASE_BITS = 8
_PHASES = 1 << PHASE_BITS
END, TOP, SIDE = range(3)
"""Faces of a box, across x, z and y."""


class RowHit(NamedTuple):
    """Where rays enter the row.

    Attributes:
        depth: float32[R], `FAR` for a miss.
        code: int32[R], the face and then, in `PHASE_BITS` bits, where in a repeat of the texture
            the middle of the box is.
        length: float32[], half the mean length of the boxes, metres.
    """

    depth: jax.Array
    code: jax.Array
    length: jax.Array


def _reciprocal(x: jax.Array) -> jax.Array:
    return 1 / jnp.where(jnp.abs(x) < _TINY, _TINY, x)


def _crossing(bounds: tuple[float, float], origin: jax.Array, slope: jax.Array):
    """Depths at which the ray enters and leaves the slab between `bounds`."""
    low, high = ((np.float32(bound) - origin) * slope for bound in bounds)
    return jnp.minimum(low, high), jnp.maximum(low, high)


def row_hit(
    row: Row,
    platforms: jax.Array,
    direction: tuple[jax.Array, ...],
    origin: jax.Array,
    near: float,
) -> RowHit:
    """Where rays first enter a box of the row.

    Args:
        row: the common extents.
        platforms: float32[P, 2], start and end in x; not drawn unless it ends after its start.
        direction: three of float32[R], the rays in the world's frame.
        origin: float32[3], the camera in the world's frame, metres.
        near: metres; the row seen from inside, or nearer than that, is not drawn.
    """
    dx, dy, dz = direction
    slope = _reciprocal(dx)
    y_enter, y_leave = _crossing(row.y, origin[1], _reciprocal(dy))
    z_enter, z_leave = _crossing(row.z, origin[2], _reciprocal(dz))
    side = jnp.maximum(y_enter, z_enter)
    enter = jnp.maximum(side, near)
    leave = jnp.minimum(y_leave, z_leave)
    x = origin[0] + enter * dx
    # A ray that enters the slab within a box enters that box, unless the camera is inside it.
    # Distances behind come out negative, which as unsigned integers are larger than any ahead.
    inside = jnp.where(side <= near, np.float32(-1e-6), np.float32(1e-30))
    drawn = platforms[:, 1] > platforms[:, 0]
    starts, ends = (jnp.where(drawn, platforms[:, i], FAR) for i in range(2))
    # The lowest bits of a distance, a thirty-thousandth of it, give way to the texture's phase.
    repeats = 0.5 * row.repeats[0] * platforms.mean(1)
    phases = (repeats % 1 * _PHASES).astype(jnp.uint32)
    mask = np.uint32(0xFFFFFFFF - (_PHASES - 1))
    least = jnp.full(x.shape, np.uint32(0x7F000000))
    for start, end, phase in zip(starts, ends, phases, strict=True):
        ahead = (jnp.clip(x, start, end) - x) * slope + inside
        key = jax.lax.bitcast_convert_type(ahead, jnp.uint32)
        least = jnp.minimum(least, (key & mask) | phase if row.repeats[0] else key)
    ahead = jax.lax.bitcast_convert_type(least, jnp.float32)
    depth = enter + ahead
    hit = (depth < leave) & (depth > near)
    face = jnp.where(ahead > 1e-20, END, jnp.where(z_enter > y_enter, TOP, SIDE))
    phase = jax.lax.bitcast_convert_type(least, jnp.int32) & np.int32(_PHASES - 1)
    lengths = jnp.where(drawn, platforms[:, 1] - platforms[:, 0], 0)
    length = 0.5 * lengths.sum() / jnp.maximum(drawn.sum(), 1)
    return RowHit(jnp.where(hit, depth, FAR), (face << PHASE_BITS) | phase, length)


def row_normal(
    face: jax.Array, direction: tuple[jax.Array, ...], frame: jax.Array
) -> tuple[jax.Array, ...]:
    """Normals of faces int32[R] in the camera's frame, three of float32[R].

    `direction` and `frame` are those of `row_hit`. A ray enters by a face that looks against it.
    """
    towards = [jnp.where(d < 0, np.float32(1), np.float32(-1)) for d in direction]
    return tuple(
        jnp.where(
            face == END,
            towards[0] * frame[0, k],
            jnp.where(face == TOP, towards[2] * frame[2, k], towards[1] * frame[1, k]),
        )
        for k in range(3)
    )


def row_index(platforms: jax.Array, x: jax.Array) -> jax.Array:
    """The number int32[R] of the platform nearest each x float32[R]."""
    nearest = jnp.full(x.shape, FAR)
    index = jnp.zeros(x.shape, jnp.int32)
    for i, (start, end) in enumerate(platforms):
        gap = jnp.where(end > start, jnp.abs(jnp.clip(x, start, end) - x), FAR)
        index = jnp.where(gap < nearest, i, index)
        nearest = jnp.minimum(gap, nearest)
    return index
