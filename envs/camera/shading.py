"""Compute the colours of pixels from their hits: one texel each, lit by the hit's shade."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera.batching import in_parts
from envs.camera.box_row import END, PHASE_BITS, TOP, RowHit
from envs.camera.pinhole import Camera
from envs.camera.primitives import BOX, FAR, PLANE, Primitive, Rays
from envs.camera.rounding import low_bits
from envs.camera.scene import Scene, Texture
from envs.camera.texture_atlas import Coordinates

# The lower bound of the squared sine of the angle between a ray and a textured surface.
_GRAZING = np.float32(1e-4)


class View(NamedTuple):
    """The rays of an image and what they may hit.

    Attributes:
        rays: the rays in the camera's frame.
        world: three of float32[R], the rays in the world's frame.
        position: float32[3], position of the camera in the world, metres.
        frame: float32[3, 3], the camera's axes in the world, as columns.
        geoms: all geoms in the camera's frame, leaves [G, ...].
        row: where rays enter the row of platforms, if there is one.
    """

    rays: Rays
    world: tuple[jax.Array, ...]
    position: jax.Array
    frame: jax.Array
    geoms: Primitive
    row: RowHit | None


def pixel_colours(
    scene: Scene,
    camera: Camera,
    view: View,
    depth: jax.Array,
    surface: jax.Array,
    shade: jax.Array,
    code: jax.Array | None,
    missed: jax.Array,
) -> jax.Array:
    """Return the colours of pixels.

    Args:
        scene: the static description.
        camera: a camera with one ray per pixel.
        view: the rays and geoms.
        depth: float32[R], depths of the hits, metres.
        surface: int32[R], surfaces that were hit.
        shade: float32[R], shades of the hits, in [0, 1].
        code: int32[R], `RowHit.code` of hits of the row; None without a row.
        missed: bool[R], pixels that show the sky.

    Returns:
        int32[R], red in the lowest byte, then green and blue.
    """
    pixel = camera.pixel
    where = _on_textures(scene, view, depth, surface, code, pixel)
    index = scene.atlas.index(surface, where)
    index = jnp.where(missed, scene.atlas.sky_index(view.world, pixel), index)
    texels = scene.atlas.read(index, pixel)
    # The sky is not lit; a negative shade marks it.
    shade = jnp.where(missed, np.float32(-1), shade)

    def mix(texel: jax.Array, shade: jax.Array) -> jax.Array:
        packed = jnp.zeros(shade.shape, jnp.int32)
        lighting = scene.lighting
        for i in range(3):
            light = lighting.ambient[i] + lighting.diffuse[i] * shade
            light = jnp.where(shade < 0, 1, light)
            colour = ((texel >> (8 * i)) & 255).astype(jnp.float32) * light
            packed |= low_bits(jnp.minimum(colour, 255)) << (8 * i)
        return packed

    return in_parts(mix, texels, shade)


def _on_textures(
    scene: Scene,
    view: View,
    depth: jax.Array,
    surface: jax.Array,
    code: jax.Array | None,
    pixel: float,
) -> Coordinates | None:
    """Return texture coordinates of pixels; None for a scene without textures."""
    geoms = [texture for texture in scene.textures if texture.geom >= 0]
    where = _on_geoms(geoms, view, depth, surface, pixel) if geoms else None
    for texture in scene.textures:
        if texture.geom < 0 and code is not None:
            in_row = _on_row(scene, view, texture, code, depth, pixel)
            shown = surface == texture.surface
            pairs = zip(in_row, where or in_row, strict=True)
            where = Coordinates(*(jnp.where(shown, a, b) for a, b in pairs))
    return where


def _on_geoms(
    textures: list[Texture], view: View, depth: jax.Array, surface: jax.Array, pixel: float
) -> Coordinates:
    """Return texture coordinates on geoms.

    MuJoCo maps a flat texture by x and y of the geom's frame, and on the sides of a box by z in
    place of one of them. Each pixel reads the frame of its geom from a table, by the surface that
    it shows, so the cost does not grow with the number of textured geoms.
    """
    textures = sorted(textures, key=lambda texture: texture.surface)
    surfaces = np.array([texture.surface for texture in textures])
    which = np.array([texture.geom for texture in textures])
    geoms = jax.tree.map(lambda x: x[which], view.geoms)
    repeats = 0.5 * jnp.array([texture.repeats for texture in textures], jnp.float32)
    uniform = np.array([texture.uniform for texture in textures])[:, None]
    length = geoms.size[:, :2]
    repeats = jnp.where(uniform | (length <= 0), repeats, repeats / length)
    # A texture begins at a corner of a box or a finite plane. Any other geom has it as if it were
    # one repeat wide, and a plane that is finite along one axis has it half a repeat further on.
    kinds = np.array([texture.kind for texture in textures])[:, None]
    ends = np.isin(kinds, (BOX, PLANE)) & (length > 0)
    middle = jnp.where(ends.all(1, keepdims=True), 0, 0.5 / jnp.where(repeats == 0, FAR, repeats))
    across = jnp.where(ends, length, 0) + middle
    # A geom other than a box shows the face with normal z: no point is as far outside another face.
    height = jnp.where(kinds == BOX, geoms.size[:, 2:], -FAR)
    size = jnp.concatenate([across, height], axis=1)
    on_sides = jnp.stack(_repeats_on_sides(repeats.T, size.T), axis=1)
    offset = jnp.einsum("gki,gk->gi", geoms.axes, geoms.centre, precision="highest")
    table = [geoms.axes.reshape(-1, 9), offset, size, repeats, on_sides]
    row = jnp.clip(jnp.searchsorted(surfaces, jnp.arange(surfaces[-1] + 1)), 0, len(surfaces) - 1)
    columns = iter(jnp.concatenate(table, axis=1)[jnp.asarray(row)].T)
    seen = jnp.minimum(surface, surfaces[-1])
    # A table with one row needs no reading.
    pick = lambda column: (
        column.at[seen].get(mode="promise_in_bounds") if len(textures) > 1 else column[0]
    )
    read = lambda number: [pick(next(columns)) for _ in range(number)]
    axis, origin, half, repeat, on_side = read(9), read(3), read(3), read(2), read(2)
    slopes = [view.rays.u * axis[i] + view.rays.v * axis[3 + i] - axis[6 + i] for i in range(3)]
    x, y, z = (depth * slope - origin[i] for i, slope in enumerate(slopes))
    out = [jnp.abs(p) - half[i] for i, p in enumerate((x, y, z))]
    end, top = (out[0] > out[1]) & (out[0] > out[2]), out[2] >= out[1]
    face = Face(end, ~end & top)
    return _on_face(face, (x, y, z), slopes, half, repeat, on_side, view, depth, pixel)


def _on_row(
    scene: Scene,
    view: View,
    texture: Texture,
    code: jax.Array,
    depth: jax.Array,
    pixel: float,
) -> Coordinates:
    """Return texture coordinates on the boxes of the row, each texture from its box's start."""
    row = scene.row
    assert row is not None and view.row is not None
    place = [view.position[i] + depth * view.world[i] for i in range(3)]
    middle = [np.float32(0.5 * sum(span)) for span in (row.y, row.z)]
    half = [np.float32(0.5 * (span[1] - span[0])) for span in (row.y, row.z)]
    repeats = [np.float32(0.5 * r) for r in texture.repeats]
    kind = code >> PHASE_BITS
    face = Face(kind == END, kind == TOP)
    phase = (code & ((1 << PHASE_BITS) - 1)).astype(jnp.float32)
    start = phase * np.float32(1 / (1 << PHASE_BITS) / repeats[0])
    x = place[0] - (start + view.row.length)
    size = (view.row.length, *half)
    local = (x, place[1] - middle[0], place[2] - middle[1])
    on_sides = _repeats_on_sides(repeats, size)
    return _on_face(face, local, view.world, size, repeats, on_sides, view, depth, pixel)


