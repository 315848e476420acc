"""Draw meshes triangle by triangle: test each triangle against the pixels that it may cover.

1. All triangles are projected, one strip of a geom at a time. Those that face the camera, and whose
   bounding rectangle holds the centre of a pixel, are listed. A distant mesh has few of them.
2. The rectangles of the listed triangles are cut into tiles, and each ray of a tile is tested
   against the tile's triangle. A hit is that of the ray through the pixel's centre.

So the cost is linear in the number of triangles, and in the number of tiles of those in view.
Neighbouring triangles compute their common edge from the same numbers, so no ray passes between
them. Only front sides are drawn, as in MuJoCo.

Tables are read in one loop and used in another, over some hundred numbers at a time: XLA's CPU back
end would fuse the reads with every use of them, and repeat them there.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.batching import over_environments
from envs.camera.batching import at_once, in_blocks
from envs.camera.depth_keys import Encode, Payload
from envs.camera.lights import LightPoses
from envs.camera.mesh import STRIP, Meshes
from envs.camera.pinhole import Camera
from envs.camera.primitives import FAR, Hit, Primitive, Rays, dot
from envs.camera.triangle_setup import Placement, Strips, Triangles, cross, set_up_triangles

# Pixels of a tile, across and down.
_TILE = (4, 2)
# Bits in a word.
_WORD = 32
# The most that rounding may move a corner in the image, pixels.
_MARGIN = 1 / 64
# Triangles that are projected together, and triangles and tiles that are drawn together; these fit
# a CPU's caches.
_PROJECTED, _DRAWN, _TILES = 1 << 15, 2048, 512
_TINY = np.float32(1e-18)


def rasterize(
    keys: jax.Array,
    meshes: Meshes,
    assets: Sequence[int],
    camera: Camera,
    geoms: Primitive,
    payload: Payload,
    lights: LightPoses,
    encode: Encode,
) -> jax.Array:
    """Return the minimum of `keys` and of the keys of the nearest hits of mesh geoms.

    Args:
        keys: int32[R], the least keys so far.
        meshes: the meshes of the scene.
        assets: index in `meshes` of each of the G geoms.
        camera: a camera with one ray per pixel.
        geoms: the geoms in the camera's frame, leaves [G, ...].
        payload: payloads of the geoms, leaves [G].
        lights: the lights in the camera's frame.
        encode: the function that makes keys of hits.

    Returns:
        int32[R].
    """
    parts = [(g, s) for g, asset in enumerate(assets) for s in meshes.strips(asset)]
    strips = Strips(*(jnp.array(x, jnp.int32) for x in zip(*parts, strict=True)))

    def draw(keys: jax.Array, placed: Placement) -> jax.Array:
        listed, count = _in_view(meshes, strips, camera, placed.geoms)
        some = jnp.arange(at_once(_DRAWN), dtype=jnp.int32)

        def step(i: jax.Array, keys: jax.Array) -> jax.Array:
            first = i * some.size
            mine = listed.at[first + some].get(mode="clip")
            corners, triangles = set_up_triangles(mine, meshes, strips, placed, payload)
            place = _rectangles(corners, camera)
            return _fill(keys, triangles, place, count - first, camera, encode)

        flat = jax.lax.fori_loop(0, -(-count // some.size), step, keys.reshape(-1))
        return flat.reshape(keys.shape)

    def search(keys: jax.Array, placed: Placement) -> jax.Array:
        most = max(1, at_once(_PROJECTED) // (len(parts) * STRIP))
        return in_blocks(most, draw, keys, placed)

    return over_environments(search)(keys, Placement(geoms, lights))


def _in_view(
    meshes: Meshes, strips: Strips, camera: Camera, geoms: Primitive
) -> tuple[jax.Array, jax.Array]:
    """List the triangles that face the camera and may cover the centre of a pixel.

    Returns:
        int32[K * E * STRIP], indices of triangles, (k E + e) STRIP + i for triangle i of strip k in
        environment e; and int32[], the length of the list, after which the rest is unused.
    """
    corners = jnp.asarray(meshes.corners.transpose(0, 2, 3, 1))
    bits = jnp.arange(_WORD, dtype=jnp.uint32)

    def visit(_: None, strip: Strips) -> tuple[None, jax.Array]:
        geom = jax.tree.map(lambda x: x[:, strip.geom], geoms)
        seen = _may_cover(corners[strip.place], geom, camera).reshape(-1, _WORD)
        return None, (seen.astype(jnp.uint32) << bits).sum(1, dtype=jnp.uint32)

    _, words = jax.lax.scan(visit, None, strips)
    words = words.reshape(-1, 1)
    # The place of a triangle in the list: the bits set in earlier words and below its own bit.
    held = jax.lax.population_count(words).astype(jnp.int32)
    ends = jnp.cumsum(held, axis=0)
    below = jax.lax.population_count(words & ((np.uint32(1) << bits) - 1)).astype(jnp.int32)
    place = jnp.where((words >> bits) & 1 > 0, ends - held + below, words.size * _WORD).reshape(-1)
    numbers = jnp.arange(place.size, dtype=jnp.int32)
    listed = jnp.zeros_like(numbers).at[place].set(numbers, mode="drop", unique_indices=True)
    return listed, ends[-1, 0]


def _may_cover(corners: jax.Array, geom: Primitive, camera: Camera) -> jax.Array:
    """Return whether triangles may cover the centre of a pixel.

    It is true for all that do, and for few others, except that a triangle which crosses the near
    plane always counts.

    Args:
        corners: float32[3, 3, STRIP], x, y, z of each corner in the geom's frame.
        geom: leaves [E, ...].
        camera: with one ray per pixel.

    Returns:
        bool[E, STRIP].
    """
    axes, centre = geom.axes[..., None], geom.centre[..., None]
    # Right, up and back.
    points = [
        [centre[:, k] + dot([axes[:, k, i] for i in range(3)], corner) for k in range(3)]
        for corner in corners
    ]
    ahead = [-z >= np.float32(camera.near) for _, _, z in points]
    scales = [
        np.float32(camera.focal) / jnp.maximum(-z, np.float32(camera.near)) for _, _, z in points
    ]
    covers = jnp.bool_(True)
    for axis, size in enumerate((camera.width, camera.height)):
        at = [p[axis] * scale for p, scale in zip(points, scales, strict=True)]
        low, high = (f(f(at[0], at[1]), at[2]) for f in (jnp.minimum, jnp.maximum))
        covers &= _pixels(low, high, size)[1] > 0
    sides = [[a - b for a, b in zip(point, points[0], strict=True)] for point in points[1:]]
    facing = dot(cross(*sides), points[0]) < 0
    whole, some = ahead[0] & ahead[1] & ahead[2], ahead[0] | ahead[1] | ahead[2]
    return facing & some & (covers | ~whole)


def _pixels(low: jax.Array, high: jax.Array, size: Any) -> tuple[jax.Array, jax.Array]:
    """Return the first pixel of a line whose centre lies between `low` and `high`, and how many do.

    The line has `size` pixels and its middle is 0. The results are whole numbers as float32.
    """
    shift = 0.5 * size - 0.5
    first = jnp.ceil(jnp.clip(low + (shift - _MARGIN), 0, size))
    last = jnp.floor(jnp.clip(high + (shift + _MARGIN), -1, size - 1))
    return first, jnp.maximum(last - first + 1, 0)


def _rectangles(corners: jax.Array, camera: Camera) -> tuple[jax.Array, jax.Array]:
    """Return the rectangles of pixels that triangles may cover.

    Args:
        corners: float32[3, 3, n], x, y, z of each corner in the camera's frame.
        camera: with one ray per pixel.

    Returns:
        int32[2, n], first column and row; and int32[2, n], numbers of columns and rows.
    """
    near, focal = np.float32(camera.near), np.float32(camera.focal)
    depths = -corners[:, 2]

    def along(axis: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        places, size = axis
        low, high = jnp.float32(np.inf), jnp.float32(-np.inf)
        for j, k in ((0, 1), (1, 2), (2, 0)):
            ahead = depths[j] >= near
            at = places[j] * (focal / jnp.maximum(depths[j], near))
            # An edge that crosses the near plane is cut there.
            cut = ahead != (depths[k] >= near)
            share = (near - depths[j]) / jnp.where(cut, depths[k] - depths[j], 1)
            end = (places[j] + share * (places[k] - places[j])) * (focal / near)
            for point, counts in ((at, ahead), (end, cut)):
                low = jnp.minimum(low, jnp.where(counts, point, np.inf))
                high = jnp.maximum(high, jnp.where(counts, point, -np.inf))
        first, number = _pixels(low, high, size)
        return first.astype(jnp.int32), number.astype(jnp.int32)

    size = jnp.array([camera.width, camera.height], jnp.float32)
    return jax.lax.map(along, (jnp.stack([corners[:, 0], -corners[:, 1]]), size))


def _fill(
    keys: jax.Array,
    triangles: Triangles,
    rectangles: tuple[jax.Array, jax.Array],
    count: jax.Array,
    camera: Camera,
    encode: Encode,
) -> jax.Array:
    """Return the minimum of keys int32[E * R] and those of hits of the first `count` triangles."""
    lanes = jnp.arange(at_once(_TILES), dtype=jnp.int32)
    each = jnp.arange(len(triangles.environment), dtype=jnp.int32)
    first, number = rectangles
    tiles = [-(-n // t) for n, t in zip(number, _TILE, strict=True)]
    held = jnp.where(each < count, tiles[0] * tiles[1], 0)
    ends = jnp.cumsum(held)
    starts = ends - held

    def cover(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Draw the next tiles."""
        done, keys = state
        mine = done + lanes
        # A tile belongs to the last triangle whose first tile is it or comes before it.
        at = jnp.where(starts >= done, starts - done, lanes.size)
        owner = jnp.zeros_like(lanes).at[0].set((ends <= done).sum(dtype=jnp.int32))
        owner = jax.lax.cummax(owner.at[at].max(each, mode="drop"))
        owner = jnp.minimum(owner, each.size - 1)
        take = lambda x: x.at[..., owner].get(mode="promise_in_bounds")
        ours = jax.tree.map(take, triangles)
        origin, extent, wide, before = map(take, (first, number, tiles[0], starts))
        nth = mine - before
        left, top = nth % wide * _TILE[0], nth // wide * _TILE[1]
        live = mine < ends[-1]

        def pixel(j: jax.Array, keys: jax.Array) -> jax.Array:
            across, down = left + j % _TILE[0], top + j // _TILE[0]
            column, row = origin[0] + across, origin[1] + down
            key = _key(camera.rays_at(column, row), ours, encode)
            inside = live & (across < extent[0]) & (down < extent[1])
            place = (ours.environment * camera.height + row) * camera.width + column
            return keys.at[jnp.where(inside, place, keys.size)].min(key, mode="drop")

        return done + lanes.size, jax.lax.fori_loop(0, _TILE[0] * _TILE[1], pixel, keys)

    return jax.lax.while_loop(lambda s: s[0] < ends[-1], cover, (jnp.int32(0), keys))[1]


def _key(rays: Rays, triangles: Triangles, encode: Encode) -> jax.Array:
    """Return the keys int32[n] of the hits of n rays with one triangle each."""
    # The weights of the three corners in the hit, none negative if it is inside.
    weights = [rays.dot(edge) for edge in triangles.edges]
    # Both are negative where a ray meets a front side.
    facing, offset = rays.dot(triangles.normal), triangles.offset
    inside = (facing < -_TINY) & (weights[0] >= 0) & (weights[1] >= 0) & (weights[2] >= 0)
    inside &= offset < rays.near * facing
    # A quotient with one user is not written to memory.
    depth = jnp.where(inside, offset, -FAR) / jnp.where(inside, facing, -1)
    normals = triangles.normals
    mixed = [sum(w * n[i] for w, n in zip(weights, normals, strict=True)) for i in range(3)]
    length = jax.lax.rsqrt(jnp.maximum(dot(mixed, mixed), _TINY**2))
    normal = tuple(m * length for m in mixed)
    return encode(rays, Hit(depth, normal), triangles.payload, triangles.lights)
