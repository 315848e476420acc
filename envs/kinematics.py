"""Compute the poses of bodies, geoms, cameras and lights from joint positions (forward kinematics).

All physics back ends share this code. `mjx.kinematics` gives the same values, but walks the tree
level by level, which takes XLA many times as long to compile in every program that resets or steps
an environment. Here pointer jumping resolves the tree: each body starts with its pose relative to
its parent, and each round composes that pose with the parent's own relative pose and makes the
parent's parent the new reference. A tree of depth d takes log2 d rounds for all bodies at once
(Hillis and Steele 1986, doi 10.1145/7902.7903).

The equations are those of MuJoCo's `mj_kinematics`, `mj_comPos` and `mj_camlight`
(engine_core_smooth.c). The tests compare the results with MuJoCo's C engine.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from mujoco import mjtCamLight, mjtJoint

_EXACT = jax.lax.Precision.HIGHEST
# The shortest vector that has a direction, metres. MuJoCo's limit is mjMINVAL, 1e-15; a difference
# of two float32 positions that is shorter than this is rounding.
_SHORTEST = np.float32(1e-6)


@struct.dataclass
class Poses:
    """Positions, in metres, and orientations in the world frame, named as in `mujoco.MjData`.

    The columns of a matrix are the axes of the frame. A camera looks along its negative z axis.

    Attributes:
        xpos: float32[nbody, 3], origins of the bodies.
        xmat: float32[nbody, 3, 3], orientations of the bodies.
        geom_xpos: float32[ngeom, 3].
        geom_xmat: float32[ngeom, 3, 3].
        cam_xpos: float32[ncam, 3].
        cam_xmat: float32[ncam, 3, 3].
        light_xpos: float32[nlight, 3].
        light_xdir: float32[nlight, 3], unit vectors along which the lights shine.
        subtree_com: float32[nbody, 3], centre of mass of each body and its descendants.
    """

    xpos: jax.Array
    xmat: jax.Array
    geom_xpos: jax.Array
    geom_xmat: jax.Array
    cam_xpos: jax.Array
    cam_xmat: jax.Array
    light_xpos: jax.Array
    light_xdir: jax.Array
    subtree_com: jax.Array


class _Links(NamedTuple):
    """The kinematic tree as L links: one for each joint, and one for each body without joints.

    Attributes:
        base: int[L], the parent link. Link 0 is the world and is its own parent.
        joint: int[L], the joint that moves the link, or -1.
        pos: float64[L, 3], position relative to the parent link at joint position 0, metres.
        mat: float64[L, 3, 3], orientation relative to the parent link at joint position 0.
        last: int[nbody], the link whose pose is the body's pose.
    """

    base: np.ndarray
    joint: np.ndarray
    pos: np.ndarray
    mat: np.ndarray
    last: np.ndarray


class Kinematics:
    """Compute poses from joint positions; call the object as a function, also under jit and vmap.

    The poses belong to the joint positions that are passed in. `mujoco.MjData` after `mj_step`
    holds poses that are one physics step older than its `qpos`.

    Args:
        model: any compiled model, including those that MJX cannot simulate.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._links = _links(model)
        self._shares = _shares(model)

    def __call__(self, qpos: jax.Array, mocap_pos: jax.Array | None = None) -> Poses:
        """Return the poses at given joint positions, without a batch axis.

        Args:
            qpos: float32[nq], joint positions as in `mujoco.MjData.qpos`.
            mocap_pos: float32[nmocap, 3], positions of the mocap bodies in the world, metres, in
                the order of `mujoco.MjData.mocap_pos`; by default those in the model. Mocap bodies
                keep the orientation that they have in the model.
        """
        model, links = self._model, self._links
        pos, mat = _relative(model, links, qpos)
        if mocap_pos is not None:
            # A mocap body is a child of the world and has no joint: one link, relative to link 0.
            bodies = np.flatnonzero(model.body_mocapid >= 0)
            pos = pos.at[links.last[bodies]].set(mocap_pos[model.body_mocapid[bodies]])
        pos, mat = _resolve(links.base, pos, mat)
        xpos, xmat = pos[links.last], mat[links.last]
        com, _ = _compose((xpos, xmat), (_f32(model.body_ipos), xmat))
        subtree_com = jnp.matmul(self._shares, com, precision=_EXACT)
        geom_xpos, geom_xmat = _compose(
            (xpos[model.geom_bodyid], xmat[model.geom_bodyid]),
            (_f32(model.geom_pos), _f32(_matrices(model.geom_quat))),
        )
        cam_xpos, cam_xmat = _cameras(model, xpos, xmat, subtree_com)
        light_xpos, light_xdir = _lights(model, xpos, xmat, subtree_com)
        return Poses(
            xpos=xpos,
            xmat=xmat,
            geom_xpos=geom_xpos,
            geom_xmat=geom_xmat,
            cam_xpos=cam_xpos,
            cam_xmat=cam_xmat,
            light_xpos=light_xpos,
            light_xdir=light_xdir,
            subtree_com=subtree_com,
        )


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
            # The next joint of the same body acts on the pose that the previous one gives.
            here, offset, turn = len(base) - 1, np.zeros(3), np.eye(3)
        last.append(here)
    return _Links(*map(np.array, (base, joint, pos, mat, last)))


