"""Pictures of a scene: colour, depth and labels of what each pixel's ray meets first.

The nearest hit is a minimum over primitives of a 32-bit key whose high bits are the depth (a
positive float orders as its bits do) and whose low bits are what has to be known about the winner:
its surface and shade, or its label. So one running minimum of one array is all that the loop over
primitives carries, and colours are mixed once per pixel, after it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.camera.palette import in_parts, low_bits
from envs.camera.primitives import (
    FAR,
    INTERSECTIONS,
    Primitive,
    Rays,
    in_view,
)
from envs.camera.row import row_hit, row_index
from envs.camera.scene import Scene

_PAYLOAD_BITS = 12
_PAYLOAD = (1 << _PAYLOAD_BITS) - 1
# The least key of a ray that hits nothing.
_MISS = FAR.view(np.int32) & np.int32(~_PAYLOAD)
# A batch is drawn in at most so many blocks, of at least so many environments.
_BLOCKS = 32
_BLOCK = 4


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera, as MuJoCo's: pixel (0, 0) is top left, rays go through pixel centres.

    Attributes:
        height: pixels.
        width: pixels.
        fovy: vertical field of view, degrees.
        near: distance along the optical axis below which nothing is drawn, metres.
        name: of the MJCF camera.
    """

    height: int = 64
    width: int = 64
    fovy: float = 45.0
    near: float = 0.01
    name: str = ""

    def __post_init__(self) -> None:
        """Checks the picture's size and the field of view."""
        for field in ("height", "width"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field} is {getattr(self, field)}; it must be 1 pixel or more.")
        if not 0 < self.fovy < 180:
            raise ValueError(f"fovy is {self.fovy}; it must lie between 0 and 180 degrees.")

    @classmethod
    def from_model(
        cls, model: mujoco.MjModel, name: str, *, height: int = 64, width: int = 64
    ) -> "Camera":
        """Takes the field of view and the near plane of camera `name` of `model`.

        Raises:
            ValueError: there is no such camera, it is orthographic or has its own intrinsics, or
              the picture is empty.
        """
        camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
        if camera < 0:
            names = ", ".join(repr(model.camera(i).name) for i in range(model.ncam)) or "none"
            raise ValueError(f"the model has no camera named {name!r}; it has: {names}.")
        if model.cam_sensorsize[camera, 0] > 0 or model.cam_projection[camera] != 0:
            raise ValueError(
                f"camera {name!r} is orthographic or sets its own sensor size; only perspective "
                "cameras that give `fovy` can be drawn."
            )
        near = float(model.vis.map.znear * model.stat.extent)
        return cls(height, width, float(model.cam_fovy[camera]), near, name)

    def rays(self) -> Rays:
        """Returns one ray per pixel, row by row from the top left; R = height * width."""
        focal = 0.5 * self.height / np.tan(np.deg2rad(self.fovy) / 2)
        u = (np.arange(self.width) + 0.5 - self.width / 2) / focal
        v = (self.height / 2 - np.arange(self.height) - 0.5) / focal
        u, v = (x.astype(np.float32).ravel() for x in np.meshgrid(u, v))
        return Rays(u, v, 1 + u * u + v * v, self.near)


@flax.struct.dataclass
class Image:
    """What a camera sees. Outputs that are not used cost nothing under jit.

    Attributes:
        rgb: uint8[H, W, 3].
        depth: float32[H, W], distance along the optical axis in metres, as MuJoCo's renderer gives
          it; +inf for sky.
        segmentation: int32[H, W], the model id of the geom; `num_geoms + i` for platform i of the
          scene's row; -1 for sky.
    """

    rgb: jax.Array
    depth: jax.Array
    segmentation: jax.Array


