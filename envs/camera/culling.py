"""Find the nearest geom along each ray, testing only the geoms in view of a part of the image.

The image is cut into bands of whole rows. A geom is tested against the view frustum of each band,
and the rays of a band visit only the geoms that pass.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.batching import over_environments
from envs.camera.batching import at_once, each, in_blocks
from envs.camera.depth_keys import Encode, Payload
from envs.camera.lights import LightPoses
from envs.camera.pinhole import Camera
from envs.camera.primitives import (
    CAPSULE,
    CYLINDER,
    ELLIPSOID,
    PLANE,
    SPHERE,
    Hit,
    Primitive,
    Rays,
    dot,
)

# Geoms in a group: the bits of a word.
GROUP = 32
# The fewest rays in a band.
_BAND = 256
# Rays that are processed together; this fits a CPU's caches.
_TOGETHER = 1 << 14


class Group(NamedTuple):
    """Up to 32 geoms of one kind.

    Attributes:
        geoms: leaves [G, ...], in the camera's frame.
        payload: leaves [G].
        visible: uint32[T], for each of T bands a bit for each geom in its view.
    """

    geoms: Primitive
    payload: Payload
    visible: jax.Array


def number_of_bands(camera: Camera) -> int:
    """Return the number of bands of equal height that an image is cut into."""
    heights = (h for h in range(1, camera.height + 1) if camera.height % h == 0)
    return camera.height // next(
        h for h in heights if h * camera.width >= _BAND or h == camera.height
    )


def bands_at_once(camera: Camera) -> int:
    """Return the number of bands to process together."""
    rays = camera.height * camera.width // number_of_bands(camera)
    return max(1, at_once(_TOGETHER) // rays)


def group(kind: int, geoms: Primitive, payload: Payload, rays: Rays, bands: int) -> Group:
    """Group geoms of one kind, leaves [G, ...], and test which bands can see them."""
    across, down = np.asarray(rays.u), np.split(np.asarray(rays.v), bands)
    planes = np.stack([frustum_planes(across, v) for v in down], dtype=np.float32)
    visible = in_view(kind, planes, rays.near, geoms)
    # A geom that no band sees is moved behind the camera: rounding must not show one of no size.
    behind = jnp.array([0, 0, 1e3], jnp.float32)
    geoms = geoms._replace(centre=jnp.where(visible.any(1)[:, None], geoms.centre, behind))
    bits = np.uint32(1) << np.arange(len(visible), dtype=np.uint32)
    mask = jnp.where(visible, bits[:, None], np.uint32(0)).sum(0, dtype=jnp.uint32)
    return Group(geoms, jax.tree.map(jnp.asarray, payload), mask)


def frustum_planes(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the planes that bound the view of the rays (u, v, -1).

    Returns:
        float32[5, 3], unit normals that point into the view: near, left, right, bottom, top.
    """
    planes = np.array(
        [
            [0, 0, -1],
            [1, 0, u.min()],
            [-1, 0, -u.max()],
            [0, 1, v.min()],
            [0, -1, -v.max()],
        ],
        np.float32,
    )
    return planes / np.linalg.norm(planes, axis=1, keepdims=True)


def in_view(kind: int, planes: np.ndarray, near: float, geoms: Primitive) -> jax.Array:
    """Return whether rays may hit geoms. It is true for all that are hit, and for some others.

    A geom is out of view if its size is zero or if it lies wholly behind one of the planes; an
    MJCF plane if the camera is behind it.

    Args:
        kind: the type of all the geoms, a value of `mujoco.mjtGeom`.
        planes: float32[B, 5, 3], `frustum_planes` of B views.
        near: distance of the near plane, metres.
        geoms: leaves [G, ...].

    Returns:
        bool[G, B].
    """
    # Coordinates are separate arrays and views are the last axis: XLA would turn products of small
    # matrices into calls with arrays in memory.
    plane = planes.transpose(2, 1, 0)[:, :, None]
    apart = lambda x: jnp.moveaxis(x, 0, -1)[..., None]
    centre, axes, size = apart(geoms.centre), apart(geoms.axes), apart(geoms.size)
    if kind == PLANE:
        return jnp.broadcast_to(dot(axes[:, 2], centre) < 0, (len(centre[0]), len(planes)))
    tilt = [dot(plane, axes[:, i]) for i in range(3)]
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
    # Half a percent of margin for the rounding of rays.
    return solid & (dot(plane, centre) + reach * np.float32(1.005) > beyond).all(0)


def nearest_hits(
    groups: list[Group],
    intersections: list[Callable[[Rays, Primitive], Hit]],
    rays: Rays,
    lights: LightPoses,
    encode: Encode,
    miss: np.int32,
    block: int,
) -> jax.Array:
    """Return the least key of each ray's hits, which is that of the nearest hit.

    Args:
        groups: the geoms.
        intersections: for each group, the function that intersects its kind of geom.
        rays: R rays, row by row.
        lights: the lights in the camera's frame.
        encode: the function that makes keys of hits.
        miss: the key of a ray that hits nothing.
        block: number of bands to process together.

    Returns:
        int32[R].
    """
    bands = len(groups[0].visible)
    size = len(rays.u) // bands
    # All bands are alike but for their height in the image.
    height = rays.v[0] - rays.v[size] if bands > 1 else np.float32(0)

    def search(groups: list[Group], lights: LightPoses) -> jax.Array:
        """Return keys int32[N, R] of N environments.

        A block is done when the band that sees most geoms is, so bands that see equally many are
        processed together.
        """
        masks = [group.visible.ravel() for group in groups]
        number = len(masks[0])
        seen = sum(jax.lax.population_count(m).astype(jnp.int32) for m in masks)
        # Count and index in one number, since sorting pairs is slower.
        busiest = jnp.sort((GROUP * len(masks) - seen) * number + jnp.arange(number)) % number

        def visit(here: jax.Array) -> jax.Array:
            """Return keys int32[n, P] of the bands with indices int32[n]."""
            environment, band = jnp.divmod(here, bands)
            nth_band = band.astype(jnp.float32)
            light = jax.tree.map(lambda x: x[environment], lights)
            keys = jnp.full((len(here), size), miss)
            for group, mask, intersect in zip(groups, masks, intersections, strict=True):

                def nth(keys, band, geom, payload, light, intersect=intersect):
                    beams = rays
                    if bands > 1:
                        u, v = rays.u[:size], rays.v[:size] - height * band
                        beams = Rays(u, v, 1 + u * u + v * v, rays.near)
                    hit = intersect(beams, geom)
                    return jnp.minimum(keys, encode(beams, hit, payload, light))

                def draw(state, group=group, nth=nth):
                    keys, left = state
                    lowest = jax.lax.population_count((left & -left) - 1).astype(jnp.int32)
                    which = jnp.minimum(lowest, group.payload.label.shape[1] - 1)
                    pick = lambda x: x[environment, which]
                    geom, payload = jax.tree.map(pick, (group.geoms, group.payload))
                    keys = each(nth, keys, nth_band, geom, payload, light)
                    return keys, left & (left - 1)

                keys, _ = jax.lax.while_loop(lambda state: state[1].any(), draw, (keys, mask[here]))
            return keys

        found = in_blocks(block, visit, busiest)
        return found[jnp.argsort(busiest)].reshape(-1, len(rays.u))

    return over_environments(search)(groups, lights)
