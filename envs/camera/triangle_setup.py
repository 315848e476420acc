"""Set up triangles for drawing: compute the values that all pixels of a triangle share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera.lights import LightPoses
from envs.camera.mesh import STRIP, Meshes
from envs.camera.primitives import Primitive, dot


class Strips(NamedTuple):
    """All strips of all mesh geoms.

    Attributes:
        geom: int32[K], the geom that the strip belongs to.
        place: int32[K], index of the strip in `Meshes`.
    """

    geom: jax.Array
    place: jax.Array


class Placement(NamedTuple):
    """Poses of geoms and lights in E environments, in the camera's frame.

    Attributes:
        geoms: leaves [E, G, ...].
        lights: leaves [E, L, 3].
    """

    geoms: Primitive
    lights: LightPoses


class Triangles(NamedTuple):
    """n triangles, ready for drawing, in the camera's frame.

    Attributes:
        environment: int32[n].
        edges: float32[3, 3, n], for each corner a vector whose dot product with a ray is the
            corner's weight in the hit, up to a common factor (an edge function).
        normal: float32[3, n], normals of the triangles, of any length.
        offset: float32[n], the dot product of `normal` with any point of the triangle.
        normals: float32[3, 3, n], unit normals at the corners.
        payload: leaves [n].
        lights: leaves [L, 3, n].
    """

    environment: jax.Array
    edges: jax.Array
    normal: jax.Array
    offset: jax.Array
    normals: jax.Array
    payload: Any
    lights: LightPoses


def set_up_triangles(
    indices: jax.Array, meshes: Meshes, strips: Strips, placed: Placement, payload: Any
) -> tuple[jax.Array, Triangles]:
    """Read triangles of meshes and compute the values that all their pixels share.

    Args:
        indices: int32[n], (k E + e) STRIP + i for triangle i of strip k in environment e.
        meshes: the meshes of the scene.
        strips: the strips of all geoms.
        placed: the geoms and lights of E environments.
        payload: leaves [G], of the geoms.

    Returns:
        float32[3, 3, n], x, y, z of each corner in the camera's frame; and the triangles.
    """
    environments = len(placed.geoms.centre)
    strip, lane = indices // (environments * STRIP), indices % STRIP
    environment = indices // STRIP % environments
    geom, place = (_take(x, strip) for x in strips)
    face = place * STRIP + lane
    pose = environment * placed.geoms.centre.shape[1] + geom
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    axes, centre = _take(flat(placed.geoms.axes), pose), _take(flat(placed.geoms.centre), pose)

    def turn(corner: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        point, normal = corner
        moved = [dot(axes[i], point) + centre[i] for i in range(3)]
        return jnp.stack(moved), jnp.stack([dot(axes[i], normal) for i in range(3)])

    def span(ends: tuple[jax.Array, jax.Array]) -> jax.Array:
        # The triangle on the other side of the edge gets exactly the same numbers, negated.
        a, b = ends
        return jnp.stack(cross(a + b, a - b))

    # A loop over the corners keeps XLA from fusing arithmetic with table reads.
    read = tuple(_take(flat(x), face) for x in (meshes.corners, meshes.normals))
    corners, normals = jax.lax.map(turn, read)
    edges = jax.lax.map(span, (corners[np.array([1, 2, 0])], corners[np.array([2, 0, 1])]))
    normal = cross(corners[1] - corners[0], corners[2] - corners[0])
    return corners, Triangles(
        environment,
        edges,
        jnp.stack(normal),
        dot(normal, corners[0]),
        normals,
        jax.tree.map(lambda x: _take(x, geom), payload),
        jax.tree.map(lambda x: _take(x, environment), placed.lights),
    )


def _take(table: Any, index: jax.Array) -> jax.Array:
    """Return rows `index` int32[n] of a table [N, ...], as [..., n]."""
    found = jnp.asarray(table).at[index].get(mode="promise_in_bounds")
    return jnp.moveaxis(found, 0, -1)


def cross(a: Any, b: Any) -> list[jax.Array]:
    """Return a x b of two sequences of three arrays."""
    return [a[i - 2] * b[i - 1] - a[i - 1] * b[i - 2] for i in range(3)]
