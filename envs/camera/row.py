"""A row of boxes along x as one primitive, for corridors of many platforms.

The boxes share their extents in y and z, so a ray crosses their common slab once, between two
depths, and what is left is one-dimensional: which box is the first at or after the point of entry?
That is five operations per box and ray instead of some thirty.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera.primitives import FAR
from envs.camera.scene import Row

_TINY = np.float32(1e-9)
# A box's texture begins at the box's start; so many bits say where that is within a repeat.
PHASE_BITS = 8
_PHASES = 1 << PHASE_BITS
END, TOP, SIDE = range(3)
"""Faces of a box, across x, z and y."""


class RowHit(NamedTuple):
    """Where rays enter the row.

    Attributes:
        depth: float32[R], `FAR` for a miss.
        code: int32[R], the face and then, in `PHASE_BITS` bits, where in a repeat of the texture
            the start of the box is.
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
    y_enter, y_leave = _crossing(row.y, origin[1], _reciprocal(dy))
    z_enter, z_leave = _crossing(row.z, origin[2], _reciprocal(dz))
    side = jnp.maximum(y_enter, z_enter)
    enter = jnp.maximum(side, near)
    leave = jnp.minimum(y_leave, z_leave)
    # Along the ray's own way in x, from the camera: so no ray enters the slab at less than 0.
    pace = jnp.abs(dx)
    x = enter * pace
    drawn = platforms[:, 1] > platforms[:, 0]
    repeats = 0.5 * row.repeats[0] * platforms[:, 0]
    phases = jnp.round(repeats * _PHASES).astype(jnp.int32) & np.int32(_PHASES - 1)
    # A box is entered that ends after x; inside the slab, where its face is to be met, starts so.
    inside = jnp.bool_(True)
    for at, (low, high) in zip(origin[1:], (row.y, row.z), strict=True):
        inside &= (np.float32(low) <= at) & (at <= np.float32(high))
    towards, away = platforms - origin[0], origin[0] - platforms[:, ::-1]
    ends, keys = [], []
    for span in (towards, away):
        start = jnp.maximum(span[:, 0], 0)
        ends.append(jnp.where(drawn, jnp.where(inside, start, span[:, 1]), -FAR))
        # The lowest bits of the start, a thirty-thousandth of it, give way to the texture's phase.
        key = jax.lax.bitcast_convert_type(start, jnp.int32)
        keys.append((key & np.int32(-_PHASES)) | phases if row.repeats[0] else key)
    forth = dx >= 0
    least = jnp.full(x.shape, FAR.view(np.int32))
    for i in range(len(platforms)):
        end = jnp.where(forth, ends[0][i], ends[1][i])
        key = jnp.where(forth, keys[0][i], keys[1][i])
        least = jnp.minimum(least, jnp.where(end > x, key, least))
    start = jax.lax.bitcast_convert_type(least, jnp.float32)
    ahead = jnp.maximum(start - x, 0) * _reciprocal(pace)
    depth = enter + ahead
    hit = (least < FAR.view(np.int32)) & (depth < leave) & (depth > near)
    face = jnp.where(ahead > 0, END, jnp.where(z_enter > y_enter, TOP, SIDE))
    phase = least & np.int32(_PHASES - 1)
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
