"""Compute what dm_control's walkers observe of their own bodies.

The observables are those of `dm_control.locomotion.walkers`, by dm_control's names. The tests
compare each with dm_control's own on the same states.

Sensors come from `Now.physics.sensordata`. Those of velocities (gyro, velocimeter) belong to the
state after the step in the back end `mujoco`, and to the state before the last physics step in
`mjx` and `warp`. Those of accelerations and forces (accelerometer, force, torque, touch) belong in
all to the last physics step, at whose beginning they were computed; dm_control's are those of
`mujoco`. All read 0 until the first step.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.interfaces import WALKER, Now
from envs.postures import multiply

_EXACT = jax.lax.Precision.HIGHEST
_TOUCH = 1e-3
"""Newton, above which a touch sensor counts as touched; `_TOUCH_THRESHOLD` in dm_control."""
_ZAXIS_OF = "world_zaxis_"
_TORQUE = 60.0
"""Newton metres by which torques are scaled; `_TORQUE_THRESHOLD` in dm_control."""


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """Names of the parts of a walker that its observables are about, in dm_control's order.

    Attributes:
        root: the root body.
        joints: observed joints; None for those that actuators move, in the order of actuators.
        end_effectors: bodies, or sites if `sites` is set.
        appendages: bodies, or sites if `sites` is set.
        sites: whether the two are sites.
        bodies: bodies whose poses relative to the root body are observed.
        sensors: sensors, as in `Walker.sensors`.
        squashed_torque: whether torques are squashed to [-1, 1].
        touched: whether touch sensors tell 0 or 1, not a force.
    """

    root: str
    joints: tuple[str, ...] | None = None
    end_effectors: tuple[str, ...] = ()
    appendages: tuple[str, ...] = ()
    sites: bool = False
    bodies: tuple[str, ...] = ()
    sensors: tuple[str, ...] = ()
    squashed_torque: bool = False
    touched: bool = True


def observe(model: mujoco.MjModel, now: Now, anatomy: Anatomy, names: Sequence[str]) -> jax.Array:
    """Return float32[n], observables joined in the order of their names.

    Args:
        model: a walker in its arena.
        now: the state.
        anatomy: the walker's parts.
        names: names of dm_control's observables, such as joints_pos.

    Raises:
        ValueError: an observable is unknown.
    """
    return jnp.concatenate([observable(model, now, anatomy, name) for name in names])


def observable(model: mujoco.MjModel, now: Now, anatomy: Anatomy, name: str) -> jax.Array:
    """Return float32[n], one observable by dm_control's name; see `observe`."""
    if name.startswith(_ZAXIS_OF):
        # The world's vertical in the frame of a body.
        return now.poses.xmat[model.body(WALKER + name.removeprefix(_ZAXIS_OF)).id, 2]
    if name not in OBSERVABLES:
        known = ", ".join([*OBSERVABLES, f"{_ZAXIS_OF}BODY"])
        raise ValueError(f"there is no observable {name!r}; there are {known}")
    return OBSERVABLES[name](model, now, anatomy).astype(jnp.float32).reshape(-1)


def actuated_joints(model: mujoco.MjModel) -> np.ndarray:
    """Return int[n], the joints that actuators move, in the order of the actuators."""
    moves = model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT
    return model.actuator_trnid[moves, 0]


def _joints(model: mujoco.MjModel, anatomy: Anatomy) -> np.ndarray:
    if anatomy.joints is None:
        return actuated_joints(model)
    return np.array([model.joint(WALKER + name).id for name in anatomy.joints], int)


def _joints_pos(model: mujoco.MjModel, now: Now, anatomy: Anatomy) -> jax.Array:
    """Positions of the observed joints, radians or metres."""
    return now.physics.qpos[model.jnt_qposadr[_joints(model, anatomy)]]


def _joints_vel(model: mujoco.MjModel, now: Now, anatomy: Anatomy) -> jax.Array:
    """Velocities of the observed joints, rad/s or m/s."""
    return now.physics.qvel[model.jnt_dofadr[_joints(model, anatomy)]]


def _tendons_pos(model: mujoco.MjModel, now: Now, anatomy: Anatomy) -> jax.Array:
    """Lengths of the fixed tendons: sums of positions of joints times coefficients."""
    return jnp.matmul(
        _tendons(model, model.jnt_qposadr, model.nq), now.physics.qpos, precision=_EXACT
    )


def _tendons_vel(model: mujoco.MjModel, now: Now, anatomy: Anatomy) -> jax.Array:
    """Velocities of the fixed tendons."""
    return jnp.matmul(
        _tendons(model, model.jnt_dofadr, model.nv), now.physics.qvel, precision=_EXACT
    )


def _tendons(model: mujoco.MjModel, addresses: np.ndarray, n: int) -> jax.Array:
    """Return float32[ntendon, n], the coefficients of the joints of each tendon."""
    if (model.wrap_type != mujoco.mjtWrap.mjWRAP_JOINT).any():
        raise ValueError("the walker has a spatial tendon; only fixed tendons can be observed")
    coefficients = np.zeros((model.ntendon, n), np.float32)
    for i in range(model.ntendon):
        wraps = model.tendon_adr[i] + np.arange(model.tendon_num[i])
        coefficients[i, addresses[model.wrap_objid[wraps]]] = model.wrap_prm[wraps]
    return jnp.asarray(coefficients)


def _body_height(model: mujoco.MjModel, now: Now, anatomy: Anatomy) -> jax.Array:
    """Height of the root body, metres."""
    return now.root[2:]


