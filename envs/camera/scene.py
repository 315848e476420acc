"""Describe what a camera can see: the geoms of a model that are drawn, their surfaces, the lights.

A scene is read once, in NumPy, from a `mujoco.MjModel`. It does not contain poses and sizes, since
they differ between environments and from step to step.
"""

import dataclasses
from collections.abc import Sequence

import mujoco
import numpy as np

from envs.camera.height_field import HeightFields
from envs.camera.lights import Lighting
from envs.camera.mesh import Meshes
from envs.camera.model_textures import cube_texture, is_flat, texture_2d
from envs.camera.primitives import BOX, INTERSECTIONS, PLANE
from envs.camera.texture_atlas import TextureAtlas

# The geom groups that MuJoCo's renderer shows by default (mjv_defaultOption).
VISIBLE_GROUPS = (0, 1, 2)
MESH, HEIGHT_FIELD = int(mujoco.mjtGeom.mjGEOM_MESH), int(mujoco.mjtGeom.mjGEOM_HFIELD)
# MuJoCo blends geoms with a lower alpha (mjr_render).
_OPAQUE = 0.995


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of boxes along the world's x axis that span the same y and z.

    Attributes:
        y: lowest and highest y, metres.
        z: lowest and highest z, metres.
        surface: index in `Scene.atlas.surfaces`.
        repeats: repeats of the texture in two metres along x and along y; 0 without a texture.
    """

    y: tuple[float, float]
    z: tuple[float, float]
    surface: int
    repeats: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Texture:
    """A texture on a geom, mapped by the geom's x and y.

    Attributes:
        surface: index in `Scene.atlas.surfaces`.
        geom: index in `Scene.geom_ids`, -1 for the row.
        repeats: repeats along x and along y (`texrepeat`).
        uniform: whether the repeats are counted in two metres (`texuniform`) or in the length of
            the geom.
        kind: the geom's type, a value of `mujoco.mjtGeom`.
    """

    surface: int
    geom: int
    repeats: tuple[float, float]
    uniform: bool
    kind: int


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """The static description of what a camera can see; hashed by identity and never traced.

    Attributes:
        geom_ids: int32[G], model ids of the geoms that are drawn, in the order of the arrays that
            `render` takes.
        kinds: G values of `mujoco.mjtGeom`.
        sizes: float32[G, 3], the geoms' sizes in the model, metres.
        assets: int32[G], index in `meshes` or `height_fields`; 0 for other kinds.
        geom_surfaces: int32[G], index of the surface in `atlas.surfaces`.
        alphas: float32[S], opacity of each surface; those below 0.995 are transparent.
        atlas: the colours of the S different surfaces, and the sky.
        textures: one for each surface with a texture.
        row: the row of platforms, if there is one.
        num_geoms: number of geoms in the model; platform i of the row is labelled `num_geoms + i`.
        lighting: the lights.
        meshes: the meshes.
        height_fields: the height fields.
    """

    geom_ids: np.ndarray
    kinds: tuple[int, ...]
    sizes: np.ndarray
    assets: np.ndarray
    geom_surfaces: np.ndarray
    alphas: np.ndarray
    atlas: TextureAtlas
    textures: tuple[Texture, ...]
    row: Row | None
    num_geoms: int
    lighting: Lighting
    meshes: Meshes
    height_fields: HeightFields

    @property
    def transparent(self) -> np.ndarray:
        """Mask of the transparent geoms, bool[G]."""
        return self.alphas[self.geom_surfaces] < _OPAQUE

    @property
    def light_ids(self) -> np.ndarray:
        """Model ids of the lights whose poses `render` needs, int32[L]."""
        return np.array(self.lighting.model_ids, np.int32)

    @classmethod
    def from_model(
        cls,
        model: mujoco.MjModel,
        *,
        geoms: Sequence[str] | None = None,
        row: Sequence[str] = (),
        groups: Sequence[int] = VISIBLE_GROUPS,
    ) -> "Scene":
        """Read the scene from a model.

        Geoms that MuJoCo's renderer hides, by group or zero alpha, are left out. Sites, tendons and
        skins are not drawn.

        Args:
            model: a compiled model.
            geoms: names of the geoms to draw one by one; None for every visible geom that is not in
              `row`.
            row: names of boxes that `render(..., platforms=...)` draws as one primitive. The
              platforms have the surface, y and z of these boxes; where they start and end along x
              is an argument of `render`.
            groups: the geom groups that are visible.

        Raises:
            ValueError: a name is unknown, a geom has a type that cannot be drawn, or the boxes in
              `row` are not aligned with the world's axes or differ in y or z.
        """
        row_ids = [_geom_id(model, name) for name in row]
        if geoms is None:
            ids = [g for g in range(model.ngeom) if _visible(model, g, groups) and g not in row_ids]
        else:
            ids = [_geom_id(model, name) for name in geoms]
        for g in ids:
            _check_kind(model, g)
        kinds = model.geom_type[ids].astype(int)
        meshes, height_fields = (
            sorted({int(model.geom_dataid[g]) for g in ids if model.geom_type[g] == kind})
            for kind in (MESH, HEIGHT_FIELD)
        )
        known = {MESH: meshes, HEIGHT_FIELD: height_fields}
        assets = [
            known[kind].index(model.geom_dataid[g]) if kind in known else 0
            for g, kind in zip(ids, kinds, strict=True)
        ]
        looks = [_look(model, g, in_row=g in row_ids) for g in ids + row_ids]
        # Plain colours come first in the atlas.
        distinct = sorted(dict.fromkeys(looks), key=lambda look: look.geom is not None)
        indices = [distinct.index(look) for look in looks]
        placed = [*range(len(ids)), *[-1] * len(row_ids)]
        textures = {
            surface: Texture(
                surface, place, look.repeats, look.uniform, int(kinds[place]) if place >= 0 else BOX
            )
            for surface, place, look in zip(indices, placed, looks, strict=True)
            if look.geom is not None
        }
        return cls(
            geom_ids=np.asarray(ids, np.int32),
            kinds=tuple(int(kind) for kind in kinds),
            sizes=np.asarray(model.geom_size[ids], np.float32).reshape(-1, 3),
            assets=np.asarray(assets, np.int32),
            geom_surfaces=np.asarray(indices[: len(ids)], np.int32),
            alphas=np.asarray([look.rgba[3] for look in distinct], np.float32),
            atlas=TextureAtlas.from_textures(
                [look.colours(model) for look in distinct], _sky(model)
            ),
            textures=tuple(textures.values()),
            row=_row(model, row_ids, indices[len(ids) :], looks[-1]) if row_ids else None,
            num_geoms=model.ngeom,
            lighting=Lighting.from_model(model),
            meshes=Meshes.from_model(model, meshes),
            height_fields=HeightFields.from_model(model, height_fields),
        )


@dataclasses.dataclass(frozen=True)
class _Look:
    """The look of a geom. Geoms with equal looks share a surface.

    A texture is mapped by the frame of its geom, so each textured geom has its own look, except for
    the boxes of the row.
    """

    rgba: tuple[float, float, float, float]
    texture: int = -1
    geom: int | None = None
    repeats: tuple[float, float] = (0.0, 0.0)
    uniform: bool = True

    def colours(self, model: mujoco.MjModel) -> np.ndarray:
        """Return the colours of the texture or of one texel, float64[H, W, 3] in [0, 1]."""
        colour = np.asarray(self.rgba[:3]).reshape(1, 1, 3)
        if self.texture < 0:
            return colour
        if self.geom is None:
            return colour * texture_2d(model, self.texture).mean((0, 1), keepdims=True)
        return colour * texture_2d(model, self.texture)


def _look(model: mujoco.MjModel, geom: int, *, in_row: bool) -> _Look:
    red, green, blue, alpha = (float(x) for x in _rgba(model, geom))
    rgba = red, green, blue, alpha
    material = model.geom_matid[geom]
    texture = -1
    if material >= 0:
        texture = int(model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB])
    if texture < 0:
        return _Look(rgba)
    flat = model.geom_type[geom] in (PLANE, BOX, HEIGHT_FIELD, MESH) and is_flat(model, texture)
    if model.geom_type[geom] == MESH and model.mesh_texcoordadr[model.geom_dataid[geom]] >= 0:
        flat = False
    if not flat:
        return _Look(rgba, texture)
    across, down = (float(x) for x in model.mat_texrepeat[material])
    uniform = bool(model.mat_texuniform[material])
    if in_row and not uniform:
        raise ValueError(
            f"the texture of {_label(model, geom)} is stretched to its size; set texuniform in its "
            "material, since the boxes of a row have different sizes."
        )
    return _Look(rgba, texture, -1 if in_row else geom, (across, down), uniform)


def _check_kind(model: mujoco.MjModel, geom: int) -> None:
    drawable = (*INTERSECTIONS, MESH, HEIGHT_FIELD)
    if model.geom_type[geom] not in drawable:
        names = ", ".join(_type_name(kind) for kind in drawable)
        raise ValueError(
            f"geom {_label(model, geom)} is a {_type_name(model.geom_type[geom])}, which the "
            f"camera cannot draw; it draws {names}. Put the geom in group 3 or above "
            "to hide it, or leave its name out of `geoms`."
        )


def _label(model: mujoco.MjModel, geom: int) -> str:
    return repr(model.geom(geom).name or f"number {geom}")


def _type_name(kind: int) -> str:
    return mujoco.mjtGeom(int(kind)).name.removeprefix("mjGEOM_").lower()


def _geom_id(model: mujoco.MjModel, name: str) -> int:
    geom = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, name)
    if geom < 0:
        raise ValueError(
            f"the model has no geom named {name!r}; give one of its {model.ngeom} geoms by its "
            "name in the MJCF, with the prefix of any attached model."
        )
    return geom


def _rgba(model: mujoco.MjModel, geom: int) -> np.ndarray:
    # A geom's own colour overrides its material's, except (0.5, 0.5, 0.5, 1), which means "not set"
    # (mjv_addGeoms).
    material = model.geom_matid[geom]
    own = model.geom_rgba[geom]
    unset = np.array_equal(own, np.array([0.5, 0.5, 0.5, 1], np.float32))
    return model.mat_rgba[material] if material >= 0 and unset else own


def _visible(model: mujoco.MjModel, geom: int, groups: Sequence[int]) -> bool:
    return bool(model.geom_group[geom] in groups and _rgba(model, geom)[3] > 0)


def _row(model: mujoco.MjModel, ids: Sequence[int], surfaces: Sequence[int], look: _Look) -> Row:
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    rows = []
    for geom, surface in zip(ids, surfaces, strict=True):
        if model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_BOX:
            raise ValueError(
                f"geom {_label(model, geom)} is a "
                f"{_type_name(model.geom_type[geom])}; a row consists of boxes."
            )
        if not np.allclose(data.geom_xmat[geom].reshape(3, 3), np.eye(3), atol=1e-6):
            raise ValueError(
                f"geom {_label(model, geom)} is rotated; the boxes of a row have to be aligned "
                "with the world's axes."
            )
        (_, y, z), (_, half_y, half_z) = data.geom_xpos[geom], model.geom_size[geom]
        rows.append(Row(_span(y, half_y), _span(z, half_z), surface, look.repeats))
    first = rows[0]
    for geom, other in zip(ids, rows, strict=True):
        if not np.allclose(first.y + first.z, other.y + other.z, atol=1e-6):
            raise ValueError(
                f"geom {_label(model, geom)} spans y {other.y} and z {other.z}, but "
                f"{_label(model, ids[0])} spans y {first.y} and z {first.z}; the boxes of a row "
                "have to span the same."
            )
    return first


def _span(centre: float, half: float) -> tuple[float, float]:
    return float(centre - half), float(centre + half)


def _sky(model: mujoco.MjModel) -> np.ndarray:
    """Return the faces of the first skybox, the one that MuJoCo draws; black without any."""
    skyboxes = np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    return cube_texture(model, skyboxes[0]) if len(skyboxes) else np.zeros((6, 1, 1, 3))
