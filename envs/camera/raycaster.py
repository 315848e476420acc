"""Draw images of a scene: colour, depth and label of what each pixel's ray hits first."""

import functools
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from envs.batching import over_environments
from envs.camera.batching import at_once, in_blocks, in_parts
from envs.camera.box_row import PHASE_BITS, RowHit, row_hit, row_index, row_normal
from envs.camera.culling import GROUP, Group, bands_at_once, group, nearest_hits, number_of_bands
from envs.camera.depth_keys import PAYLOAD, PAYLOAD_BITS, DepthKeys, Encode, Payload
from envs.camera.lights import LightPoses
from envs.camera.pinhole import Camera
from envs.camera.primitives import FAR, INTERSECTIONS, Hit, Primitive, Rays
from envs.camera.rasterizer import rasterize
from envs.camera.rounding import low_bits
from envs.camera.scene import HEIGHT_FIELD, MESH, Scene
from envs.camera.shading import View, pixel_colours

# The fewest bits of a payload that hold the shade.
_LEAST_SHADE_BITS = 5
# About how many rays are processed together; their arrays fit a CPU's cache.
_TOGETHER = 1 << 19
# The fewest images that are drawn together: XLA splits the first axis of an array among threads,
# and compiles slow code where it has to split another.
_PICTURES = 8


