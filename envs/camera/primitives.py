"""Where a ray first enters a primitive, and which way the surface faces there.

A ray starts at the camera and goes along d = (u, v, -1) in the camera's frame (MuJoCo: x right,
y up, looking along -z), so the parameter of a hit is its depth along the optical axis in metres.
Every function here handles one primitive against all rays and returns a `Hit`.

Only entering hits count, as in MuJoCo's renderer, which culls back faces: a primitive is not
seen from inside.

XLA's CPU back end turns one such function, minimum included, into one vectorised loop as long as
no square root or quotient has two users; it would otherwise write every such intermediate to
memory, ten times slower. Hence the shapes of some of the expressions below.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

FAR = np.float32(1e9)
_TINY = np.float32(1e-9)
# Squared sine below which a ray counts as parallel to an axis; rounding is a tenth of it.
_PARALLEL = np.float32(1e-6)

# Geoms whose size says it all. Meshes and height fields have files of their own.
BOX, CAPSULE, CYLINDER, ELLIPSOID, PLANE, SPHERE = (
    int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}"))
    for name in ("BOX", "CAPSULE", "CYLINDER", "ELLIPSOID", "PLANE", "SPHERE")
)


class Rays(NamedTuple):
    """The rays of one camera: d = (u, v, -1).

    Attributes:
        u: float32[R].
        v: float32[R].
        dd: float32[R], d . d.
        near: metres; hits nearer than that do not count.
    """

    u: np.ndarray | jax.Array
    v: np.ndarray | jax.Array
    dd: np.ndarray | jax.Array
    near: float

    def dot(self, x: jax.Array) -> jax.Array:
        """Returns float32[R], d . x for one x float32[3]."""
        return jnp.asarray(self.u * x[0] + self.v * x[1] - x[2])

    def at(self, depth: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns three of float32[R], the points at `depth` float32[R]."""
        return depth * self.u, depth * self.v, -depth


class Primitive(NamedTuple):
    """One geom in the camera's frame.

    Attributes:
        centre: float32[3], metres.
        axes: float32[3, 3], the geom's axes as columns.
        size: float32[3], as in MuJoCo's `geom_size`, metres; of a mesh or a height field the half
            lengths of a box around it, centred on the geom's origin.
        asset: int32[], which mesh or height field.
    """

    centre: jax.Array
    axes: jax.Array
    size: jax.Array
    asset: jax.Array


class Hit(NamedTuple):
    """What rays meet.

    Attributes:
        depth: float32[R], `FAR` where the ray misses.
        normal: three of float32[R] or float32[], the unit normal on the camera's side, in the
            camera's frame; anything where the ray misses.
    """

    depth: jax.Array
    normal: tuple[jax.Array, ...]


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
    inverse = 1 / radius
    x, y, z = rays.at(depth)
    normal = tuple((p - centre[i] - foot * axis[i]) * inverse for i, p in enumerate((x, y, z)))
    return Hit(jnp.where(hit, depth, FAR), normal)


def sphere(rays: Rays, geom: Primitive) -> Hit:
    """Ball of radius size[0]."""
    return capsule(rays, geom._replace(size=geom.size * jnp.array([1, 0, 0], jnp.float32)))


def cylinder(rays: Rays, geom: Primitive) -> Hit:
    """Cylinder of radius size[0] and half length size[1], with its two caps."""
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
    # The cap on the camera's side is the one that a ray enters by.
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
    """Ellipsoid of half axes `size`: a unit ball in a frame that is stretched."""
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
    ends, sides = (z >= x) & (z >= y), y >= x
    # A ray enters by a face that looks against it.
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
    """Rectangle of half lengths size[:2] (0: unbounded), seen from its +z side only."""
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
    """a . b of two sequences of three arrays, which XLA makes one loop of."""
    return jnp.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])


def view_edges(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """float32[5, 3], unit normals of the planes that bound what rays (u, v, -1) see, into their
    pyramid of sight: near, left, right, bottom, top."""
    edges = np.array(
        [
            [0, 0, -1],
            [1, 0, u.min()],
            [-1, 0, -u.max()],
            [0, 1, v.min()],
            [0, -1, -v.max()],
        ],
        np.float32,
    )
    return edges / np.linalg.norm(edges, axis=1, keepdims=True)


def in_view(kind: int, edges: np.ndarray, near: float, geoms: Primitive) -> jax.Array:
    """Whether any ray can hit a geom; sound, not tight. Zero-sized geoms are never hit.

    A geom is out of view if it lies wholly behind one of the planes `view_edges`, or, of a plane,
    if the camera is behind it.

    Args:
        kind: of all the geoms.
        edges: float32[B, 5, 3], of B views.
        near: metres, from the camera to the first plane of each view.
        geoms: leaves [G, ...].

    Returns:
        bool[G, B].
    """
    # Numbers apart and the views last: XLA would make small matrices, and arrays to hold them.
    edge = edges.transpose(2, 1, 0)[:, :, None]
    apart = lambda x: jnp.moveaxis(x, 0, -1)[..., None]
    centre, axes, size = apart(geoms.centre), apart(geoms.axes), apart(geoms.size)
    if kind == PLANE:
        return jnp.broadcast_to(dot(axes[:, 2], centre) < 0, (len(centre[0]), len(edges)))
    tilt = [dot(edge, axes[:, i]) for i in range(3)]
    solid = size[0] > 0 if kind in (SPHERE, CAPSULE, CYLINDER) else (size > 0).all(0)
    if kind == SPHERE:
        reach = size[0]
    elif kind in (CAPSULE, CYLINDER):
        reach = jnp.abs(tilt[2]) * size[1] + size[0]
    elif kind == ELLIPSOID:
        reach = jnp.sqrt(sum((t * s) ** 2 for t, s in zip(tilt, size, strict=True)))
    else:
        reach = sum(jnp.abs(t) * s for t, s in zip(tilt, size, strict=True))
    beyond = np.array([near, 0, 0, 0, 0], np.float32)[:, None, None]
    # Half a percent more than the geom has, since rays are rounded.
    return solid & (dot(edge, centre) + reach * np.float32(1.005) > beyond).all(0)
