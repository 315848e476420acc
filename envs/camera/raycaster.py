"""Pictures of a scene: colour, depth and labels of what each pixel's ray meets first.

The nearest hit is a minimum over primitives of a 32-bit key whose high bits are the depth (a
positive float orders as its bits do) and whose low bits are what has to be known about the winner:
its surface and shade, or its label. So one running minimum of one array is all that the loop over
primitives carries, and colours are mixed once per pixel, after it.
"""

import dataclasses
from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.camera.palette import low_bits
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
# How many primitives one pass of the loop handles.
_CHUNK = 2


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
            keys = _closest(kind, members, rays, keys, encode)
        return keys

    shade_bits = _PAYLOAD_BITS - max(1, (len(scene.palette.surfaces) - 1).bit_length())
    levels = (1 << shade_bits) - 1
    shading = levels / jnp.sqrt(rays.dd)

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
    seen = jax.lax.optimization_barrier(nearest(appearance, (surface, 0)))
    rgb = _paint(scene, camera, rays, world, cam_pos, seen, shade_bits)
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


def _closest(kind, members, rays, keys, encode):
    """Lowers `keys` to the nearest hit of one kind of geoms."""
    geoms, payload, count = members
    number = payload.shape[0]

    def visit(start: int, keys: jax.Array) -> jax.Array:
        for k in range(min(_CHUNK, number)):
            index = start * _CHUNK + k
            # Drawing the last one twice, or one that is out of view, changes nothing.
            here = jnp.minimum(index, number - 1)
            geom, tag = jax.tree.map(lambda x, here=here: x[here], (geoms, payload))
            keys = jnp.minimum(keys, encode(*INTERSECTIONS[kind](rays, geom), tag))
        return keys

    return jax.lax.fori_loop(0, _most(-(-count // _CHUNK)), visit, keys)


@jax.custom_batching.custom_vmap
def _most(count: jax.Array) -> jax.Array:
    """The largest `count` of a batch: a loop bound shared by it, so that the loop stays one loop.

    Under a plain `vmap` the bound would differ between environments, and XLA would select between
    old and new values of every pixel at every pass.
    """
    return count


@_most.def_vmap
def _(axis_size, in_batched, count):
    del axis_size, in_batched
    return _most(count.max()), False


def _paint(scene, camera, rays, world, cam_pos, seen, shade_bits):
    """Colours of the keys `seen`, uint8[R, 3]."""
    levels = (1 << shade_bits) - 1
    depth = jax.lax.bitcast_convert_type(seen & np.int32(~_PAYLOAD), jnp.float32)
    shade = (seen & levels).astype(jnp.float32) * np.float32(1 / levels)
    surface = (seen & _PAYLOAD) >> shade_bits
    pixel = 2 * np.tan(np.deg2rad(camera.fovy) / 2) / camera.height
    point = tuple(cam_pos[i] + depth * world[i] for i in range(3))
    # Seen at a slant a pixel is longer than wide; the geometric mean blurs the one and keeps
    # enough of the other.
    area = (depth * np.float32(pixel)) ** 2 / jnp.maximum(shade, 0.01)
    # Reading a table is scalar code: the barrier keeps what finds the index out of it.
    index = jax.lax.optimization_barrier(scene.palette.index(surface, point, area))
    texel = jnp.asarray(scene.palette.texels).at[index].get(mode="promise_in_bounds")
    sine = world[2] * (1 / jnp.sqrt(rays.dd))
    packed = jnp.zeros(seen.shape, jnp.int32)
    for i in range(3):
        sky = jnp.float32(0)
        for coefficient in scene.sky[::-1, i]:
            sky = sky * sine + 255 * coefficient
        colour = ((texel >> (8 * i)) & 255).astype(jnp.float32)
        colour = colour * (scene.ambient[i] + scene.diffuse[i] * shade)
        colour = jnp.where(seen < _MISS, colour, sky)
        packed |= low_bits(jnp.clip(colour, 0, 255)) << (8 * i)
    # Without the barrier XLA computes each pixel once for each of its bytes.
    packed = jax.lax.optimization_barrier(packed)
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
