"""Where everything is, at a state: forward kinematics, the same for both physics back ends.

`mjx.kinematics` computes the same, one level of the tree after the other, and takes XLA many times
as long to compile, in every program that resets or steps an environment. Here the tree is resolved
by pointer jumping: every body knows its pose relative to another, and in each round that other is
replaced by the one it hangs on itself, so that a tree of depth d takes log2 d rounds for all bodies
at once (Hillis and Steele 1986, doi 10.1145/7902.7903).

The equations are those of MuJoCo's `mj_kinematics`, `mj_comPos` and `mj_camlight`
(engine_core_smooth.c), against which the tests hold them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from mujoco import mjtCamLight, mjtJoint

_EXACT = jax.lax.Precision.HIGHEST


@struct.dataclass
class Poses:
    """Poses in the world frame, in metres; names are `mujoco.MjData`'s.

    Matrices have the frame's axes as their columns; a camera looks along its negative z axis.

    Attributes:
        xpos: float32[nbody, 3], origins of the bodies.
        xmat: float32[nbody, 3, 3].
        geom_xpos: float32[ngeom, 3].
        geom_xmat: float32[ngeom, 3, 3].
        cam_xpos: float32[ncam, 3].
        cam_xmat: float32[ncam, 3, 3].
        subtree_com: float32[nbody, 3], centre of mass of each body and its descendants.
    """

    xpos: jax.Array
    xmat: jax.Array
    geom_xpos: jax.Array
    geom_xmat: jax.Array
    cam_xpos: jax.Array
    cam_xmat: jax.Array
    subtree_com: jax.Array


class _Links(NamedTuple):
    """The tree, cut into links: one for each joint, and one for each body without joints.

    Attributes:
        base: int[L], the link that this one hangs on; link 0 is the world and hangs on itself.
        joint: int[L], or -1.
        pos: float64[L, 3], where the link is on its base before the joint moves.
        mat: float64[L, 3, 3], how it is turned there.
        last: int[nbody], the link whose pose is the body's.
    """

    base: np.ndarray
    joint: np.ndarray
    pos: np.ndarray
    mat: np.ndarray
    last: np.ndarray


class Kinematics:
    """Forward kinematics of a model, as a function.

    `mujoco.MjData` after `mj_step` lags its own positions by one physics step; this does not.

    Args:
        model: any model, also one that MJX cannot simulate.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._links = _links(model)
        self._shares = _shares(model)

    def __call__(self, qpos: jax.Array, mocap_pos: jax.Array | None = None) -> Poses:
        """Poses at `qpos`, float32[nq], with mocap bodies at `mocap_pos`, float32[nmocap, 3], or
        where the model has them."""
        model, links = self._model, self._links
        pos, mat = _resolve(links.base, *_relative(model, links, qpos))
        xpos, xmat = pos[links.last], mat[links.last]
        if mocap_pos is not None:
            bodies = np.flatnonzero(model.body_mocapid >= 0)
            xpos = xpos.at[bodies].set(mocap_pos[model.body_mocapid[bodies]])
        com, _ = _compose((xpos, xmat), (_f32(model.body_ipos), xmat))
        subtree_com = jnp.matmul(self._shares, com, precision=_EXACT)
        geom_xpos, geom_xmat = _compose(
            (xpos[model.geom_bodyid], xmat[model.geom_bodyid]),
            (_f32(model.geom_pos), _f32(_matrices(model.geom_quat))),
        )
        cam_xpos, cam_xmat = _cameras(model, xpos, xmat, subtree_com)
        return Poses(xpos, xmat, geom_xpos, geom_xmat, cam_xpos, cam_xmat, subtree_com)


def _links(model: mujoco.MjModel) -> _Links:
    base, joint, pos, mat = [], [], [], []
    last: list[int] = []
    turns = _matrices(model.body_quat)
    for body in range(model.nbody):
        here = last[model.body_parentid[body]] if body else 0
        offset, turn = model.body_pos[body], turns[body]
        first = model.body_jntadr[body]
        for j in range(first, first + model.body_jntnum[body]) or [-1]:
            base.append(here)
            joint.append(j)
            pos.append(offset)
            mat.append(turn)
            # A second joint of the same body moves it from where the first one left it.
            here, offset, turn = len(base) - 1, np.zeros(3), np.eye(3)
        last.append(here)
    return _Links(*map(np.array, (base, joint, pos, mat, last)))


def _shares(model: mujoco.MjModel) -> np.ndarray:
    """float32[nbody, nbody], the share of each body (column) in the mass of a subtree (row)."""
    mass = np.diag(model.body_mass)
    # Children come after their parents, so that each row is complete when its parent takes it over.
    for body in range(model.nbody - 1, 0, -1):
        mass[model.body_parentid[body]] += mass[body]
    total = mass.sum(1, keepdims=True)
    # A subtree without mass has its centre at its own root.
    massless = np.eye(model.nbody)
    return np.where(total > 0, mass / np.where(total > 0, total, 1), massless).astype(np.float32)