def _end_effectors_pos(model: mujoco.MjModel, now: Now, anatomy: Anatomy) -> jax.Array:
    """Positions of the end effectors, in the root body's frame, metres."""
    return _in_root_frame(now, _points(model, now, anatomy.end_effectors, anatomy.sites))


def _appendages_pos(model: mujoco.MjModel, now: Now, anatomy: Anatomy) -> jax.Array:
    """Positions of the appendages, in the root body's frame, metres."""
    return _in_root_frame(now, _points(model, now, anatomy.appendages, anatomy.sites))


def _bodies_pos(model: mujoco.MjModel, now: Now, anatomy: Anatomy) -> jax.Array:
    """Positions of the bodies, in the root body's frame, metres."""
    return _in_root_frame(now, _points(model, now, anatomy.bodies, sites=False))


def _bodies_quats(model: mujoco.MjModel, now: Now, anatomy: Anatomy) -> jax.Array:
    """Orientations of the bodies in the root body's frame, quaternions (w, x, y, z)."""
    root = model.body(WALKER + anatomy.root).id
    turns = {root: jnp.array([1.0, 0, 0, 0])}
    for body in range(root + 1, model.nbody):
        parent = model.body_parentid[body]
        if parent not in turns:
            continue
        turn = multiply(turns[parent], jnp.asarray(model.body_quat[body], jnp.float32))
        for j in model.body_jntadr[body] + np.arange(model.body_jntnum[body]):
            if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_HINGE:
                address = model.jnt_qposadr[j]
                half = 0.5 * (now.physics.qpos[address] - float(model.qpos0[address]))
                axis = jnp.asarray(model.jnt_axis[j], jnp.float32)
                turn = multiply(turn, jnp.append(jnp.cos(half), jnp.sin(half) * axis))
            elif model.jnt_type[j] != mujoco.mjtJoint.mjJNT_SLIDE:
                raise ValueError(f"joint {model.joint(j).name!r} is neither a hinge nor a slide")
        turns[body] = turn
    return jnp.stack([turns[model.body(WALKER + name).id] for name in anatomy.bodies])


def _world_zaxis(model: mujoco.MjModel, now: Now, anatomy: Anatomy) -> jax.Array:
    """The world's vertical in the root body's frame."""
    return now.rotation[2]


def _actuator_activation(model: mujoco.MjModel, now: Now, anatomy: Anatomy) -> jax.Array:
    """Activations of the actuators that have one."""
    return now.physics.act


def _points(model: mujoco.MjModel, now: Now, names: Sequence[str], sites: bool) -> jax.Array:
    """Return float32[n, 3], positions of bodies or sites in the world, metres."""
    if not sites:
        return now.poses.xpos[np.array([model.body(WALKER + name).id for name in names], int)]
    ids = np.array([model.site(WALKER + name).id for name in names], int)
    bodies, places = model.site_bodyid[ids], jnp.asarray(model.site_pos[ids], jnp.float32)
    turned = jnp.einsum("nij,nj->ni", now.poses.xmat[bodies], places, precision=_EXACT)
    return now.poses.xpos[bodies] + turned


def _in_root_frame(now: Now, points: jax.Array) -> jax.Array:
    return jnp.matmul(points - now.root, now.rotation, precision=_EXACT)


def _sensor(kind: mujoco.mjtSensor) -> Callable[[mujoco.MjModel, Now, Anatomy], jax.Array]:
    """Return a function that reads the sensors of one kind, in the order of `Anatomy.sensors`."""

    def read(model: mujoco.MjModel, now: Now, anatomy: Anatomy) -> jax.Array:
        ids = [model.sensor(WALKER + name).id for name in anatomy.sensors]
        own = [i for i in ids if model.sensor_type[i] == kind]
        entries = [model.sensor_adr[i] + np.arange(model.sensor_dim[i]) for i in own]
        values = now.physics.sensordata[np.concatenate([np.zeros(0, int), *entries])]
        if kind == mujoco.mjtSensor.mjSENS_TORQUE and anatomy.squashed_torque:
            return jnp.tanh(2 * values / _TORQUE)
        if kind == mujoco.mjtSensor.mjSENS_TOUCH and anatomy.touched:
            return values > _TOUCH
        return values

    return read


OBSERVABLES: Mapping[str, Callable[[mujoco.MjModel, Now, Anatomy], jax.Array]] = {
    "joints_pos": _joints_pos,
    "joints_vel": _joints_vel,
    "tendons_pos": _tendons_pos,
    "tendons_vel": _tendons_vel,
    "actuator_activation": _actuator_activation,
    "body_height": _body_height,
    "end_effectors_pos": _end_effectors_pos,
    "appendages_pos": _appendages_pos,
    "bodies_pos": _bodies_pos,
    "bodies_quats": _bodies_quats,
    "world_zaxis": _world_zaxis,
    "sensors_gyro": _sensor(mujoco.mjtSensor.mjSENS_GYRO),
    "sensors_velocimeter": _sensor(mujoco.mjtSensor.mjSENS_VELOCIMETER),
    "sensors_accelerometer": _sensor(mujoco.mjtSensor.mjSENS_ACCELEROMETER),
    "sensors_force": _sensor(mujoco.mjtSensor.mjSENS_FORCE),
    "sensors_torque": _sensor(mujoco.mjtSensor.mjSENS_TORQUE),
    "sensors_touch": _sensor(mujoco.mjtSensor.mjSENS_TOUCH),
}
"""Functions (model, now, anatomy) -> numbers, by dm_control's names of observables."""
STANDARD = (
    *("sensors_gyro", "sensors_velocimeter", "sensors_accelerometer"),
    *("sensors_force", "sensors_torque", "sensors_touch"),
)
"""dm_control's kinematic and dynamic sensors, which its locomotion tasks observe of any walker."""
