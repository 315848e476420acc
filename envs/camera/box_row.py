"""Intersect rays with a row of boxes along x, for corridors of many platforms.

The boxes span the same y and z. A ray enters that common range of y and z at one depth and leaves
it at another; which box it meets first in between depends on x alone. That takes five operations
per box and ray instead of about thirty.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera.primitives import FAR
from envs.camera.scene import Row

_TINY = np.float32(1e-9)
# The texture of a box begins at the box's start. Bits for the phase of the start: its place within
# a repeat of the texture.
PHASE_BITS = 8
_PHASES = 1 << PHASE_BITS
END, TOP, SIDE = range(3)
"""Faces of a box, with normals along x, z and y."""


class RowHit(NamedTuple):
    """Points where rays enter the row.

    Attributes:
        depth: float32[R], metres; `FAR` for rays that miss.
        code: int32[R], the face and, in the low `PHASE_BITS` bits, the phase of the box's start.
        length: float32[], half the mean length of the boxes, metres.
    """

    depth: jax.Array
    code: jax.Array
    length: jax.Array


def _reciprocal(x: jax.Array) -> jax.Array:
    return 1 / jnp.where(jnp.abs(x) < _TINY, _TINY, x)


def _crossing(bounds: tuple[float, float], origin: jax.Array, slope: jax.Array):
    """Return the depths at which rays enter and leave the slab between `bounds`."""
    low, high = ((np.float32(bound) - origin) * slope for bound in bounds)
    return jnp.minimum(low, high), jnp.maximum(low, high)


def row_hit(
    row: Row,
    platforms: jax.Array,
    direction: tuple[jax.Array, ...],
    origin: jax.Array,
    near: float,
) -> RowHit:
    """Return where rays first enter a box of the row.

    Args:
        row: what the boxes have in common.
        platforms: float32[P, 2], start and end of each box along x, metres. A box that does not end
            after its start is not drawn.
        direction: three of float32[R], the rays in the world's frame.
        origin: float32[3], position of the camera in the world, metres.
        near: depth below which hits do not count, metres. Boxes are not seen from inside either.
    """
    dx, dy, dz = direction
    y_enter, y_leave = _crossing(row.y, origin[1], _reciprocal(dy))
    z_enter, z_leave = _crossing(row.z, origin[2], _reciprocal(dz))
    side = jnp.maximum(y_enter, z_enter)
    enter = jnp.maximum(side, near)
    leave = jnp.minimum(y_leave, z_leave)
    # x is measured from the camera, in the direction in which the ray moves along x, so that no ray
    # enters the slab at a negative x.
    pace = jnp.abs(dx)
    x = enter * pace
    drawn = platforms[:, 1] > platforms[:, 0]
    repeats = 0.5 * row.repeats[0] * platforms[:, 0]
    phases = jnp.round(repeats * _PHASES).astype(jnp.int32) & np.int32(_PHASES - 1)
    # A ray may enter boxes that end after x. One that comes between the bounds of y and z before
    # `near` meets end faces alone from there on: its boxes have to start after x.
    within = side < near
    towards, away = platforms - origin[0], origin[0] - platforms[:, ::-1]
    ends, keys = [], []
    for span in (towards, away):
        start = jnp.where(drawn, jnp.maximum(span[:, 0], 0), FAR)
        ends.append(jnp.where(drawn, span[:, 1], -FAR))
        # The phase replaces the lowest bits of the start, which are 1/30,000 of it.
        key = jax.lax.bitcast_convert_type(start, jnp.int32)
        keys.append((key & np.int32(-_PHASES)) | phases if row.repeats[0] else key)
    forth = dx >= 0
    least = jnp.full(x.shape, FAR.view(np.int32))
    for i in range(len(platforms)):
        end = jnp.where(forth, ends[0][i], ends[1][i])
        key = jnp.where(forth, keys[0][i], keys[1][i])
        bound = jnp.where(within, jax.lax.bitcast_convert_type(key, jnp.float32), end)
        least = jnp.minimum(least, jnp.where(bound > x, key, least))
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
    """Return the normals of the faces at which rays enter, in the camera's frame.

    Args:
        face: int32[R], one of END, TOP and SIDE.
        direction: three of float32[R], the rays in the world's frame.
        frame: float32[3, 3], the camera's axes in the world, as columns.

    Returns:
        three of float32[R].
    """
    # A ray enters by a face whose normal points against it.
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
    """Return the index int32[R] of the platform that is nearest to each x float32[R], metres."""
    nearest = jnp.full(x.shape, FAR)
    index = jnp.zeros(x.shape, jnp.int32)
    for i, (start, end) in enumerate(platforms):
        gap = jnp.where(end > start, jnp.abs(jnp.clip(x, start, end) - x), FAR)
        index = jnp.where(gap < nearest, i, index)
        nearest = jnp.minimum(gap, nearest)
    return index