@flax.struct.dataclass
class Image:
    """An image. Under jit, attributes that are not used are not computed.

    Attributes:
        rgb: uint8[H, W, 3], colours.
        depth: float32[H, W], distance along the optical axis to the first opaque geom, metres;
          +inf for sky.
        segmentation: int32[H, W], model id of the first geom, transparent or not; `num_geoms + i`
          for platform i of the scene's row; -1 for sky.
    """

    rgb: jax.Array
    depth: jax.Array
    segmentation: jax.Array

    @property
    def gray(self) -> jax.Array:
        """Brightness of `rgb`, uint8[H, W] (luma of ITU-R BT.601)."""
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
    """Draw the image of one environment; `jax.vmap` draws many.

    Poses and sizes may differ between environments and from step to step.

    Args:
        scene: the static description of G geoms and L lights besides the headlight.
        camera: image size, field of view, near and far planes.
        geom_pos: float32[G, 3], positions in the world, metres (`geom_xpos[scene.geom_ids]`).
        geom_mat: float32[G, 3, 3], orientations (`geom_xmat`).
        geom_size: float32[G, 3], MuJoCo's `geom_size`, metres. A geom of size 0 is not drawn.
          Meshes and height fields ignore it.
        cam_pos: float32[3], position of the camera, metres (`cam_xpos`).
        cam_mat: float32[3, 3], its axes as columns (`cam_xmat`); it looks along -z, and y is up.
        platforms: float32[P, 2], start and end of each box of the scene's row along the world's x
          axis, metres, in any order. A box that does not end after its start is not drawn.
        light_pos: float32[L, 3], positions of the lights, metres (`light_xpos[scene.light_ids]`);
          not needed if L is 0.
        light_dir: float32[L, 3], unit vectors along which they shine (`light_xdir`).

    Raises:
        ValueError: a shape does not fit the scene, poses of lights are missing, or platforms are
          given for a scene without a row.
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
    """Draw one image; `around` are the arguments of `RayCaster` that are not constant."""
    plain = RayCaster(scene, camera, *around)
    colour = plain if camera.supersample == 1 else RayCaster(scene, camera.finer(), *around)
    shape = (camera.height, camera.width)
    depth, labels = plain.depth(), plain.labels()
    rgb = _mean(colour.colours(), camera)
    return Image(rgb, depth.reshape(shape), labels.reshape(shape))


class RayCaster:
    """Finds what the rays of one image hit first, and its colour, depth and label."""

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
        limits = np.ones(max(1, len(scene.atlas.surfaces)), np.float32)
        # Light makes no texture brighter than it is: OpenGL clamps light before multiplying by it.
        limits[[texture.surface for texture in scene.textures]] = scene.lighting.limit()
        self.limits = limits
        surfaces = max(1, (len(limits) - 1).bit_length())
        self.shade_bits = PAYLOAD_BITS - surfaces
        if self.shade_bits < _LEAST_SHADE_BITS:
            raise ValueError(
                f"the scene has {len(limits)} different surfaces, where each textured geom counts "
                f"as one; the camera draws at most {1 << (PAYLOAD_BITS - _LEAST_SHADE_BITS)}. Draw "
                "fewer geoms, with Scene.from_model(..., geoms=...), or give them plain colours."
            )
        self._row_surface = scene.row.surface if scene.row is not None else -1
        # Of the bits for the shade, a hit of the row uses two for its face and the others for its
        # phase.
        self._code_shift = max(0, PHASE_BITS + 2 - self.shade_bits)
        # The key of a ray that hits nothing, and the upper bound of all others.
        self.keys = DepthKeys(camera.near)
        self.miss = self.keys.bound(min(camera.far, float(FAR)))

    def colours(self) -> jax.Array:
        """Return the packed colours of the pixels, int32[R]."""
        levels = (1 << self.shade_bits) - 1

        def encode(rays: Rays, hit: Hit, payload: Payload, lights: LightPoses) -> jax.Array:
            shade = self.scene.lighting.shade(rays, hit, lights)
            shade = low_bits(jnp.minimum(shade, payload.limit) * levels) & levels
            return self.keys.pack(hit.depth, (payload.surface << self.shade_bits) | shade)

        def in_row(row: RowHit) -> jax.Array:
            # The face is enough to compute the shade from later, since it is flat.
            code = row.code >> self._code_shift
            return self.keys.pack(row.depth, (self._row_surface << self.shade_bits) | code)

        opaque = self.nearest(encode, in_row)
        seen = self._colours_of(opaque)
        if not self.scene.transparent.any():
            return seen
        # The nearest transparent geom is blended. MuJoCo draws each twice, hence the square.
        glass = self.nearest(encode)
        surface = (glass & PAYLOAD) >> self.shade_bits
        through = jnp.asarray((1 - self.scene.alphas) ** 2)[surface]
        nearer = (glass < self.miss) & (glass & ~PAYLOAD < opaque & ~PAYLOAD)
        return _blend(self._colours_of(glass), seen, jnp.where(nearer, through, 1))

    def depth(self) -> jax.Array:
        """Return the depths of the pixels, float32[R], metres."""

        def encode(rays: Rays, hit: Hit, payload: Payload, lights: LightPoses) -> jax.Array:
            return self.keys.of(hit.depth)

        keys = self.nearest(encode, lambda row: self.keys.of(row.depth))
        return jnp.where(keys < self.miss, self.keys.depth(keys), jnp.float32(np.inf))

    def labels(self) -> jax.Array:
        """Return the labels of the pixels, int32[R]."""

        def encode(rays: Rays, hit: Hit, payload: Payload, lights: LightPoses) -> jax.Array:
            return self.keys.pack(hit.depth, payload.label)

        def in_row(row: RowHit) -> jax.Array:
            x = self.view.position[0] + row.depth * self.view.world[0]
            assert self.platforms is not None
            return self.keys.pack(row.depth, self.scene.num_geoms + row_index(self.platforms, x))

        keys = self.nearest(encode, in_row)
        if self.scene.transparent.any():
            keys = jnp.minimum(keys, self.nearest(encode))
        return jnp.where(keys < self.miss, keys & PAYLOAD, -1)

    def nearest(
        self, encode: Encode, in_row: Callable[[RowHit], jax.Array] | None = None
    ) -> jax.Array:
        """Return the least keys int32[R] of the row and the opaque geoms.

        Args:
            encode: the function that makes keys of hits of geoms.
            in_row: the function that makes keys of hits of the row; None to return the keys of the
                transparent geoms instead.
        """
        view, scene = self.view, self.scene
        keys = jnp.full(view.rays.u.shape, self.miss)
        if view.row is not None and in_row is not None:
            keys = jnp.minimum(keys, in_row(view.row))
        chosen = scene.transparent == (in_row is None)
        kinds = np.asarray(scene.kinds)
        members = {int(kind): np.flatnonzero((kinds == kind) & chosen) for kind in kinds[chosen]}
        if MESH in members:
            keys = self._meshes(keys, members.pop(MESH), encode)
        # Each height field is searched by a loop whose length differs between environments: one
        # environment at a time, and the whole image at once.
        fields = {kind: members.pop(kind) for kind in (HEIGHT_FIELD,) if kind in members}
        searches = (
            (fields, 1, at_once(1)),
            (members, number_of_bands(self.camera), bands_at_once(self.camera)),
        )
        for by_kind, bands, block in searches:
            parts = [
                (kind, which[i : i + GROUP])
                for kind, which in sorted(by_kind.items())
                for i in range(0, len(which), GROUP)
            ]
            if parts:
                groups = [self._group(kind, which, bands) for kind, which in parts]
                intersections = [_intersection(scene, kind) for kind, _ in parts]
                found = nearest_hits(
                    groups, intersections, view.rays, self.lights, encode, self.miss, block
                )
                # A loop keeps XLA from repeating the search of the row for each use of the keys.
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

    def _colours_of(self, keys: jax.Array) -> jax.Array:
        scene, view = self.scene, self.view
        levels = (1 << self.shade_bits) - 1
        depth = self.keys.packed_depth(keys)
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
        return pixel_colours(scene, self.camera, view, depth, surface, shade, code, missed)


def _intersection(scene: Scene, kind: int) -> Callable[[Rays, Primitive], Hit]:
    return scene.height_fields.hit if kind == HEIGHT_FIELD else INTERSECTIONS[kind]


def _blend(front: jax.Array, back: jax.Array, through: jax.Array) -> jax.Array:
    """Mix packed colours, with the share `through` float32[R] of those at the back."""
    packed = jnp.zeros(front.shape, jnp.int32)
    for i in range(3):
        a, b = (((x >> (8 * i)) & 255).astype(jnp.float32) for x in (front, back))
        packed |= low_bits(a + through * (b - a)) << (8 * i)
    return packed


def _mean(packed: jax.Array, camera: Camera) -> jax.Array:
    """Return uint8[H, W, 3], the means of the packed colours of each pixel's rays."""
    rgb = jax.lax.bitcast_convert_type(packed, jnp.uint8)[..., :3]
    k = camera.supersample
    if k == 1:
        return rgb.reshape(camera.height, camera.width, 3)
    blocks = rgb.reshape(camera.height, k, camera.width, k, 3).astype(jnp.float32)
    return jnp.round(blocks.mean((1, 3))).astype(jnp.uint8)