def render(
    scene: Scene,
    camera: Camera,
    geom_pos: jax.Array,
    geom_mat: jax.Array,
    geom_size: jax.Array,
    cam_pos: jax.Array,
    cam_mat: jax.Array,
    platforms: jax.Array | None = None,
) -> Image:
    """Draws one environment; `jax.vmap` draws many.

    Geoms are opaque and lit by MuJoCo's headlight (ambient and diffuse). Textures are fixed to the
    world, not to the geom that carries them.

    Args:
        scene: what is drawn; G geoms.
        camera: size and field of view.
        geom_pos: float32[G, 3], centres in the world, metres, in the order of `scene.geom_ids`.
        geom_mat: float32[G, 3, 3], orientations (`geom_xmat`).
        geom_size: float32[G, 3], as MuJoCo's `geom_size`. A geom of size 0 is not drawn.
        cam_pos: float32[3], `cam_xpos`.
        cam_mat: float32[3, 3], `cam_xmat`: looks along -z, y up.
        platforms: float32[P, 2], where each box of the scene's row starts and ends along the
          world's x axis, metres, in any order; one that does not end after its start is not drawn.

    Raises:
        ValueError: shapes that do not fit the scene, or platforms for a scene without a row.
    """
    _check(scene, geom_pos, geom_mat, geom_size, cam_pos, cam_mat, platforms)
    rays = camera.rays()
    groups = list(_groups(scene, rays, geom_pos, geom_mat, geom_size, cam_pos, cam_mat))
    world = tuple(rays.dot(cam_mat[i]) for i in range(3))
    row = None
    if platforms is not None and scene.row is not None:
        row = row_hit(scene.row, platforms, world, cam_pos, camera.near)

    def nearest(encode: Callable[..., jax.Array], row_payload: tuple) -> jax.Array:
        keys = jnp.full(rays.u.shape, _MISS)
        if row is not None:
            keys = jnp.minimum(keys, encode(*row, row_payload))
        for kind, members in groups:
            keys = _closest(keys, kind, members, rays, encode)
        return keys

    shade_bits = _PAYLOAD_BITS - max(1, (len(scene.palette.surfaces) - 1).bit_length())
    levels = (1 << shade_bits) - 1
    shading = levels / np.sqrt(rays.dd)

    def appearance(depth: jax.Array, facing: jax.Array, payload) -> jax.Array:
        shade = low_bits(jnp.minimum(facing * shading, levels)) & levels
        return _pack(depth, (payload[0] << shade_bits) | shade)

    def label(depth: jax.Array, facing: jax.Array, payload) -> jax.Array:
        return _pack(depth, payload[1])

    def exact(depth: jax.Array, facing: jax.Array, payload) -> jax.Array:
        return jax.lax.bitcast_convert_type(depth, jnp.int32)

    surface: int = scene.row.surface if scene.row is not None else 0
    platform: jax.Array | int = 0
    if row is not None and platforms is not None:
        platform = scene.num_geoms + row_index(platforms, cam_pos[0] + row[0] * world[0])
    seen = nearest(appearance, (surface, 0))
    rgb = _paint(scene, camera, rays, world, cam_pos, cam_mat[2], seen, shade_bits)
    reach = nearest(exact, (0, 0))
    metres = jax.lax.bitcast_convert_type(reach, jnp.float32)
    depth = jnp.where(reach < _MISS, metres, jnp.float32(np.inf))
    named = nearest(label, (0, platform))
    segmentation = jnp.where(named < _MISS, named & _PAYLOAD, -1)
    shape = (camera.height, camera.width)
    return Image(rgb.reshape(*shape, 3), depth.reshape(shape), segmentation.reshape(shape))


def _pack(depth: jax.Array, payload: jax.Array | int) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(depth, jnp.int32)
    return (bits & np.int32(~_PAYLOAD)) | payload


def _groups(scene, rays, geom_pos, geom_mat, geom_size, cam_pos, cam_mat):
    """Geoms by kind in the camera's frame, those in view first, with their number."""
    exact = jax.lax.Precision.HIGHEST
    centres = jnp.einsum("gi,ij->gj", geom_pos - cam_pos, cam_mat, precision=exact)
    axes = jnp.einsum("ij,gik->gjk", cam_mat, geom_mat, precision=exact)
    for kind in sorted(set(scene.kinds)):
        members = np.flatnonzero(np.asarray(scene.kinds) == kind)
        geoms = Primitive(centres[members], axes[members], geom_size[members])
        payload = jnp.stack(
            [scene.geom_surfaces[members], scene.geom_ids[members]], axis=1, dtype=jnp.int32
        )
        visible = jax.vmap(lambda geom, kind=kind: in_view(kind, rays, geom))(geoms)
        # What is out of view goes where no ray does: rounding must not show a geom of no size.
        behind = jnp.array([0, 0, 1e3], jnp.float32)
        geoms = geoms._replace(centre=jnp.where(visible[:, None], geoms.centre, behind))
        first = jnp.argsort(~visible)
        yield (
            kind,
            (*jax.tree.map(lambda x, first=first: x[first], (geoms, payload)), visible.sum()),
        )


