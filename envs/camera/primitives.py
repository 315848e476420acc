"""Intersect rays with primitives: the depth at which a ray enters one, and the normal there.

A ray starts at the camera and goes along d = (u, v, -1) in the camera's frame (as in MuJoCo: x
right, y up, looking along -z), so that depth along the optical axis, in metres, is the ray's
parameter. Each function takes all rays and one primitive, and returns a `Hit`.

Only hits where a ray enters count, so nothing is seen from inside. MuJoCo's renderer culls back
faces likewise.

XLA's CPU back end compiles such a function, together with the minimum that uses it, to one
vectorised loop as long as each square root and quotient has a single user. Otherwise it writes
these intermediates to memory, which is ten times slower. Some expressions below are written for
that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

FAR = np.float32(1e9)
_TINY = np.float32(1e-9)
# The squared sine below which a ray counts as parallel to an axis: ten times the rounding error.
_PARALLEL = np.float32(1e-6)

# Geoms that are described by their size alone. Meshes and height fields have modules of their own.
BOX, CAPSULE, CYLINDER, ELLIPSOID, PLANE, SPHERE = (
    int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}"))
    for name in ("BOX", "CAPSULE", "CYLINDER", "ELLIPSOID", "PLANE", "SPHERE")
)


class Rays(NamedTuple):
    """The rays of one camera, along d = (u, v, -1).

    Attributes:
        u: float32[R].
        v: float32[R].
        dd: float32[R], d . d.
        near: depth below which hits do not count, metres.
    """

    u: np.ndarray | jax.Array
    v: np.ndarray | jax.Array
    dd: np.ndarray | jax.Array
    near: float

    def dot(self, x: jax.Array) -> jax.Array:
        """Return float32[R], d . x for one x float32[3]."""
        return jnp.asarray(self.u * x[0] + self.v * x[1] - x[2])

    def at(self, depth: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return three of float32[R], the points at `depth` float32[R]."""
        return depth * self.u, depth * self.v, -depth


class Primitive(NamedTuple):
    """One geom in the camera's frame.

    Attributes:
        centre: float32[3], metres.
        axes: float32[3, 3], the geom's axes as columns.
        size: float32[3], MuJoCo's `geom_size`, metres; of a height field the half lengths of a box
            around it, centred on the geom's origin; unused for a mesh.
        asset: int32[], index of its mesh or height field in the scene.
    """

    centre: jax.Array
    axes: jax.Array
    size: jax.Array
    asset: jax.Array


class Hit(NamedTuple):
    """Points where rays enter a geom.

    Attributes:
        depth: float32[R], metres; `FAR` for rays that miss.
        normal: three of float32[R] or float32[], the unit normal in the camera's frame, towards the
            camera; undefined for rays that miss.
    """

    depth: jax.Array
    normal: tuple[jax.Array, ...]


def capsule(rays: Rays, geom: Primitive) -> Hit:
    """Intersect a capsule of radius size[0] and half length size[1]; a sphere if that is 0.

    A ray enters a capsule where it enters the ball around one point of the axis: where it enters
    the infinite cylinder, projected onto the axis and clamped to the segment.
    """
    centre, axis = geom.centre, geom.axes[:, 2]
    radius, half = geom.size[0], geom.size[1]
    along, across = rays.dot(axis), rays.dot(centre)
    offset = axis @ centre
    square = centre @ centre - radius * radius
    # The lower bound makes a ray along the axis enter the cylinder far behind, not at 0 / 0.
    a = jnp.maximum(rays.dd - along * along, _PARALLEL)
    b = across - along * offset
    cylinder = b * b - a * (square - offset * offset)
    foot = (b - jnp.sqrt(jnp.maximum(cylinder, 0))) / a * along - offset
    foot = jnp.clip(foot, -half, half)
    b = across + foot * along
    ball = b * b - rays.dd * (square + foot * (2 * offset + foot))
    depth = (b - jnp.sqrt(jnp.maximum(ball, 0))) * (1 / rays.dd)
    hit = (ball > 0) & (depth > rays.near)
    inverse = 1 / radius
    x, y, z = rays.at(depth)
    normal = tuple((p - centre[i] - foot * axis[i]) * inverse for i, p in enumerate((x, y, z)))
    return Hit(jnp.where(hit, depth, FAR), normal)


def sphere(rays: Rays, geom: Primitive) -> Hit:
    """Intersect a ball of radius size[0]."""
    return capsule(rays, geom._replace(size=geom.size * jnp.array([1, 0, 0], jnp.float32)))


