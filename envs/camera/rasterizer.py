"""Meshes are drawn triangle by triangle: each asks which pixels it covers.

All triangles are projected, a strip of one geom at a time. Those that face the camera, and whose
bounding rectangle holds the centre of a pixel, are listed: in a mesh seen from afar they are few.
Their rectangles are cut into tiles, and every ray of a tile is tested against its triangle. So the
work is some for each triangle, and some for each tile of what is in view; no ray walks a tree, and
the hit is that of the ray through the pixel's centre. Neighbours compute their common edge from the
same numbers, so that no ray slips through between them. Only front sides show, as in MuJoCo.

Everything is a loop over arrays of some hundred numbers, since XLA's CPU back end makes one
vectorised loop of arithmetic, but fuses reads of tables with what uses them and repeats them
there: hence they are made in one loop and used in another.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera.batching import at_once, in_blocks, over_environments
from envs.camera.facets import Facets, Strips, Surroundings, cross, read_facets
from envs.camera.keys import Encode, Payload
from envs.camera.lights import LightPoses
from envs.camera.mesh import STRIP, Meshes
from envs.camera.pinhole import Camera
from envs.camera.primitives import FAR, Hit, Primitive, Rays, dot

# Pixels of a tile, across and down.
_TILE = (4, 2)
# Bits of a word.
_WORD = 32
# What rounding may move a corner in the picture, pixels.
_MARGIN = 1 / 64
# Triangles projected together, and how many triangles and tiles are drawn together: what suits the
# caches of a CPU.
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
    """Lowers keys to the nearest hits of mesh geoms.

    Args:
        keys: int32[R].
        meshes: those of the scene.
        assets: G of them, which one each geom is.
        camera: with one ray per pixel.
        geoms: in the camera's frame, leaves [G, ...].
        payload: leaves [G].
        lights: in the camera's frame.
        encode: see `keys.Encode`.

    Returns:
        int32[R].
    """
    parts = [(g, s) for g, asset in enumerate(assets) for s in meshes.strips(asset)]
    strips = Strips(*(jnp.array(x, jnp.int32) for x in zip(*parts, strict=True)))

    def draw(keys: jax.Array, around: Surroundings) -> jax.Array:
        triangles, count = _in_view(meshes, strips, camera, around.geoms)
        some = jnp.arange(at_once(_DRAWN), dtype=jnp.int32)

        def step(i: jax.Array, keys: jax.Array) -> jax.Array:
            first = i * some.size
            mine = triangles.at[first + some].get(mode="clip")
            corners, facets = read_facets(mine, meshes, strips, around, payload)
            place = _rectangles(corners, camera)
            return _fill(keys, facets, place, count - first, camera, encode)

        flat = jax.lax.fori_loop(0, -(-count // some.size), step, keys.reshape(-1))
        return flat.reshape(keys.shape)

    def search(keys: jax.Array, around: Surroundings) -> jax.Array:
        most = max(1, at_once(_PROJECTED) // (len(parts) * STRIP))
        return in_blocks(most, draw, keys, around)

    return over_environments(search)(keys, Surroundings(geoms, lights))


def _in_view(
    meshes: Meshes, strips: Strips, camera: Camera, geoms: Primitive
) -> tuple[jax.Array, jax.Array]:
    """Lists the triangles that face the camera and may cover the centre of a pixel.

    Returns:
        int32[K * E * STRIP], numbers of triangles: (k E + e) STRIP + i for triangle i of strip k in
        environment e; and int32[], how many of them count.
    """
    corners = jnp.asarray(meshes.corners.transpose(0, 2, 3, 1))
    bits = jnp.arange(_WORD, dtype=jnp.uint32)

    def visit(_: None, strip: Strips) -> tuple[None, jax.Array]:
        geom = jax.tree.map(lambda x: x[:, strip.geom], geoms)
        seen = _may_cover(corners[strip.place], geom, camera).reshape(-1, _WORD)
        return None, (seen.astype(jnp.uint32) << bits).sum(1, dtype=jnp.uint32)

    _, words = jax.lax.scan(visit, None, strips)
    words = words.reshape(-1, 1)
    # How many come before a triangle is told by the words before its own and the bits below its.
    held = jax.lax.population_count(words).astype(jnp.int32)
    ends = jnp.cumsum(held, axis=0)
    below = jax.lax.population_count(words & ((np.uint32(1) << bits) - 1)).astype(jnp.int32)
    place = jnp.where((words >> bits) & 1 > 0, ends - held + below, words.size * _WORD).reshape(-1)
    numbers = jnp.arange(place.size, dtype=jnp.int32)
    listed = jnp.zeros_like(numbers).at[place].set(numbers, mode="drop", unique_indices=True)
    return listed, ends[-1, 0]


def _may_cover(corners: jax.Array, geom: Primitive, camera: Camera) -> jax.Array:
    """Whether triangles may cover the centre of a pixel; sound, and tight where all is ahead.

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
    """Of `size` pixels in a line, whose middle is 0, the first that has its centre between `low`
    and `high`, and how many have; whole numbers as float32."""
    shift = 0.5 * size - 0.5
    first = jnp.ceil(jnp.clip(low + (shift - _MARGIN), 0, size))
    last = jnp.floor(jnp.clip(high + (shift + _MARGIN), -1, size - 1))
    return first, jnp.maximum(last - first + 1, 0)


