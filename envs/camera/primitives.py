"""Where a ray first enters a primitive, and at what angle.

A ray starts at the camera and goes along d = (u, v, -1) in the camera's frame (MuJoCo: x right,
y up, looking along -z), so the parameter of a hit is its depth along the optical axis in metres.
Every function here handles one primitive against all rays and returns

    depth: float32[R], +inf (well: `FAR`) where the ray misses;
    facing: float32[R], |n . d| with n the unit surface normal (undefined where it misses).

Only entering hits count, as in MuJoCo's renderer, which culls back faces: a primitive is not
seen from inside.

XLA's CPU back end turns one such function, minimum included, into one vectorised loop as long as
no square root or quotient has two users; it would otherwise write every such intermediate to
memory, ten times slower. Hence the shapes of some of the expressions below.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

FAR = np.float32(1e9)
_TINY = np.float32(1e-9)
# Squared sine below which a ray counts as parallel to an axis; rounding is a tenth of it.
_PARALLEL = np.float32(1e-6)


class Rays(NamedTuple):
    """The rays of one camera: d = (u, v, -1).

    Attributes:
        u: float32[R].
        v: float32[R].
        dd: float32[R], d . d.
        near: metres; hits nearer than that do not count.
    """

    u: np.ndarray
    v: np.ndarray
    dd: np.ndarray
    near: float

    def dot(self, x: jax.Array) -> jax.Array:
        """Returns float32[R], d . x for one x float32[3]."""
        return self.u * x[0] + self.v * x[1] - x[2]


class Primitive(NamedTuple):
    """One geom in the camera's frame.

    Attributes:
        centre: float32[3], metres.
        axes: float32[3, 3], the geom's axes as columns.
        size: float32[3], as in MuJoCo's `geom_size`, metres.
    """

    centre: jax.Array
    axes: jax.Array
    size: jax.Array


Hit = tuple[jax.Array, jax.Array]


def capsule(rays: Rays, geom: Primitive) -> Hit:
    """Capsule of radius size[0] and half length size[1]; a sphere where that is 0.

    A ray enters a capsule where it enters the ball around one point of the axis: the foot of its
    entry into the infinite cylinder, clamped to the segment.
    """
    centre, axis = geom.centre, geom.axes[:, 2]
    radius, half = geom.size[0], geom.size[1]
    along, across = rays.dot(axis), rays.dot(centre)
    offset = axis @ centre
    square = centre @ centre - radius * radius
    # The floor makes a ray along the axis enter the cylinder far behind, not at 0 / 0.
    a = jnp.maximum(rays.dd - along * along, _PARALLEL)
    b = across - along * offset
    cylinder = b * b - a * (square - offset * offset)
    foot = (b - jnp.sqrt(jnp.maximum(cylinder, 0))) / a * along - offset
    foot = jnp.clip(foot, -half, half)
    b = across + foot * along
    ball = b * b - rays.dd * (square + foot * (2 * offset + foot))
    depth = (b - jnp.sqrt(jnp.maximum(ball, 0))) * (1 / rays.dd)
    hit = (ball > 0) & (depth > rays.near)
    facing = (b - rays.dd * depth) * (1 / radius)
    return jnp.where(hit, depth, FAR), facing


def sphere(rays: Rays, geom: Primitive) -> Hit:
    """Ball of radius size[0]."""
    return capsule(rays, geom._replace(size=geom.size * jnp.array([1, 0, 0], jnp.float32)))


def box(rays: Rays, geom: Primitive) -> Hit:
    """Box of half lengths `size`."""
    enter, leave = [], []
    directions, origins = [], []
    for i in range(3):
        axis = geom.axes[:, i]
        direction, origin = rays.dot(axis), -(axis @ geom.centre)
        safe = jnp.where(jnp.abs(direction) < _TINY, _TINY, direction)
        reach = jnp.where(safe < 0, -geom.size[i], geom.size[i])
        enter.append((-origin - reach) / safe)
        leave.append((-origin + reach) / safe)
        directions.append(direction)
        origins.append(origin)
    depth = jnp.maximum(jnp.maximum(enter[0], enter[1]), enter[2])
    last = jnp.minimum(jnp.minimum(leave[0], leave[1]), leave[2])
    hit = (depth > rays.near) & (depth < last)
    # The face is told by the hit point: there it is nearest the box's surface.
    x, y, z = (jnp.abs(origins[i] + depth * directions[i]) - geom.size[i] for i in range(3))
    facing = jnp.where(
        (z >= x) & (z >= y), directions[2], jnp.where(y >= x, directions[1], directions[0])
    )
    return jnp.where(hit, depth, FAR), jnp.abs(facing)


def plane(rays: Rays, geom: Primitive) -> Hit:
    """Rectangle of half lengths size[:2] (0: unbounded), seen from its +z side only."""
    normal = geom.axes[:, 2]
    slope, height = rays.dot(normal), normal @ geom.centre
    depth = jnp.maximum(height / jnp.minimum(slope, -_TINY), 0)
    hit = (slope < 0) & (depth > rays.near) & (depth < FAR)
    for i in range(2):
        axis = geom.axes[:, i]
        bound = jnp.where(geom.size[i] > 0, geom.size[i], FAR)
        hit &= jnp.abs(depth * rays.dot(axis) - axis @ geom.centre) <= bound
    return jnp.where(hit, depth, FAR), jnp.abs(slope)


INTERSECTIONS: dict[int, Callable[[Rays, Primitive], Hit]] = {
    int(mujoco.mjtGeom.mjGEOM_PLANE): plane,
    int(mujoco.mjtGeom.mjGEOM_SPHERE): sphere,
    int(mujoco.mjtGeom.mjGEOM_CAPSULE): capsule,
    int(mujoco.mjtGeom.mjGEOM_BOX): box,
}


def in_view(kind: int, rays: Rays, geom: Primitive) -> jax.Array:
    """Whether any ray can hit the geom; sound, not tight. Zero-sized geoms never are.

    A geom is out of view if it lies wholly behind one of the five planes of the picture's pyramid
    of sight: near, left, right, bottom, top.
    """
    if kind == mujoco.mjtGeom.mjGEOM_PLANE:
        return geom.axes[:, 2] @ geom.centre < 0
    edges = np.array(
        [
            [0, 0, -1],
            [1, 0, rays.u.min()],
            [-1, 0, -rays.u.max()],
            [0, 1, rays.v.min()],
            [0, -1, -rays.v.max()],
        ],
        np.float32,
    )
    edges = edges / np.linalg.norm(edges, axis=1, keepdims=True)
    half = {
        int(mujoco.mjtGeom.mjGEOM_SPHERE): jnp.zeros(5),
        int(mujoco.mjtGeom.mjGEOM_CAPSULE): jnp.abs(edges @ geom.axes[:, 2]) * geom.size[1],
        int(mujoco.mjtGeom.mjGEOM_BOX): jnp.abs(edges @ geom.axes) @ geom.size,
    }[kind]
    radius = 0 if kind == mujoco.mjtGeom.mjGEOM_BOX else geom.size[0]
    solid = jnp.all(geom.size > 0) if kind == mujoco.mjtGeom.mjGEOM_BOX else geom.size[0] > 0
    beyond = np.array([rays.near, 0, 0, 0, 0], np.float32)
    return solid & jnp.all(edges @ geom.centre + half + radius > beyond)
