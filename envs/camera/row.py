"""A row of boxes along x as one primitive, for corridors of many platforms.

The boxes share their extents in y and z, so a ray crosses their common slab once, between two
depths, and what is left is one-dimensional: which box is the first at or after the point of entry?
That is seven operations per box and ray instead of some thirty.
"""

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera.primitives import FAR, Hit
from envs.camera.scene import Row

_TINY = np.float32(1e-9)


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
) -> Hit:
    """Where rays first enter a box of the row.

    Args:
        row: the common extents.
        platforms: float32[P, 2], start and end in x; not drawn unless it ends after its start.
        direction: three of float32[R], the rays in the world's frame.
        origin: float32[3], the camera in the world's frame, metres.
        near: metres; the row seen from inside, or nearer than that, is not drawn.

    Returns:
        depth float32[R] (`FAR` for a miss) and |n . d| float32[R].
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
    least = jnp.full(x.shape, np.uint32(0x7F000000))
    for start, end in zip(starts, ends, strict=True):
        ahead = (jnp.clip(x, start, end) - x) * slope + inside
        least = jnp.minimum(least, jax.lax.bitcast_convert_type(ahead, jnp.uint32))
    ahead = jax.lax.bitcast_convert_type(least, jnp.float32)
    depth = enter + ahead
    hit = (depth < leave) & (depth > near)
    facing = jnp.where(
        ahead > 1e-20, jnp.abs(dx), jnp.where(z_enter > y_enter, jnp.abs(dz), jnp.abs(dy))
    )
    return jnp.where(hit, depth, FAR), facing


def row_index(platforms: jax.Array, x: jax.Array) -> jax.Array:
    """The number int32[R] of the platform nearest each x float32[R]."""
    nearest = jnp.full(x.shape, FAR)
    index = jnp.zeros(x.shape, jnp.int32)
    for i, (start, end) in enumerate(platforms):
        gap = jnp.where(end > start, jnp.abs(jnp.clip(x, start, end) - x), FAR)
        index = jnp.where(gap < nearest, i, index)
        nearest = jnp.minimum(gap, nearest)
    return index