def cylinder(rays: Rays, geom: Primitive) -> Hit:
    """Intersect a cylinder of radius size[0] and half length size[1], with its two caps."""
    centre, axis = geom.centre, geom.axes[:, 2]
    radius, half = geom.size[0], geom.size[1]
    along, across = rays.dot(axis), rays.dot(centre)
    offset = axis @ centre
    square = centre @ centre - radius * radius - offset * offset
    a = jnp.maximum(rays.dd - along * along, _PARALLEL)
    b = across - along * offset
    root = b * b - a * square
    side = (b - jnp.sqrt(jnp.maximum(root, 0))) * (1 / a)
    height = side * along - offset
    wall = (root > 0) & (jnp.abs(height) <= half) & (side > rays.near)
    # A ray enters by the cap that faces the camera.
    slope = jnp.where(jnp.abs(along) < _TINY, _TINY, along)
    up = jnp.where(slope < 0, np.float32(1), np.float32(-1))
    cap = (offset + up * half) * (1 / slope)
    lid = (cap * (cap * a - 2 * b) + square <= 0) & (cap > rays.near)
    depth = jnp.minimum(jnp.where(wall, side, FAR), jnp.where(lid, cap, FAR))
    inverse = 1 / radius
    normal = tuple(
        jnp.where(wall, (p - centre[i] - height * axis[i]) * inverse, up * axis[i])
        for i, p in enumerate(rays.at(side))
    )
    return Hit(jnp.where((radius > 0) & (half > 0), depth, FAR), normal)


def ellipsoid(rays: Rays, geom: Primitive) -> Hit:
    """Intersect an ellipsoid of half axes `size`, as a unit ball in a scaled frame."""
    scale = 1 / geom.size
    stretched = geom.axes * scale
    direction = [rays.dot(stretched[:, i]) for i in range(3)]
    origin = (geom.centre[:, None] * stretched).sum(0)
    a = sum(x * x for x in direction)
    b = sum(x * origin[i] for i, x in enumerate(direction))
    root = b * b - a * ((origin * origin).sum() - 1)
    depth = (b - jnp.sqrt(jnp.maximum(root, 0))) * (1 / a)
    hit = (root > 0) & (depth > rays.near)
    local = [(depth * x - origin[i]) * scale[i] for i, x in enumerate(direction)]
    length = jax.lax.rsqrt(sum(x * x for x in local))
    normal = tuple(sum(geom.axes[k, i] * x for i, x in enumerate(local)) * length for k in range(3))
    return Hit(jnp.where(hit, depth, FAR), normal)


def box(rays: Rays, geom: Primitive) -> Hit:
    """Intersect a box of half lengths `size`."""
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
    # The face is the one that the hit point lies nearest to.
    x, y, z = (jnp.abs(origins[i] + depth * directions[i]) - geom.size[i] for i in range(3))
    ends, sides = (z >= x) & (z >= y), y >= x
    # A ray enters by a face whose normal points against it.
    towards = [jnp.where(direction < 0, np.float32(1), np.float32(-1)) for direction in directions]
    normal = tuple(
        jnp.where(
            ends,
            towards[2] * geom.axes[k, 2],
            jnp.where(sides, towards[1] * geom.axes[k, 1], towards[0] * geom.axes[k, 0]),
        )
        for k in range(3)
    )
    return Hit(jnp.where(hit, depth, FAR), normal)


def plane(rays: Rays, geom: Primitive) -> Hit:
    """Intersect a rectangle of half lengths size[:2] (0: unbounded), from its +z side only."""
    normal = geom.axes[:, 2]
    slope, height = rays.dot(normal), normal @ geom.centre
    depth = jnp.maximum(height / jnp.minimum(slope, -_TINY), 0)
    hit = (slope < 0) & (depth > rays.near) & (depth < FAR)
    for i in range(2):
        axis = geom.axes[:, i]
        bound = jnp.where(geom.size[i] > 0, geom.size[i], FAR)
        hit &= jnp.abs(depth * rays.dot(axis) - axis @ geom.centre) <= bound
    return Hit(jnp.where(hit, depth, FAR), tuple(normal))


INTERSECTIONS: dict[int, Callable[[Rays, Primitive], Hit]] = {
    PLANE: plane,
    SPHERE: sphere,
    CAPSULE: capsule,
    ELLIPSOID: ellipsoid,
    CYLINDER: cylinder,
    BOX: box,
}


def dot(a: Any, b: Any) -> jax.Array:
    """Return a . b of two sequences of three arrays, written out so that XLA makes one loop."""
    return jnp.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])
