"""What there is to see: which geoms of a model are drawn, and in which colours.

Everything here is read once, in NumPy, from an `mujoco.MjModel`; poses and sizes are not part of
it, since they differ between environments and from one step to the next.
"""

import dataclasses
from collections.abc import Sequence

import mujoco
import numpy as np

from envs.camera.palette import Palette
from envs.camera.primitives import INTERSECTIONS

# MuJoCo's own renderer shows these groups unless told otherwise (mjv_defaultOption).
VISIBLE_GROUPS = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of boxes along the world's x axis that share their extents in y and z.

    Attributes:
        y: the lower and the upper face, metres.
        z: the lower and the upper face, metres.
        surface: which of `Scene.palette.surfaces`.
    """

    y: tuple[float, float]
    z: tuple[float, float]
    surface: int


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """The static description of what a camera sees; hashable by identity, never traced.

    Attributes:
        geom_ids: int32[G], model ids of the drawn geoms. The pose arrays given to `render` follow
            this order.
        kinds: G values of `mujoco.mjtGeom`.
        sizes: float32[G, 3], their sizes in the model, metres.
        geom_surfaces: int32[G], index of each geom's surface.
        palette: the distinct surfaces.
        row: the row of platforms, if there is one.
        num_geoms: the model's number of geoms; platform i of the row is labelled `num_geoms + i`.
        sky: float32[K, 3], polynomial in the sine of a ray's elevation, lowest power first.
        ambient: float32[3], light from everywhere (the model's headlight).
        diffuse: float32[3], light from the camera (the model's headlight).
    """

    geom_ids: np.ndarray
    kinds: tuple[int, ...]
    sizes: np.ndarray
    geom_surfaces: np.ndarray
    palette: Palette
    row: Row | None
    num_geoms: int
    sky: np.ndarray
    ambient: np.ndarray
    diffuse: np.ndarray

    @classmethod
    def from_model(
        cls,
        model: mujoco.MjModel,
        *,
        geoms: Sequence[str] | None = None,
        row: Sequence[str] = (),
    ) -> "Scene":
        """Reads from `model` what a camera sees.

        Geoms that MuJoCo's renderer would not show are left out: hidden groups and zero alpha.
        A geom that is partly transparent is drawn opaque.

        Args:
            model: a compiled model.
            geoms: names of the geoms to draw one by one; by default every visible one that is not
              in `row`.
            row: names of the boxes whose extents in y and z, and whose surface, the platforms of
              `render(..., platforms=...)` have. Where the platforms start and end is given to
              `render`, not here.

        Raises:
            ValueError: a name is unknown, a geom's type cannot be drawn, or the boxes named in
              `row` are not an axis-aligned row.
        """
        row_ids = [_geom_id(model, name) for name in row]
        if geoms is None:
            ids = [g for g in range(model.ngeom) if _visible(model, g) and g not in row_ids]
        else:
            ids = [_geom_id(model, name) for name in geoms]
        for g in ids:
            if model.geom_type[g] not in INTERSECTIONS:
                drawable = ", ".join(_type_name(kind) for kind in INTERSECTIONS)
                raise ValueError(
                    f"geom {_label(model, g)} is a {_type_name(model.geom_type[g])}, which the "
                    f"camera cannot draw; it draws {drawable}. Put the geom in group 3 or above "
                    "to hide it, or leave its name out of `geoms`."
                )
        looks = [_look(model, g) for g in ids + row_ids]
        distinct = list(dict.fromkeys(looks))
        palette = Palette.from_textures([_surface(model, *look) for look in distinct])
        indices = [distinct.index(look) for look in looks]
        headlight = model.vis.headlight
        lit = bool(headlight.active)
        return cls(
            geom_ids=np.asarray(ids, np.int32),
            kinds=tuple(int(model.geom_type[g]) for g in ids),
            sizes=np.asarray(model.geom_size[ids], np.float32).reshape(-1, 3),
            geom_surfaces=np.asarray(indices[: len(ids)], np.int32),
            palette=palette,
            row=_row(model, row_ids, indices[len(ids) :]) if row_ids else None,
            num_geoms=model.ngeom,
            sky=_sky(model),
            ambient=np.asarray(headlight.ambient if lit else np.ones(3), np.float32),
            diffuse=np.asarray(headlight.diffuse if lit else np.zeros(3), np.float32),
        )


def _label(model: mujoco.MjModel, geom: int) -> str:
    return repr(model.geom(geom).name or f"number {geom}")


def _type_name(kind: int) -> str:
    return mujoco.mjtGeom(int(kind)).name.removeprefix("mjGEOM_").lower()


def _geom_id(model: mujoco.MjModel, name: str) -> int:
    geom = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, name)
    if geom < 0:
        raise ValueError(
            f"the model has no geom named {name!r}; its {model.ngeom} geoms have "
            "the names given in its MJCF, with the prefix of any attached model."
        )
    return geom


def _rgba(model: mujoco.MjModel, geom: int) -> np.ndarray:
    # A geom's own colour is used where it is set: (0.5, 0.5, 0.5, 1) is "not set" (mjv_addGeoms).
    material = model.geom_matid[geom]
    own = model.geom_rgba[geom]
    unset = np.array_equal(own, np.array([0.5, 0.5, 0.5, 1], np.float32))
    return model.mat_rgba[material] if material >= 0 and unset else own


def _visible(model: mujoco.MjModel, geom: int) -> bool:
    return bool(model.geom_group[geom] in VISIBLE_GROUPS and _rgba(model, geom)[3] > 0)


def _look(model: mujoco.MjModel, geom: int) -> tuple[int, tuple[float, ...]]:
    return int(model.geom_matid[geom]), tuple(float(x) for x in _rgba(model, geom)[:3])


def _texture(model: mujoco.MjModel, texture: int) -> np.ndarray:
    """Returns float64[H, W, 3] in [0, 1]."""
    height, width = model.tex_height[texture], model.tex_width[texture]
    channels, start = model.tex_nchannel[texture], model.tex_adr[texture]
    data = model.tex_data[start : start + height * width * channels]
    image = data.reshape(height, width, channels)[..., :3] / 255.0
    return np.broadcast_to(image, (height, width, 3))


def _surface(
    model: mujoco.MjModel, material: int, rgba: tuple[float, ...]
) -> tuple[np.ndarray, tuple[float, float]]:
    """Returns a surface's colours, float64[H, W, 3], and its repeats per metre."""
    colour = np.asarray(rgba, np.float64).reshape(1, 1, 3)
    texture = -1
    if material >= 0:
        texture = model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB]
    if texture < 0:
        return colour, (1.0, 1.0)
    across, down = (float(x) for x in model.mat_texrepeat[material])
    return colour * _texture(model, texture), (across, down)


def _row(model: mujoco.MjModel, ids: Sequence[int], surfaces: Sequence[int]) -> Row:
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    rows = []
    for geom, surface in zip(ids, surfaces, strict=True):
        if model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_BOX:
            raise ValueError(
                f"geom {_label(model, geom)} is a "
                f"{_type_name(model.geom_type[geom])}; a row is made of boxes."
            )
        if not np.allclose(data.geom_xmat[geom].reshape(3, 3), np.eye(3), atol=1e-6):
            raise ValueError(
                f"geom {_label(model, geom)} is turned; the boxes of a row are "
                "aligned with the world's axes."
            )
        (_, y, z), (_, half_y, half_z) = data.geom_xpos[geom], model.geom_size[geom]
        rows.append(Row(_span(y, half_y), _span(z, half_z), surface))
    first = rows[0]
    for geom, other in zip(ids, rows, strict=True):
        if not np.allclose(first.y + first.z, other.y + other.z, atol=1e-6):
            raise ValueError(
                f"geom {_label(model, geom)} spans y {other.y} and z {other.z}, but "
                f"{_label(model, ids[0])} spans y {first.y} and z {first.z}; the boxes of a row "
                "share both."
            )
    return first


def _span(centre: float, half: float) -> tuple[float, float]:
    return float(centre - half), float(centre + half)


def _sky(model: mujoco.MjModel, degree: int = 4) -> np.ndarray:
    """Fits the skybox's colour as a polynomial in the sine of the elevation.

    MuJoCo's skyboxes stack six square faces: right, left, up, down, front, back (MJCF reference,
    asset/texture). Without one MuJoCo clears the picture to black.
    """
    skyboxes = np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    if not len(skyboxes):
        return np.zeros((1, 3), np.float32)
    image = _texture(model, skyboxes[0])
    size = image.shape[1]
    faces = image.reshape(-1, size, size, 3)
    if len(faces) == 1:
        faces = np.broadcast_to(faces, (6, size, size, 3))
    across, down = np.meshgrid(*2 * [(np.arange(size) + 0.5) / size * 2 - 1])
    norm = np.sqrt(1 + across**2 + down**2)
    sine = np.stack([-down, -down, 1 + 0 * down, -1 + 0 * down, -down, -down]) / norm
    stride = max(1, size // 64)
    sine = sine[:, ::stride, ::stride].reshape(-1)
    colours = faces[:, ::stride, ::stride].reshape(-1, 3)
    powers = sine[:, None] ** np.arange(degree + 1)
    return np.linalg.lstsq(powers, colours, rcond=None)[0].astype(np.float32)