def _relative(model: mujoco.MjModel, links: _Links, qpos: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Each link's pose on its base, float32[L, 3] and float32[L, 3, 3]."""
    pos, mat = _f32(links.pos), _f32(links.mat)
    kinds = np.where(links.joint >= 0, model.jnt_type[links.joint], -1)
    for kind in sorted(set(kinds) - {-1}):
        rows = np.flatnonzero(kinds == kind)
        joints = links.joint[rows]
        address = model.jnt_qposadr[joints]
        placed, turned = links.pos[rows], _f32(links.mat[rows])
        if kind == mjtJoint.mjJNT_FREE:
            pos = pos.at[rows].set(qpos[address[:, None] + np.arange(3)])
            mat = mat.at[rows].set(_from_quaternion(qpos[address[:, None] + np.arange(3, 7)]))
            continue
        if kind == mjtJoint.mjJNT_SLIDE:
            axis = np.einsum("rij,rj->ri", links.mat[rows], model.jnt_axis[joints])
            moved = qpos[address] - _f32(model.qpos0[address])
            pos = pos.at[rows].set(placed + _f32(axis) * moved[:, None])
            continue
        if kind == mjtJoint.mjJNT_HINGE:
            turn = _about(model.jnt_axis[joints], qpos[address] - _f32(model.qpos0[address]))
        else:
            turn = _from_quaternion(qpos[address[:, None] + np.arange(4)])
        # The joint's anchor stays where it is while the link turns about it.
        anchor = _f32(model.jnt_pos[joints])
        turned = jnp.matmul(turned, turn, precision=_EXACT)
        moved = _f32(placed + np.einsum("rij,rj->ri", links.mat[rows], model.jnt_pos[joints]))
        pos = pos.at[rows].set(moved - jnp.einsum("rij,rj->ri", turned, anchor, precision=_EXACT))
        mat = mat.at[rows].set(turned)
    return pos, mat


def _resolve(base: np.ndarray, pos: jax.Array, mat: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Poses in the world, from poses on bases."""
    while base.any():
        pos, mat = _compose((pos[base], mat[base]), (pos, mat))
        base = base[base]
    return pos, mat


def _cameras(model, xpos, xmat, subtree_com) -> tuple[jax.Array, jax.Array]:
    body, mode, target = model.cam_bodyid, model.cam_mode, np.maximum(model.cam_targetbodyid, 0)
    local = _f32(model.cam_pos), _f32(_matrices(model.cam_quat))
    pos, mat = _compose((xpos[body], xmat[body]), local)
    is_mode = lambda *modes: np.isin(mode, [int(m) for m in modes])
    track, trackcom = (
        is_mode(mjtCamLight.mjCAMLIGHT_TRACK),
        is_mode(mjtCamLight.mjCAMLIGHT_TRACKCOM),
    )
    pos = jnp.where(track[:, None], xpos[body] + _f32(model.cam_pos0), pos)
    pos = jnp.where(trackcom[:, None], subtree_com[body] + _f32(model.cam_poscom0), pos)
    fixed = _f32(model.cam_mat0).reshape(-1, 3, 3)
    mat = jnp.where((track | trackcom)[:, None, None], fixed, mat)

    at_com = is_mode(mjtCamLight.mjCAMLIGHT_TARGETBODYCOM)
    targets = at_com | is_mode(mjtCamLight.mjCAMLIGHT_TARGETBODY)
    back = _unit(pos - jnp.where(at_com[:, None], subtree_com[target], xpos[target]))
    right = _unit(jnp.cross(jnp.array([0.0, 0.0, 1.0]), back))
    towards = jnp.stack([right, jnp.cross(back, right), back], -1)
    return pos, jnp.where(targets[:, None, None], towards, mat)


def _compose(outer, inner) -> tuple[jax.Array, jax.Array]:
    """The pose `inner`, which is relative to `outer`; positions [L, 3], matrices [L, 3, 3]."""
    (outer_pos, outer_mat), (inner_pos, inner_mat) = outer, inner
    moved = jnp.einsum("lij,lj->li", outer_mat, inner_pos, precision=_EXACT)
    return outer_pos + moved, jnp.matmul(outer_mat, inner_mat, precision=_EXACT)


def _about(axis: np.ndarray, angle: jax.Array) -> jax.Array:
    """Rotations float32[R, 3, 3] by angles float32[R] about unit axes float[R, 3] (Rodrigues)."""
    x, y, z = axis.T
    zero = np.zeros_like(x)
    skew = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]]).transpose(2, 0, 1)
    along = axis[:, :, None] * axis[:, None, :]
    cos, sin = jnp.cos(angle)[:, None, None], jnp.sin(angle)[:, None, None]
    return _f32(along) + cos * _f32(np.eye(3) - along) + sin * _f32(skew)


def _from_quaternion(quat: jax.Array) -> jax.Array:
    """Rotations float32[R, 3, 3] of quaternions (w, x, y, z), float32[R, 4], of any length."""
    w, x, y, z = jnp.moveaxis(_unit(quat), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def _matrices(quats: np.ndarray) -> np.ndarray:
    """float64[R, 3, 3] of a model's unit quaternions, float64[R, 4]."""
    mats = np.zeros((len(quats), 9))
    for mat, quat in zip(mats, quats, strict=True):
        mujoco.mju_quat2Mat(mat, quat)
    return mats.reshape(-1, 3, 3)


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _f32(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x, jnp.float32)