def _no_lights(scene: Scene) -> jax.Array:
    if scene.lighting.model_ids:
        raise ValueError(
            f"the scene has {len(scene.lighting.model_ids)} lights besides the headlight; pass "
            "light_pos and light_dir, MuJoCo's light_xpos and light_xdir at scene.light_ids."
        )
    return jnp.zeros((0, 3))


def _check(scene, geom_pos, geom_mat, geom_size, cam_pos, cam_mat, light_pos, light_dir) -> None:
    number, lights = len(scene.kinds), len(scene.lighting.model_ids)
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
                f"lights needs {shape}. Index MuJoCo's arrays by scene.geom_ids and "
                "scene.light_ids; draw a batch with jax.vmap."
            )


def _check_platforms(scene: Scene, platforms: jax.Array | None) -> None:
    if platforms is not None and scene.row is None:
        raise ValueError(
            "platforms were given for a scene without a row; name boxes that look like them in "
            "Scene.from_model(..., row=...)."
        )
    if platforms is not None and (platforms.ndim != 2 or platforms.shape[1] != 2):
        raise ValueError(
            f"platforms has shape {platforms.shape}; expected (P, 2), start and end of each."
        )
    number = 0 if platforms is None else len(platforms)
    if scene.num_geoms + number > 1 << PAYLOAD_BITS:
        raise ValueError(
            f"the scene has {scene.num_geoms} geoms and {number} platforms; the camera can label "
            f"at most {1 << PAYLOAD_BITS}. Use fewer."
        )
