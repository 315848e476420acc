"""The search among geoms: each band of a picture visits the geoms in its own view."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera.batching import at_once, each, in_blocks, over_environments
from envs.camera.keys import Encode, Payload
from envs.camera.lights import LightPoses
from envs.camera.pinhole import Camera
from envs.camera.primitives import Hit, Primitive, Rays, in_view, view_edges

# Geoms of a group: bits of a word.
GROUP = 32
# A band is some whole rows of a picture, of at least so many rays.
_BAND = 256
# Rays that are searched together: what suits the caches of a CPU.
_TOGETHER = 1 << 14


class Group(NamedTuple):
    """Up to 32 geoms of one kind.

    Attributes:
        geoms: leaves [G, ...], in the camera's frame.
        payload: leaves [G].
        visible: uint32[T], a bit for each geom that is in view of each of T bands of the picture.
    """

    geoms: Primitive
    payload: Payload
    visible: jax.Array


def number_of_bands(camera: Camera) -> int:
    """Into how many bands of equal height a picture is cut."""
    heights = (h for h in range(1, camera.height + 1) if camera.height % h == 0)
    return camera.height // next(
        h for h in heights if h * camera.width >= _BAND or h == camera.height
    )


def bands_at_once(camera: Camera) -> int:
    """How many bands to search together."""
    rays = camera.height * camera.width // number_of_bands(camera)
    return max(1, at_once(_TOGETHER) // rays)


def group(kind: int, geoms: Primitive, payload: Payload, rays: Rays, bands: int) -> Group:
    """Finds in which bands the geoms of a kind, leaves [G, ...], are."""
    across, down = np.asarray(rays.u), np.split(np.asarray(rays.v), bands)
    edges = np.stack([view_edges(across, v) for v in down], dtype=np.float32)
    visible = in_view(kind, edges, rays.near, geoms)
    # What is out of view goes where no ray does: rounding must not show a geom of no size.
    behind = jnp.array([0, 0, 1e3], jnp.float32)
    geoms = geoms._replace(centre=jnp.where(visible.any(1)[:, None], geoms.centre, behind))
    bits = np.uint32(1) << np.arange(len(visible), dtype=np.uint32)
    mask = jnp.where(visible, bits[:, None], np.uint32(0)).sum(0, dtype=jnp.uint32)
    return Group(geoms, jax.tree.map(jnp.asarray, payload), mask)


def closest(
    groups: list[Group],
    intersections: list[Callable[[Rays, Primitive], Hit]],
    rays: Rays,
    lights: LightPoses,
    encode: Encode,
    miss: np.int32,
    block: int,
) -> jax.Array:
    """Returns int32[R], the least keys of hits of the groups' geoms, `miss` without a hit.

    Each band of the picture visits only the geoms that are in its own view, and `block` bands are
    searched together.
    """
    bands = len(groups[0].visible)
    size = len(rays.u) // bands
    # Bands are alike but for their height in the picture.
    height = rays.v[0] - rays.v[size] if bands > 1 else np.float32(0)

    def search(groups: list[Group], lights: LightPoses) -> jax.Array:
        """Keys int32[N, R] of N environments.

        Bands that see as many geoms are searched together: a block of them is done once the one
        that sees most is.
        """
        masks = [group.visible.ravel() for group in groups]
        number = len(masks[0])
        seen = sum(jax.lax.population_count(m).astype(jnp.int32) for m in masks)
        # One number for each: a sort of pairs is slower.
        busiest = jnp.sort((GROUP * len(masks) - seen) * number + jnp.arange(number)) % number

        def visit(here: jax.Array) -> jax.Array:
            """Keys int32[n, P] of the bands of numbers int32[n]."""
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