class Face(NamedTuple):
    """The faces of a box that pixels show.

    Attributes:
        end: bool[R], the normal is along x.
        top: bool[R], the normal is along z. It is along y if both are false.
    """

    end: jax.Array
    top: jax.Array


def _repeats_on_sides(repeats, size):
    """Return repeats per metre along y on an end face, and along z on an end or a side face.

    MuJoCo repeats a texture as often along y of an end face as along x of the top, and as often
    along z as along y of the top, whatever their lengths.
    """
    return repeats[0] * size[0] / size[1], repeats[1] * size[1] / size[2]


def _on_face(face, local, slopes, size, repeats, on_sides, view, depth, pixel) -> Coordinates:
    """Return texture coordinates on the faces of a box, from a corner of each face.

    Source: `makeBuiltin` in MuJoCo's render_context.c.

    Args:
        face: the faces.
        local: three of float32[R], the hits in the box's frame, metres.
        slopes: three of float32[R], the rays in the box's frame.
        size: three half lengths, metres.
        repeats: two numbers of repeats per metre, along x and y.
        on_sides: two numbers, `_repeats_on_sides`.
        view: the rays.
        depth: float32[R], metres.
        pixel: width of a pixel at a distance of one metre, metres.
    """
    x, y, z = local
    across, along = repeats
    s = jnp.where(face.end, y * on_sides[0], x * across) + size[0] * across
    t = size[1] * along - jnp.where(face.top, y * along, z * on_sides[1])
    slope = jnp.where(face.end, slopes[0], jnp.where(face.top, slopes[2], slopes[1]))
    most = jnp.where(face.top, jnp.maximum(across, along), jnp.maximum(across, on_sides[1]))
    reach = depth * np.float32(pixel) * most
    area = reach * reach * view.rays.dd / jnp.maximum(slope * slope, _GRAZING)
    return Coordinates(s, t, area)