def _rectangles(corners: jax.Array, camera: Camera) -> tuple[jax.Array, jax.Array]:
    """The pixels that triangles may cover.

    Args:
        corners: float32[3, 3, n], x, y, z of each in the camera's frame.
        camera: with one ray per pixel.

    Returns:
        int32[2, n], the first column and row; and int32[2, n], how many.
    """
    near, focal = np.float32(camera.near), np.float32(camera.focal)
    depths = -corners[:, 2]

    def along(axis: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        places, size = axis
        low, high = jnp.float32(np.inf), jnp.float32(-np.inf)
        for j, k in ((0, 1), (1, 2), (2, 0)):
            ahead = depths[j] >= near
            at = places[j] * (focal / jnp.maximum(depths[j], near))
            # An edge that ends behind the near plane is seen up to there.
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
    facets: Facets,
    rectangles: tuple[jax.Array, jax.Array],
    count: jax.Array,
    camera: Camera,
    encode: Encode,
) -> jax.Array:
    """Lowers keys int32[E * R] to the hits of the first `count` of some triangles."""
    lanes = jnp.arange(at_once(_TILES), dtype=jnp.int32)
    each = jnp.arange(len(facets.environment), dtype=jnp.int32)
    first, number = rectangles
    tiles = [-(-n // t) for n, t in zip(number, _TILE, strict=True)]
    held = jnp.where(each < count, tiles[0] * tiles[1], 0)
    ends = jnp.cumsum(held)
    starts = ends - held

    def cover(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Draws as many tiles."""
        done, keys = state
        mine = done + lanes
        # A tile belongs to the last triangle whose tiles begin at it or before.
        at = jnp.where(starts >= done, starts - done, lanes.size)
        owner = jnp.zeros_like(lanes).at[0].set((ends <= done).sum(dtype=jnp.int32))
        owner = jax.lax.cummax(owner.at[at].max(each, mode="drop"))
        owner = jnp.minimum(owner, each.size - 1)
        take = lambda x: x.at[..., owner].get(mode="promise_in_bounds")
        ours = jax.tree.map(take, facets)
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


def _key(rays: Rays, facets: Facets, encode: Encode) -> jax.Array:
    """Keys of the hits of rays n with triangles n."""
    # The shares of the three corners in the hit, none negative if it is inside.
    weights = [rays.dot(edge) for edge in facets.edges]
    # Both are negative where a front side is met.
    facing, reach = rays.dot(facets.normal), facets.reach
    inside = (facing < -_TINY) & (weights[0] >= 0) & (weights[1] >= 0) & (weights[2] >= 0)
    inside &= reach < rays.near * facing
    # A quotient that has one user is not held in memory.
    depth = jnp.where(inside, reach, -FAR) / jnp.where(inside, facing, -1)
    mixed = [sum(w * n[i] for w, n in zip(weights, facets.normals, strict=True)) for i in range(3)]
    length = jax.lax.rsqrt(jnp.maximum(dot(mixed, mixed), _TINY**2))
    normal = tuple(m * length for m in mixed)
    return encode(rays, Hit(depth, normal), facets.payload, facets.lights)
