"""Triangles of meshes as a picture needs them: what all pixels of one have in common."""

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
        geom: int32[K], whose strip it is.
        place: int32[K], in `Meshes`.
    """

    geom: jax.Array
    place: jax.Array


class Surroundings(NamedTuple):
    """What differs between environments, in the camera's frame.

    Attributes:
        geoms: leaves [E, G, ...].
        lights: leaves [E, L, 3].
    """

    geoms: Primitive
    lights: LightPoses


class Facets(NamedTuple):
    """Triangles, n of them, with all that they need to be drawn, in the camera's frame.

    Attributes:
        environment: int32[n].
        edges: float32[3, 3, n], for each corner what gives its share in a hit: the dot product with
            a ray is the volume that the ray and the opposite edge span.
        normal: float32[3, n], across the triangle, of any length.
        reach: float32[n], `normal` times any point of the triangle.
        normals: float32[3, 3, n], unit normals at the corners.
        payload: leaves [n].
        lights: leaves [L, 3, n].
    """

    environment: jax.Array
    edges: jax.Array
    normal: jax.Array
    reach: jax.Array
    normals: jax.Array
    payload: Any
    lights: LightPoses


def read_facets(
    triangles: jax.Array, meshes: Meshes, strips: Strips, around: Surroundings, payload: Any
) -> tuple[jax.Array, Facets]:
    """Reads triangles.

    Args:
        triangles: int32[n], (k E + e) STRIP + i for triangle i of strip k in environment e.
        meshes: those of the scene.
        strips: of them.
        around: of E environments.
        payload: leaves [G].

    Returns:
        float32[3, 3, n], x, y, z of each corner in the camera's frame; and the triangles.
    """
    environments = len(around.geoms.centre)
    strip, lane = triangles // (environments * STRIP), triangles % STRIP
    environment = triangles // STRIP % environments
    geom, place = (_take(x, strip) for x in strips)
    face = place * STRIP + lane
    pose = environment * around.geoms.centre.shape[1] + geom
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    axes, centre = _take(flat(around.geoms.axes), pose), _take(flat(around.geoms.centre), pose)

    def turn(corner: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        point, normal = corner
        moved = [dot(axes[i], point) + centre[i] for i in range(3)]
        return jnp.stack(moved), jnp.stack([dot(axes[i], normal) for i in range(3)])

    def span(ends: tuple[jax.Array, jax.Array]) -> jax.Array:
        # From the other side an edge gives the same with another sign.
        a, b = ends
        return jnp.stack(cross(a + b, a - b))

    # One corner after the other: a loop keeps arithmetic apart from the reading of tables.
    read = tuple(_take(flat(x), face) for x in (meshes.corners, meshes.normals))
    corners, normals = jax.lax.map(turn, read)
    edges = jax.lax.map(span, (corners[np.array([1, 2, 0])], corners[np.array([2, 0, 1])]))
    normal = cross(corners[1] - corners[0], corners[2] - corners[0])
    return corners, Facets(
        environment,
        edges,
        jnp.stack(normal),
        dot(normal, corners[0]),
        normals,
        jax.tree.map(lambda x: _take(x, geom), payload),
        jax.tree.map(lambda x: _take(x, environment), around.lights),
    )


def _take(table: Any, index: jax.Array) -> jax.Array:
    """[..., n] of a table [N, ...]."""
    found = jnp.asarray(table).at[index].get(mode="promise_in_bounds")
    return jnp.moveaxis(found, 0, -1)


def cross(a: Any, b: Any) -> list[jax.Array]:
    """a x b of two sequences of three arrays."""
    return [a[i - 2] * b[i - 1] - a[i - 1] * b[i - 2] for i in range(3)]
