"""Pictures of a scene: colour, depth and labels of what each pixel's ray meets first."""

import functools
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from envs.camera.bands import GROUP, Group, bands_at_once, closest, group, number_of_bands
from envs.camera.batching import at_once, in_blocks, over_environments
from envs.camera.keys import PAYLOAD, PAYLOAD_BITS, Encode, Payload, depth_of, pack
from envs.camera.lights import LightPoses
from envs.camera.painting import View, paint
from envs.camera.palette import in_parts, low_bits
from envs.camera.pinhole import Camera
from envs.camera.primitives import FAR, INTERSECTIONS, Hit, Primitive, Rays
from envs.camera.rasterizer import rasterize
from envs.camera.row import PHASE_BITS, RowHit, row_hit, row_index, row_normal
from envs.camera.scene import HEIGHT_FIELD, MESH, Scene

# Bits of a payload that tell the shade.
_LEAST_SHADE_BITS = 5
# Whole pictures are drawn together, about so many rays, whose arrays a CPU's cache holds; but no
# fewer pictures, since XLA shares the first axis of an array among so many threads, and cutting the
# others makes slow code.
_TOGETHER = 1 << 19
_PICTURES = 8


@flax.struct.dataclass
class Image:
    """What a camera sees. Outputs that are not used cost nothing under jit.

    Attributes:
        rgb: uint8[H, W, 3].
        depth: float32[H, W], distance along the optical axis in metres, as MuJoCo's renderer gives
          it: to the first opaque geom; +inf for sky.
        segmentation: int32[H, W], the model id of the first geom, transparent or not;
          `num_geoms + i` for platform i of the scene's row; -1 for sky.
    """

    rgb: jax.Array
    depth: jax.Array
    segmentation: jax.Array

    @property
    def gray(self) -> jax.Array:
        """uint8[H, W], the brightness of `rgb` (luma of ITU-R BT.601)."""
        weights = np.array([0.299, 0.587, 0.114], np.float32)
        return jnp.round((self.rgb.astype(jnp.float32) * weights).sum(-1)).astype(jnp.uint8)