def _shares(model: mujoco.MjModel) -> np.ndarray:
    """Return float32[nbody, nbody]: each body's (column) share of a subtree's (row) mass."""
    mass = np.diag(model.body_mass)
    # Children come after their parents, so each row is complete before it is added to its parent's.
    for body in range(model.nbody - 1, 0, -1):
        mass[model.body_parentid[body]] += mass[body]
    total = mass.sum(1, keepdims=True)
    # The centre of mass of a subtree without mass is that of its root body.
    massless = np.eye(model.nbody)
    return np.where(total > 0, mass / np.where(total > 0, total, 1), massless).astype(np.float32)


def _relative(model: mujoco.MjModel, links: _Links, qpos: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return each link's pose relative to its parent link, float32[L, 3] and float32[L, 3, 3]."""
    pos, mat = _f32(links.pos), _f32(links.mat)
    jointed = links.joint >= 0
    kinds = np.full(len(jointed), -1)
    kinds[jointed] = model.jnt_type[links.joint[jointed]]
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
        # The link turns about the joint's anchor, which stays in place.
        anchor = _f32(model.jnt_pos[joints])
        turned = jnp.matmul(turned, turn, precision=_EXACT)
        moved = _f32(placed + np.einsum("rij,rj->ri", links.mat[rows], model.jnt_pos[joints]))
        pos = pos.at[rows].set(moved - jnp.einsum("rij,rj->ri", turned, anchor, precision=_EXACT))
        mat = mat.at[rows].set(turned)
    return pos, mat


def _resolve(base: np.ndarray, pos: jax.Array, mat: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return poses in the world, given poses relative to the links `base`."""
    while base.any():
        pos, mat = _compose((pos[base], mat[base]), (pos, mat))
        base = base[base]
    return pos, mat


def _cameras(model, xpos, xmat, subtree_com) -> tuple[jax.Array, jax.Array]:
    """Return `cam_xpos` and `cam_xmat`."""
    body, mode = model.cam_bodyid, model.cam_mode
    local = _f32(model.cam_pos), _f32(_matrices(model.cam_quat))
    pos, mat = _compose((xpos[body], xmat[body]), local)
    offsets = model.cam_pos0, model.cam_poscom0
    pos, tracks = _track(mode, body, offsets, pos, xpos, subtree_com)
    mat = jnp.where(tracks[:, None, None], _f32(model.cam_mat0).reshape(-1, 3, 3), mat)
    target, aims = _targets(mode, model.cam_targetbodyid, xpos, subtree_com)
    if not aims.any():
        return pos, mat
    back = _direction(pos - target)
    right = _direction(jnp.cross(jnp.array([0.0, 0.0, 1.0]), back))
    towards = jnp.stack([right, jnp.cross(back, right), back], -1)
    return pos, jnp.where(aims[:, None, None], towards, mat)


def _lights(model, xpos, xmat, subtree_com) -> tuple[jax.Array, jax.Array]:
    """Return `light_xpos` and `light_xdir`."""
    body, mode = model.light_bodyid, model.light_mode
    if not model.nlight:
        return jnp.zeros((0, 3)), jnp.zeros((0, 3))
    turn = xmat[body]
    pos = xpos[body] + jnp.einsum("lij,lj->li", turn, _f32(model.light_pos), precision=_EXACT)
    way = jnp.einsum("lij,lj->li", turn, _f32(model.light_dir), precision=_EXACT)
    offsets = model.light_pos0, model.light_poscom0
    pos, tracks = _track(mode, body, offsets, pos, xpos, subtree_com)
    way = jnp.where(tracks[:, None], _f32(model.light_dir0), way)
    target, aims = _targets(mode, model.light_targetbodyid, xpos, subtree_com)
    return pos, _direction(jnp.where(aims[:, None], target - pos, way) if aims.any() else way)


def _track(mode, body, offsets, pos, xpos, subtree_com) -> tuple[jax.Array, np.ndarray]:
    """Move the cameras or lights that track a body without turning with it.

    Args:
        mode: int[n], values of `mjtCamLight`.
        body: int[n], the bodies that they are attached to.
        offsets: twice float64[n, 3], in the world's axes, from the body's origin (mode track) and
            from its subtree's centre of mass (mode trackcom), metres.
        pos: float32[n, 3], where they would be in mode fixed.
        xpos: float32[nbody, 3].
        subtree_com: float32[nbody, 3].

    Returns:
        float32[n, 3], positions; and bool[n], which of them track.
    """
    track, trackcom = mode == mjtCamLight.mjCAMLIGHT_TRACK, mode == mjtCamLight.mjCAMLIGHT_TRACKCOM
    pos = jnp.where(track[:, None], xpos[body] + _f32(offsets[0]), pos)
    pos = jnp.where(trackcom[:, None], subtree_com[body] + _f32(offsets[1]), pos)
    return pos, track | trackcom


def _targets(mode, target, xpos, subtree_com) -> tuple[jax.Array, np.ndarray]:
    """Return the points float32[n, 3] that cameras or lights aim at, and bool[n], which do aim."""
    at_body = mode == mjtCamLight.mjCAMLIGHT_TARGETBODY
    at_com = mode == mjtCamLight.mjCAMLIGHT_TARGETBODYCOM
    body = np.maximum(target, 0)
    point = jnp.where(at_com[:, None], subtree_com[body], xpos[body])
    return point, (at_body | at_com) & (target >= 0)


def _compose(outer, inner) -> tuple[jax.Array, jax.Array]:
    """Return the world poses of `inner`, given relative to `outer`.

    Both are pairs of positions float32[L, 3] and orientations float32[L, 3, 3].
    """
    (outer_pos, outer_mat), (inner_pos, inner_mat) = outer, inner
    moved = jnp.einsum("lij,lj->li", outer_mat, inner_pos, precision=_EXACT)
    return outer_pos + moved, jnp.matmul(outer_mat, inner_mat, precision=_EXACT)


def _about(axis: np.ndarray, angle: jax.Array) -> jax.Array:
    """Return rotations float32[R, 3, 3] by angles float32[R] about unit axes float[R, 3].

    Rodrigues' formula.
    """
    x, y, z = axis.T
    zero = np.zeros_like(x)
    skew = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]]).transpose(2, 0, 1)
    along = axis[:, :, None] * axis[:, None, :]
    cos, sin = jnp.cos(angle)[:, None, None], jnp.sin(angle)[:, None, None]
    return _f32(along) + cos * _f32(np.eye(3) - along) + sin * _f32(skew)


def _from_quaternion(quat: jax.Array) -> jax.Array:
    """Return rotations float32[R, 3, 3] of quaternions (w, x, y, z) float32[R, 4] of any length."""
    w, x, y, z = jnp.moveaxis(_unit(quat), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def _matrices(quats: np.ndarray) -> np.ndarray:
    """Return rotations float64[R, 3, 3] of a model's unit quaternions float64[R, 4]."""
    mats = np.zeros((len(quats), 9))
    for mat, quat in zip(mats, quats, strict=True):
        mujoco.mju_quat2Mat(mat, quat)
    return mats.reshape(-1, 3, 3)


def _direction(x: jax.Array) -> jax.Array:
    """Return unit vectors float32[n, 3]; (1, 0, 0) for null vectors, as MuJoCo's mju_normalize3."""
    null = jnp.linalg.norm(x, axis=-1, keepdims=True) < _SHORTEST
    return jnp.where(null, jnp.array([1.0, 0.0, 0.0]), _unit(x))


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _f32(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x, jnp.float32)
