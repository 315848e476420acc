"""Compute where the surface of a walker is: what it touches, and how far it is above the ground."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.interfaces import WALKER
from envs.kinematics import Poses

STEP = 0.01
"""Metres by which dm_control's `escape` raises a walker until it touches nothing."""
_AROUND, _ALONG, _DIRECTIONS = 16, 9, 96
# Halvings of the interval in which the nearest point of an ellipsoid is searched.
_HALVINGS = 24
_KINDS = {
    kind: int(getattr(mujoco.mjtGeom, f"mjGEOM_{kind.upper()}"))
    for kind in ("sphere", "capsule", "ellipsoid", "cylinder", "box", "mesh")
}


class Surface:
    """The surface of a walker: that of all its geoms which collide with something.

    Meshes count as the boxes around them.

    Args:
        model: a model with the walker, in which no collision of the walker is turned off.

    Raises:
        ValueError: a geom has a type without a surface, such as a plane.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        solid = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
        own = [g for g in np.flatnonzero(solid) if model.geom(g).name.startswith(WALKER)]
        names = {number: name for name, number in _KINDS.items()}
        for g in own:
            if model.geom_type[g] not in names:
                raise ValueError(
                    f"geom {model.geom(g).name!r} is of type {int(model.geom_type[g])}; a walker's "
                    f"geoms that collide have to be one of {', '.join(_KINDS)}"
                )
        self._own = np.array(own, int)
        self._kinds = np.array([names[int(model.geom_type[g])] for g in own], str)
        boxed = self._kinds == "mesh"
        self._kinds[boxed] = "box"
        self._middle = np.where(boxed[:, None], model.geom_aabb[self._own, :3], 0.0)
        size = np.where(boxed[:, None], model.geom_aabb[self._own, 3:], model.geom_size[self._own])
        self._size = np.asarray(size, np.float32)
        points = [
            surface_points(kind, half) + middle
            for kind, half, middle in zip(self._kinds, self._size, self._middle, strict=True)
        ]
        self._points = np.concatenate([np.zeros((0, 3)), *points]).astype(np.float32)
        self._owner = np.repeat(self._own, [len(x) for x in points]).astype(int)

    def touches(self, poses: Poses, position: jax.Array, radius: jax.Array) -> jax.Array:
        """Return bool[V], which of V balls the walker touches.

        Args:
            poses: poses of the walker's geoms.
            position: float32[V, 3], middles of the balls, metres.
            radius: float32[V], metres.
        """
        near = jnp.zeros(len(position), bool)
        for kind in sorted(set(self._kinds)):
            which = np.flatnonzero(self._kinds == kind)
            geoms = self._own[which]
            away = position[:, None] - poses.geom_xpos[geoms]
            # In the axes of each geom, float32[V, geoms, 3].
            local = (away[..., None] * poses.geom_xmat[geoms]).sum(-2) - self._middle[which]
            near |= (distance(kind, self._size[which], local) < radius[:, None]).any(1)
        return near

    def lift(self, poses: Poses, ground: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """Return float32[], by how many metres to raise the walker, or to lower it if negative, so
        that its lowest point is just above the ground: a whole number of `STEP`.

        Args:
            poses: poses of the walker's geoms.
            ground: function of points float32[S, 2] that returns heights of the ground float32[S].
        """
        turned = (poses.geom_xmat[self._owner] * self._points[:, None]).sum(-1)
        points = poses.geom_xpos[self._owner] + turned
        if not len(points):
            return jnp.zeros(())
        below = jnp.max(ground(points[:, :2]) - points[:, 2])
        return STEP * jnp.ceil(below / STEP)


def surface_points(kind: str, size: np.ndarray) -> np.ndarray:
    """Return points float64[P, 3] all over the surface of a geom, in its axes, metres.

    Args:
        kind: sphere, capsule, ellipsoid, cylinder or box.
        size: MuJoCo's `geom_size`.
    """
    # Fibonacci's lattice: directions evenly over the sphere.
    height = 1 - 2 * (np.arange(_DIRECTIONS) + 0.5) / _DIRECTIONS
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(_DIRECTIONS)
    flat = np.sqrt(1 - height**2)
    directions = np.stack([flat * np.cos(turn), flat * np.sin(turn), height], 1)
    if kind == "sphere":
        return size[0] * directions
    if kind == "ellipsoid":
        return size * directions
    if kind == "box":
        grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, _ALONG)] * 3), -1).reshape(-1, 3)
        return size * grid[np.abs(grid).max(1) == 1]
    angle = 2 * np.pi * np.arange(_AROUND) / _AROUND
    ring = size[0] * np.stack([np.cos(angle), np.sin(angle)], 1)
    along = np.linspace(-size[1], size[1], _ALONG)
    side = np.concatenate([np.insert(ring, 2, z, axis=1) for z in along])
    if kind == "capsule":
        caps = size[0] * directions
        caps[:, 2] += np.sign(directions[:, 2]) * size[1]
        return np.concatenate([side, caps])
    lids = [np.insert(ring * r, 2, z, axis=1) for r in (0, 0.5) for z in (-size[1], size[1])]
    return np.concatenate([side, *lids])


def distance(kind: str, size: np.ndarray, point: jax.Array) -> jax.Array:
    """Return float32[...], distances of points from a geom's surface, metres, not above 0 inside.

    Args:
        kind: sphere, capsule, ellipsoid, cylinder or box.
        size: float32[..., 3], MuJoCo's `geom_size`.
        point: float32[..., 3], in the geom's axes, metres.
    """
    length = lambda x: jnp.sqrt(jnp.square(x).sum(-1))
    if kind == "sphere":
        return length(point) - size[..., 0]
    if kind == "capsule":
        along = jnp.clip(point[..., 2], -size[..., 1], size[..., 1])
        return length(point.at[..., 2].add(-along)) - size[..., 0]
    if kind == "ellipsoid":
        return _from_ellipsoid(size, point)
    if kind == "cylinder":
        beside = length(point[..., :2]) - size[..., 0]
        outside = jnp.stack([beside, jnp.abs(point[..., 2]) - size[..., 1]], -1)
    else:
        outside = jnp.abs(point) - size
    return length(jnp.maximum(outside, 0)) + jnp.minimum(outside.max(-1), 0)


def _from_ellipsoid(size: np.ndarray, point: jax.Array) -> jax.Array:
    # The nearest point of the surface is a^2 p / (a^2 + t) for the t at which it is on the surface
    # (Eberly, "Distance from a Point to an Ellipse, an Ellipsoid, or a Hyperellipsoid", 2013).
    square = size**2
    inside = jnp.square(point / size).sum(-1) <= 1
    low = jnp.zeros(point.shape[:-1])
    high = jnp.sqrt(jnp.square(size * point).sum(-1))

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle = 0.5 * (ends[0] + ends[1])
        beyond = jnp.square(size * point / (square + middle[..., None])).sum(-1) > 1
        return jnp.where(beyond, middle, ends[0]), jnp.where(beyond, ends[1], middle)

    low, high = jax.lax.fori_loop(0, _HALVINGS, halve, (low, high))
    off = point - square * point / (square + high[..., None])
    return jnp.where(inside, 0.0, jnp.sqrt(jnp.square(off).sum(-1)))