def render(
    scene: Scene,
    camera: Camera,
    geom_pos: jax.Array,
    geom_mat: jax.Array,
    geom_size: jax.Array,
    cam_pos: jax.Array,
    cam_mat: jax.Array,
    platforms: jax.Array | None = None,
    light_pos: jax.Array | None = None,
    light_dir: jax.Array | None = None,
) -> Image:
    """Draws one environment; `jax.vmap` draws many.

    Args:
        scene: what is drawn; G geoms, L lights other than the camera's own.
        camera: size and field of view.
        geom_pos: float32[G, 3], centres in the world, metres, in the order of `scene.geom_ids`.
        geom_mat: float32[G, 3, 3], orientations (`geom_xmat`).
        geom_size: float32[G, 3], as MuJoCo's `geom_size`. A geom of size 0 is not drawn. Meshes and
          height fields have the size that the model gives them.
        cam_pos: float32[3], `cam_xpos`.
        cam_mat: float32[3, 3], `cam_xmat`: looks along -z, y up.
        platforms: float32[P, 2], where each box of the scene's row starts and ends along the
          world's x axis, metres, in any order; one that does not end after its start is not drawn.
        light_pos: float32[L, 3], `light_xpos`, in the order of `scene.light_ids`; not needed in a
          scene without lights.
        light_dir: float32[L, 3], `light_xdir`.

    Raises:
        ValueError: shapes that do not fit the scene, or platforms for a scene without a row.
    """
    if light_pos is None or light_dir is None:
        light_pos = light_dir = _no_lights(scene)
    _check(scene, geom_pos, geom_mat, geom_size, cam_pos, cam_mat, light_pos, light_dir)
    _check_platforms(scene, platforms)
    exact = jax.lax.Precision.HIGHEST
    into = lambda x: jnp.matmul(x, cam_mat, precision=exact)
    axes = jnp.einsum("ij,gik->gjk", cam_mat, geom_mat, precision=exact)
    geoms = Primitive(into(geom_pos - cam_pos), axes, geom_size, jnp.asarray(scene.assets))
    lights = LightPoses(into(light_pos - cam_pos), into(light_dir))
    rays = camera.height * camera.width * camera.supersample**2
    together = max(1, at_once(_TOGETHER) // (_PICTURES * rays)) * _PICTURES
    draw = jax.vmap(functools.partial(_draw, scene, camera))
    pictures = over_environments(functools.partial(in_blocks, together, draw))
    return pictures(geoms, lights, cam_pos, cam_mat, platforms)


def _draw(scene: Scene, camera: Camera, *around: Any) -> Image:
    """One picture; `around` are the arguments of `Search` that differ between environments."""
    plain = Search(scene, camera, *around)
    colour = plain if camera.supersample == 1 else Search(scene, camera.finer(), *around)
    shape = (camera.height, camera.width)
    depth, labels = plain.depth(), plain.labels()
    rgb = _mean(colour.colours(), camera)
    return Image(rgb, depth.reshape(shape), labels.reshape(shape))


class Search:
    """Everything that one picture's rays may hit, and questions about what they hit first."""

    def __init__(
        self,
        scene: Scene,
        camera: Camera,
        geoms: Primitive,
        lights: LightPoses,
        cam_pos: jax.Array,
        cam_mat: jax.Array,
        platforms: jax.Array | None,
    ) -> None:
        self.scene, self.camera, self.platforms = scene, camera, platforms
        rays = camera.rays()
        world = tuple(rays.dot(cam_mat[i]) for i in range(3))
        row = None
        if platforms is not None and scene.row is not None:
            row = row_hit(scene.row, platforms, world, cam_pos, camera.near)
        self.view = View(rays, world, cam_pos, cam_mat, geoms, row)
        self.lights = lights
        limits = np.ones(max(1, len(scene.palette.surfaces)), np.float32)
        # Light makes a texture no brighter than it is (OpenGL clamps it before it is multiplied).
        limits[[texture.surface for texture in scene.textures]] = scene.lighting.limit()
        self.limits = limits
        surfaces = max(1, (len(limits) - 1).bit_length())
        self.shade_bits = PAYLOAD_BITS - surfaces
        if self.shade_bits < _LEAST_SHADE_BITS:
            raise ValueError(
                f"the scene has {len(limits)} surfaces that look different; the camera tells "
                f"{1 << (PAYLOAD_BITS - _LEAST_SHADE_BITS)} apart."
            )
        self._row_surface = scene.row.surface if scene.row is not None else -1
        # A hit of the row has two bits for its face, and what is left for the texture's phase.
        self._code_shift = max(0, PHASE_BITS + 2 - self.shade_bits)
        # The least key of a ray that hits nothing.
        self.miss = np.float32(min(camera.far, float(FAR))).view(np.int32) & np.int32(~PAYLOAD)

    def colours(self) -> jax.Array:
        """Packed colours of the pixels, int32[R]."""
        levels = (1 << self.shade_bits) - 1

        def encode(rays: Rays, hit: Hit, payload: Payload, lights: LightPoses) -> jax.Array:
            shade = self.scene.lighting.shade(rays, hit, lights)
            shade = low_bits(jnp.minimum(shade, payload.limit) * levels) & levels
            return pack(hit.depth, (payload.surface << self.shade_bits) | shade)

        def in_row(row: RowHit) -> jax.Array:
            # A box's faces are flat, so that the face tells the shade.
            code = row.code >> self._code_shift
            return pack(row.depth, (self._row_surface << self.shade_bits) | code)

        opaque = self.nearest(encode, in_row)
        seen = self._painted(opaque)
        if not self.scene.transparent.any():
            return seen
        # One layer is blended, the nearest. MuJoCo draws each transparent geom twice.
        veil = self.nearest(encode)
        surface = (veil & PAYLOAD) >> self.shade_bits
        through = jnp.asarray((1 - self.scene.alphas) ** 2)[surface]
        nearer = (veil < self.miss) & (veil & ~PAYLOAD < opaque & ~PAYLOAD)
        return _blend(self._painted(veil), seen, jnp.where(nearer, through, 1))

    def depth(self) -> jax.Array:
        """float32[R], metres."""

        def encode(rays: Rays, hit: Hit, payload: Payload, lights: LightPoses) -> jax.Array:
            return jax.lax.bitcast_convert_type(hit.depth, jnp.int32)

        keys = self.nearest(encode, lambda row: jax.lax.bitcast_convert_type(row.depth, jnp.int32))
        metres = jax.lax.bitcast_convert_type(keys, jnp.float32)
        return jnp.where(keys < self.miss, metres, jnp.float32(np.inf))

    def labels(self) -> jax.Array:
        """int32[R]."""

        def encode(rays: Rays, hit: Hit, payload: Payload, lights: LightPoses) -> jax.Array:
            return pack(hit.depth, payload.label)

        def in_row(row: RowHit) -> jax.Array:
            x = self.view.position[0] + row.depth * self.view.world[0]
            assert self.platforms is not None
            return pack(row.depth, self.scene.num_geoms + row_index(self.platforms, x))

        keys = self.nearest(encode, in_row)
        if self.scene.transparent.any():
            keys = jnp.minimum(keys, self.nearest(encode))
        return jnp.where(keys < self.miss, keys & PAYLOAD, -1)

    def nearest(
        self, encode: Encode, in_row: Callable[[RowHit], jax.Array] | None = None
    ) -> jax.Array:
        """int32[R], the least keys of the row and the opaque geoms; of transparent geoms without
        `in_row`, which makes keys of hits of the row."""
        view, scene = self.view, self.scene
        keys = jnp.full(view.rays.u.shape, self.miss)
        if view.row is not None and in_row is not None:
            keys = jnp.minimum(keys, in_row(view.row))
        chosen = scene.transparent == (in_row is None)
        kinds = np.asarray(scene.kinds)
        near = {int(kind): np.flatnonzero((kinds == kind) & chosen) for kind in kinds[chosen]}
        if MESH in near:
            keys = self._meshes(keys, near.pop(MESH), encode)
        whole = {kind: near.pop(kind) for kind in (HEIGHT_FIELD,) if kind in near}
        # A height field is searched by loops, of which each environment has its own.
        searches = (
            (whole, 1, at_once(1)),
            (near, number_of_bands(self.camera), bands_at_once(self.camera)),
        )
        for groups, bands, block in searches:
            parts = [
                (kind, which[i : i + GROUP])
                for kind, which in sorted(groups.items())
                for i in range(0, len(which), GROUP)
            ]
            if parts:
                members = [self._group(kind, which, bands) for kind, which in parts]
                intersections = [_intersection(scene, kind) for kind, _ in parts]
                found = closest(
                    members, intersections, view.rays, self.lights, encode, self.miss, block
                )
                # In a loop, or XLA would search the row again for each use of the keys.
                keys = in_parts(jnp.minimum, keys, found)
        return keys

    def _meshes(self, keys: jax.Array, which: np.ndarray, encode: Encode) -> jax.Array:
        geoms = jax.tree.map(lambda x: x[which], self.view.geoms)
        meshes, assets = self.scene.meshes, self.scene.assets[which]
        payload = self._payload(which)
        return rasterize(keys, meshes, assets, self.camera, geoms, payload, self.lights, encode)

    def _group(self, kind: int, which: np.ndarray, bands: int) -> Group:
        geoms = jax.tree.map(lambda x: x[which], self.view.geoms)
        if kind == HEIGHT_FIELD:
            extents = self.scene.height_fields.extents[self.scene.assets[which]]
            geoms = geoms._replace(size=jnp.asarray(extents))
        return group(kind, geoms, self._payload(which), self.view.rays, bands)

    def _payload(self, which: np.ndarray) -> Payload:
        surfaces = self.scene.geom_surfaces[which]
        return Payload(surfaces, self.scene.geom_ids[which], self.limits[surfaces])

    def _painted(self, keys: jax.Array) -> jax.Array:
        scene, view = self.scene, self.view
        levels = (1 << self.shade_bits) - 1
        depth = depth_of(keys)
        shade = (keys & levels).astype(jnp.float32) * np.float32(1 / levels)
        surface = (keys & PAYLOAD) >> self.shade_bits
        missed = keys >= self.miss
        code = None
        if view.row is not None:
            code = (keys & levels) << self._code_shift
            normal = row_normal(code >> PHASE_BITS, view.world, view.frame)
            lit = scene.lighting.shade(view.rays, Hit(depth, normal), self.lights)
            lit = jnp.minimum(lit, self.limits[self._row_surface])
            shade = jnp.where(surface == self._row_surface, lit, shade)
        return paint(scene, self.camera, view, depth, surface, shade, code, missed)


def _intersection(scene: Scene, kind: int) -> Callable[[Rays, Primitive], Hit]:
    return scene.height_fields.hit if kind == HEIGHT_FIELD else INTERSECTIONS[kind]


def _blend(front: jax.Array, back: jax.Array, through: jax.Array) -> jax.Array:
    """Packed colours, of which the share `through` float32[R] is the back's."""
    packed = jnp.zeros(front.shape, jnp.int32)
    for i in range(3):
        a, b = (((x >> (8 * i)) & 255).astype(jnp.float32) for x in (front, back))
        packed |= low_bits(a + through * (b - a)) << (8 * i)
    return packed


def _mean(packed: jax.Array, camera: Camera) -> jax.Array:
    """uint8[H, W, 3] of the packed colours of all rays."""
    rgb = jax.lax.bitcast_convert_type(packed, jnp.uint8)[..., :3]
    k = camera.supersample
    if k == 1:
        return rgb.reshape(camera.height, camera.width, 3)
    blocks = rgb.reshape(camera.height, k, camera.width, k, 3).astype(jnp.float32)
    return jnp.round(blocks.mean((1, 3))).astype(jnp.uint8)


def _no_lights(scene: Scene) -> jax.Array:
    if scene.lighting.placed:
        raise ValueError(
            f"the scene has {len(scene.lighting.placed)} lights besides the camera's; give "
            "light_pos and light_dir, MuJoCo's light_xpos and light_xdir at scene.light_ids."
        )
    return jnp.zeros((0, 3))


def _check(scene, geom_pos, geom_mat, geom_size, cam_pos, cam_mat, light_pos, light_dir) -> None:
    number, lights = len(scene.kinds), len(scene.lighting.placed)
    expected = {
        "geom_pos": (geom_pos, (number, 3)),
        "geom_mat": (geom_mat, (number, 3, 3)),
        "geom_size": (geom_size, (number, 3)),
        "cam_pos": (cam_pos, (3,)),
        "cam_mat": (cam_mat, (3, 3)),
        "light_pos": (light_pos, (lights, 3)),
        "light_dir": (light_dir, (lights, 3)),
    }
    for name, (value, shape) in expected.items():
        if jnp.shape(value) != shape:
            raise ValueError(
                f"{name} has shape {jnp.shape(value)}; this scene of {number} geoms and {lights} "
                f"lights needs {shape}. Take the geoms in the order of scene.geom_ids; jax.vmap "
                "adds a batch axis."
            )


def _check_platforms(scene: Scene, platforms: jax.Array | None) -> None:
    if platforms is not None and scene.row is None:
        raise ValueError(
            "platforms were given to a scene without a row; name the boxes they "
            "look like in Scene.from_model(..., row=...)."
        )
    if platforms is not None and (platforms.ndim != 2 or platforms.shape[1] != 2):
        raise ValueError(
            f"platforms has shape {platforms.shape}; expected (P, 2): where each starts and ends."
        )
    number = 0 if platforms is None else len(platforms)
    if scene.num_geoms + number > 1 << PAYLOAD_BITS:
        raise ValueError(
            f"{scene.num_geoms} geoms and {number} platforms; the camera "
            f"labels at most {1 << PAYLOAD_BITS}."
        )
