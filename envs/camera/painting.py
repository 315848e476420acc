"""Colours of what was hit: one texel per pixel, lit by the shade that the hit was given."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera.palette import Coordinates, in_parts, low_bits
from envs.camera.pinhole import Camera
from envs.camera.primitives import BOX, FAR, PLANE, Primitive, Rays
from envs.camera.row import END, PHASE_BITS, TOP, RowHit
from envs.camera.scene import Scene, Texture

# The least squared sine of the angle at which a textured surface is looked at.
_GRAZING = np.float32(1e-4)


class View(NamedTuple):
    """What is known about a picture before anything is hit.

    Attributes:
        rays: in the camera's frame.
        world: three of float32[R], the rays in the world's frame.
        position: float32[3], of the camera in the world, metres.
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


def paint(
    scene: Scene,
    camera: Camera,
    view: View,
    depth: jax.Array,
    surface: jax.Array,
    shade: jax.Array,
    code: jax.Array | None,
    missed: jax.Array,
) -> jax.Array:
    """Colours pixels.

    Args:
        scene: what there is.
        camera: with one ray per pixel.
        view: where things are.
        depth: float32[R], of the hits, metres.
        surface: int32[R], of the hits.
        shade: float32[R], in [0, 1], of the hits.
        code: int32[R], as of `RowHit`, where the row was hit.
        missed: bool[R], where nothing was hit: the sky.

    Returns:
        uint32[R], red in the lowest byte, then green and blue.
    """
    pixel = camera.pixel
    where = _on_textures(scene, view, depth, surface, code, pixel)
    index = scene.palette.index(surface, where)
    index = jnp.where(missed, scene.palette.sky_index(view.world, pixel), index)
    texels = scene.palette.read(index, pixel)
    # A pixel of the sky shines by itself.
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
    """Where pixels fall on the textures that they show, if there are any."""
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
    """MuJoCo's flat mapping: x and y of the geom's own frame; on the sides of a box, z for one.

    A pixel reads the frame of the geom that it shows from a table, by its surface, so that many
    textured geoms cost no more than one.
    """
    textures = sorted(textures, key=lambda texture: texture.surface)
    surfaces = np.array([texture.surface for texture in textures])
    which = np.array([texture.geom for texture in textures])
    geoms = jax.tree.map(lambda x: x[which], view.geoms)
    repeats = 0.5 * jnp.array([texture.repeats for texture in textures], jnp.float32)
    uniform = np.array([texture.uniform for texture in textures])[:, None]
    length = geoms.size[:, :2]
    repeats = jnp.where(uniform | (length <= 0), repeats, repeats / length)
    # A texture begins at a corner of a box and of a plane that ends; on all else it lies as if that
    # were a repeat wide, and half a repeat further on a plane that ends along one axis only. The
    # face across z of what is no box shows, since no other is as far out.
    kinds = np.array([texture.kind for texture in textures])[:, None]
    ends = np.isin(kinds, (BOX, PLANE)) & (length > 0)
    middle = jnp.where(ends.all(1, keepdims=True), 0, 0.5 / jnp.where(repeats == 0, FAR, repeats))
    across = jnp.where(ends, length, 0) + middle
    height = jnp.where(kinds == BOX, geoms.size[:, 2:], -FAR)
    size = jnp.concatenate([across, height], axis=1)
    offset = jnp.einsum("gki,gk->gi", geoms.axes, geoms.centre, precision="highest")
    table = jnp.concatenate([geoms.axes.reshape(-1, 9), offset, size, repeats], axis=1)
    row = jnp.clip(jnp.searchsorted(surfaces, jnp.arange(surfaces[-1] + 1)), 0, len(surfaces) - 1)
    row = jnp.asarray(row)
    seen = jnp.minimum(surface, surfaces[-1])
    columns = iter(table[row].T)
    # A table of one row need not be read.
    pick = lambda column: (
        column.at[seen].get(mode="promise_in_bounds") if len(textures) > 1 else column[0]
    )
    read = lambda number: [pick(next(columns)) for _ in range(number)]
    axis, origin, half, repeat = read(9), read(3), read(3), read(2)
    slopes = [view.rays.u * axis[i] + view.rays.v * axis[3 + i] - axis[6 + i] for i in range(3)]
    x, y, z = (depth * slope - origin[i] for i, slope in enumerate(slopes))
    out = [jnp.abs(p) - half[i] for i, p in enumerate((x, y, z))]
    end, top = (out[0] > out[1]) & (out[0] > out[2]), out[2] >= out[1]
    return _on_face(Face(end, ~end & top), (x, y, z), slopes, half, repeat, view, depth, pixel)


def _on_row(
    scene: Scene,
    view: View,
    texture: Texture,
    code: jax.Array,
    depth: jax.Array,
    pixel: float,
) -> Coordinates:
    """The same on boxes that are aligned with the world, each from its own start."""
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
    return _on_face(face, local, view.world, size, repeats, view, depth, pixel)


class Face(NamedTuple):
    """Which face of a box: a side along x is neither."""

    end: jax.Array
    top: jax.Array


def _on_face(face, local, slopes, size, repeats, view, depth, pixel) -> Coordinates:
    """Texture coordinates on the faces of a box (makeBuiltin, render_context.c).

    A texture begins at a corner of each face, and is as often repeated across one along y and z as
    across one along x and y, however narrow it is.
    """
    x, y, z = local
    across, along = repeats
    narrow = across * size[0] / size[1], along * size[1] / size[2]
    s = jnp.where(face.end, y * narrow[0], x * across) + size[0] * across
    t = size[1] * along - jnp.where(face.top, y * along, z * narrow[1])
    slope = jnp.where(face.end, slopes[0], jnp.where(face.top, slopes[2], slopes[1]))
    most = jnp.where(face.top, jnp.maximum(across, along), jnp.maximum(across, narrow[1]))
    reach = depth * np.float32(pixel) * most
    area = reach * reach * view.rays.dd / jnp.maximum(slope * slope, _GRAZING)
    return Coordinates(s, t, area)
