"""Find the parts of a body that a walker has to name: its tree, root, cameras and feet."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import mujoco
import numpy as np
from dm_control import mjcf

EYE, FOLLOW = "egocentric", "follow"
"""Names of the cameras that are put where there are none."""
_PUT = {"eye": EYE, "film-camera": FOLLOW}
_LOWEST = 0.05
"""A foot's lowest point lies within this share of the body's height above the lowest of all."""
_ACTS_ON = mujoco.mjtTrn
_JOINTS = (int(_ACTS_ON.mjTRN_JOINT), int(_ACTS_ON.mjTRN_JOINTINPARENT))
_SITES = (int(_ACTS_ON.mjTRN_SITE), int(_ACTS_ON.mjTRN_SLIDERCRANK))


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Names that the user gave, as in `envs.walkers.mjcf_file.MjcfWalker`; empty for none."""

    tree: str = ""
    root: str = ""
    eye: str = ""
    film_camera: str = ""
    feet: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts that were found.

    Attributes:
        root, eye, film_camera, feet, end_effectors: their names.
        cameras: cameras to add: the body's name and the attributes of the camera.
        notes: what was added, a sentence each.
    """

    root: str
    eye: str
    film_camera: str
    feet: tuple[str, ...]
    end_effectors: tuple[str, ...]
    cameras: tuple[tuple[str, dict[str, Any]], ...]
    notes: tuple[str, ...]


def tree_of(model: mujoco.MjModel, name: str, path: str) -> str:
    """Return the name of the first body of the tree to take.

    It is the one that is named, or the only one that actuators move, or the only one of these that
    has a free joint.

    Raises:
        ValueError: there is no such body, or several could be meant.
    """
    trees = [b for b in range(1, model.nbody) if model.body_parentid[b] == 0]
    names = {b: model.body(b).name for b in trees}
    if name:
        if name not in names.values():
            raise ValueError(
                f"walker.tree is {name!r}, but the bodies in the worldbody of {path} are "
                f"{', '.join(names.values()) or 'none'}; name one of them"
            )
        return name
    if not trees:
        raise ValueError(f"{path} has no body in its worldbody; name a file that has one")
    if not model.nu:
        raise ValueError(f"{path} has no actuator, so nothing could act; add one")
    moved = {model.body_rootid[b] for i in range(model.nu) for b in _moved_by(model, i)} - {0}
    free = {
        b for b in trees
        if any(model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE for j in _joints_of(model, b))
    }  # fmt: skip
    for found in (moved, moved & free):
        if len(found) == 1:
            return names[found.pop()]
    several = [names[b] for b in trees if not moved or b in moved]
    raise ValueError(
        f"{path} has {len(several)} bodies that could be the walker: {', '.join(several)}; name "
        f"one with --walker.tree"
    )


def _joints_of(model: mujoco.MjModel, body: int) -> range:
    first = model.body_jntadr[body]
    return range(first, first + model.body_jntnum[body])


def _moved_by(model: mujoco.MjModel, actuator: int) -> list[int]:
    """Return the ids of the bodies that an actuator acts on."""
    kind, (target, other) = int(model.actuator_trntype[actuator]), model.actuator_trnid[actuator]
    if kind in _JOINTS:
        return [model.jnt_bodyid[target]]
    if kind in _SITES:
        return [model.site_bodyid[site] for site in (target, other) if site >= 0]
    if kind == _ACTS_ON.mjTRN_BODY:
        return [target]
    if kind != _ACTS_ON.mjTRN_TENDON:
        return []
    first = model.tendon_adr[target]
    wrapped = range(first, first + model.tendon_num[target])
    of = {
        int(mujoco.mjtWrap.mjWRAP_JOINT): model.jnt_bodyid,
        int(mujoco.mjtWrap.mjWRAP_SITE): model.site_bodyid,
    }
    return [
        of[int(model.wrap_type[i])][model.wrap_objid[i]]
        for i in wrapped
        if int(model.wrap_type[i]) in of
    ]


def find_parts(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    top: mjcf.Element,
    solid: Sequence[str],
    wanted: Wanted,
    path: str,
) -> Parts:
    """Find the parts of a body in the posture of its file.

    Args:
        model, data: the whole file, after `mujoco.mj_forward`.
        top: the first body of its tree, in the file's MJCF model.
        solid: names of its geoms that can collide.
        wanted: names that the user gave.
        path: of the file, for messages.

    Raises:
        ValueError: a name is unknown, or it is not clear which part is meant.
    """
    bodies = [body.name for body in (top, *top.find_all("body"))]
    geoms = [geom.name for geom in top.find_all("geom")]
    cameras = {camera.name: camera.mode or "fixed" for camera in top.find_all("camera")}
    for kind, name, known, setting in (
        ("body", wanted.root, bodies, "root"),
        ("camera", wanted.eye, cameras, "eye"),
        ("camera", wanted.film_camera, cameras, "film-camera"),
        *(("geom", foot, geoms, "feet") for foot in wanted.feet),
    ):
        if name and name not in known and _PUT.get(setting) != name:
            raise ValueError(
                f"{path} has no {kind} {name!r} in its body {top.name}; it has "
                f"{', '.join(known) or 'none'}: name one with --walker.{setting}"
            )
    notes: list[str] = []
    root = wanted.root or ("torso" if "torso" in bodies else top.name)
    if not solid:
        raise ValueError(
            f"{path}: no geom of the body {top.name} can collide (contype and conaffinity are 0), "
            f"so it would fall through every floor; let its feet collide"
        )
    low, high = _bounds(model, data, geoms)
    added: list[tuple[str, dict[str, Any]]] = []
    eye = wanted.eye or _eye(cameras, path)
    if eye not in cameras:
        eye = eye or EYE
        place = np.array([high[0] + 0.02 * (high - low).max(), *data.body(root).xpos[1:]])
        added.append((root, _camera(eye, data.body(root), place, np.array([1.0, 0, 0]), fovy=90)))
        told = ", ".join(f"{x:.3g}" for x in added[0][1]["pos"])
        notes.append(f"its eye {eye} was put at its front, at {told} m in the body {root}")
    follows = (name for name, mode in cameras.items() if mode != "fixed")
    film_camera = wanted.film_camera or _first(follows) or FOLLOW
    if film_camera not in {*cameras, eye}:
        away = 2.5 * (high - low).max() * np.array([-0.6, -0.65, 0.45])
        camera = _camera(film_camera, data.body(root), data.body(root).xpos + away, -away)
        added.append((root, {**camera, "mode": "trackcom"}))
    feet = wanted.feet or _lowest(model, data, solid)
    ends = dict.fromkeys(model.body(model.geom(name).bodyid[0]).name for name in feet)
    return Parts(root, eye, film_camera, tuple(feet), tuple(ends), tuple(added), tuple(notes))


def _eye(cameras: dict[str, str], path: str) -> str:
    """Return the camera that rides on the body and turns with it; empty for none."""
    fixed = [name for name, mode in cameras.items() if mode == "fixed"]
    if EYE in fixed:
        return EYE
    if len(fixed) > 1:
        raise ValueError(
            f"{path} has {len(fixed)} cameras that could be the eye: {', '.join(fixed)}; name one "
            f"with --walker.eye"
        )
    return _first(fixed)


def _first(names: Iterable[str]) -> str:
    return next(iter(names), "")


def _bounds(
    model: mujoco.MjModel, data: mujoco.MjData, geoms: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest corner [3] of what geoms fill, metres."""
    corners = []
    for name in geoms:
        g = model.geom(name).id
        turn = data.geom_xmat[g].reshape(3, 3)
        center = data.geom_xpos[g] + turn @ model.geom_aabb[g, :3]
        half = _half(model, g, turn)
        corners.append((center - half, center + half))
    low, high = np.array(corners).transpose(1, 0, 2)
    return low.min(0), high.max(0)