def _closest(keys: jax.Array, kind: int, members: tuple, rays: Rays, encode: Callable) -> jax.Array:
    """Lowers `keys`, int32[R], to the nearest hits of one kind of geoms."""

    def nth(geom: Primitive, payload: jax.Array) -> jax.Array:
        return encode(*INTERSECTIONS[kind](rays, geom), payload)

    @jax.custom_batching.custom_vmap
    def search(keys, geoms, payload, count):
        """Lowers keys int32[N, R] of N environments, whose first `count` geoms are in view.

        A block of environments is done once the one of them that sees most geoms is.
        """
        number = len(count)
        block = min(number, max(_BLOCK, -(-number // _BLOCKS)))

        def visit(i: jax.Array, keys: jax.Array) -> jax.Array:
            # The last block may overlap the one before: a minimum can be taken twice.
            first = jnp.minimum(i * block, number - block)
            cut = lambda x: jax.lax.dynamic_slice_in_dim(x, first, block)

            def draw(n: jax.Array, keys: jax.Array) -> jax.Array:
                one = jax.tree.map(lambda x: cut(x)[:, n], (geoms, payload))
                nearer = jnp.minimum(cut(keys), jax.vmap(nth)(*one))
                return jax.lax.dynamic_update_slice_in_dim(keys, nearer, first, 0)

            return jax.lax.fori_loop(0, cut(count).max(), draw, keys)

        return jax.lax.fori_loop(0, -(-number // block), visit, keys)

    @search.def_vmap
    def _(axis_size: int, in_batched: Any, *args: Any) -> tuple[jax.Array, bool]:
        # A batch of batches is a longer batch.
        whole = [
            jax.tree.map(
                lambda x, b: x if b else jnp.broadcast_to(x, (axis_size, *x.shape)), arg, batched
            )
            for arg, batched in zip(args, in_batched, strict=True)
        ]
        number = whole[-1].shape[1]
        keys = search(*jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), whole))
        return keys.reshape(axis_size, number, -1), True

    return search(*jax.tree.map(lambda x: x[None], (keys, *members)))[0]


def _paint(scene, camera, rays, world, cam_pos, up, seen, shade_bits):
    """Colours of the keys `seen`, uint8[R, 3]; `up` is the world's z in the camera's frame."""
    levels = (1 << shade_bits) - 1
    depth = jax.lax.bitcast_convert_type(seen & np.int32(~_PAYLOAD), jnp.float32)
    shade = (seen & levels).astype(jnp.float32) * np.float32(1 / levels)
    surface = (seen & _PAYLOAD) >> shade_bits
    pixel = 2 * np.tan(np.deg2rad(camera.fovy) / 2) / camera.height
    point = tuple(cam_pos[i] + depth * world[i] for i in range(3))
    # Seen at a slant a pixel is longer than wide; the geometric mean blurs the one and keeps
    # enough of the other.
    area = (depth * np.float32(pixel)) ** 2 / jnp.maximum(shade, 0.01)
    texels = scene.palette.read(scene.palette.index(surface, point, area))

    def mix(texel, seen, u, v, scale):
        sine = (u * up[0] + v * up[1] - up[2]) * scale
        shade = (seen & levels).astype(jnp.float32) * np.float32(1 / levels)
        packed = jnp.zeros(seen.shape, jnp.int32)
        for i in range(3):
            sky = jnp.float32(0)
            for coefficient in scene.sky[::-1, i]:
                sky = sky * sine + 255 * coefficient
            colour = ((texel >> (8 * i)) & 255).astype(jnp.float32)
            colour = colour * (scene.ambient[i] + scene.diffuse[i] * shade)
            colour = jnp.where(seen < _MISS, colour, sky)
            packed |= low_bits(jnp.clip(colour, 0, 255)) << (8 * i)
        return packed

    scale = (1 / np.sqrt(rays.dd)).astype(np.float32)
    packed = in_parts(mix, texels, seen, *(jnp.asarray(x) for x in (rays.u, rays.v, scale)))
    return jax.lax.bitcast_convert_type(packed, jnp.uint8)[..., :3]


def _check(scene, geom_pos, geom_mat, geom_size, cam_pos, cam_mat, platforms) -> None:
    number = len(scene.kinds)
    expected = {
        "geom_pos": (geom_pos, (number, 3)),
        "geom_mat": (geom_mat, (number, 3, 3)),
        "geom_size": (geom_size, (number, 3)),
        "cam_pos": (cam_pos, (3,)),
        "cam_mat": (cam_mat, (3, 3)),
    }
    for name, (value, shape) in expected.items():
        if jnp.shape(value) != shape:
            raise ValueError(
                f"{name} has shape {jnp.shape(value)}; this scene of {number} geoms needs {shape}. "
                "Take the geoms in the order of scene.geom_ids; jax.vmap adds a batch axis."
            )
    if platforms is None:
        return
    if scene.row is None:
        raise ValueError(
            "platforms were given to a scene without a row; name the boxes they "
            "look like in Scene.from_model(..., row=...)."
        )
    if platforms.ndim != 2 or platforms.shape[1] != 2:
        raise ValueError(
            f"platforms has shape {platforms.shape}; expected (P, 2): where each starts and ends."
        )
    if scene.num_geoms + len(platforms) > 1 << _PAYLOAD_BITS:
        raise ValueError(
            f"{scene.num_geoms} geoms and {len(platforms)} platforms; the camera "
            f"labels at most {1 << _PAYLOAD_BITS}."
        )