def _half(model: mujoco.MjModel, g: int, turn: np.ndarray) -> np.ndarray:
    """Return the half extents [3] of a geom along the world's axes; exact for round geoms."""
    kinds, size = mujoco.mjtGeom, model.geom_size[g]
    if model.geom_type[g] == kinds.mjGEOM_SPHERE:
        return np.full(3, size[0])
    if model.geom_type[g] == kinds.mjGEOM_CAPSULE:
        return np.abs(turn[:, 2]) * size[1] + size[0]
    if model.geom_type[g] == kinds.mjGEOM_ELLIPSOID:
        return np.linalg.norm(turn * size, axis=1)
    return np.abs(turn) @ model.geom_aabb[g, 3:]


def _lowest(model: mujoco.MjModel, data: mujoco.MjData, geoms: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the geoms that are the lowest, within a share of the body's height."""
    low, high = _bounds(model, data, geoms)
    limit = low[2] + _LOWEST * (high[2] - low[2])
    return tuple(name for name in geoms if _bounds(model, data, [name])[0][2] <= limit)


def _camera(
    name: str, body: Any, place: np.ndarray, look: np.ndarray, **more: float
) -> dict[str, Any]:
    """Return attributes of a camera at a place [3] in the world that looks along `look` [3]."""
    turn = body.xmat.reshape(3, 3)
    right = np.cross(look, [0, 0, 1])
    axes = np.stack([right, np.cross(right, look)])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    pos = turn.T @ (place - body.xpos)
    return {"name": name, "pos": pos, "xyaxes": (axes @ turn).ravel(), **more}
