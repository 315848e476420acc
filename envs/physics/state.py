"""Define the interface of a physics back end, and the state that it advances."""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct


@struct.dataclass
class PhysicsState:
    """The state of one simulation. Names and units are `mujoco.MjData`'s.

    To move or resize mocap boxes, replace `mocap_pos` and `geom_size`. For all other changes make a
    new state with `Physics.init`: `mujoco` continues from `bits`, not from its float32 copies.

    Attributes:
        qpos: float32[nq], positions: metres, radians, quaternions.
        qvel: float32[nv], velocities.
        act: float32[na], actuator activations.
        qacc_warmstart: float32[nv], accelerations at which the solver starts.
        time: float32[], seconds.
        mocap_pos: float32[nmocap, 3], positions of the mocap bodies, metres.
        geom_size: float32[nmocap, 3], half sizes of the mocap bodies' boxes, metres.
        sensordata: float32[nsensordata], at this state for `mujoco`; one physics step earlier for
            `mjx` and `warp`.
        failed: bool[], whether the simulation has ever broken down: a position, velocity or
            acceleration that is not finite or beyond 1e10 (`mjMAXVAL`), or in `warp` more contacts
            or constraints than there is memory for. The step that breaks down leaves the state
            unchanged.
        bits: uint32[k], the float64 state of `mujoco`, 2 words each (low, high): time, qpos, qvel,
            act, warm start, so that nothing is rounded between control steps. Empty for the others.
    """

    qpos: jax.Array
    qvel: jax.Array
    act: jax.Array
    qacc_warmstart: jax.Array
    time: jax.Array
    mocap_pos: jax.Array
    geom_size: jax.Array
    sensordata: jax.Array
    failed: jax.Array
    bits: jax.Array


class Physics(Protocol):
    """A back end, bound to a model and to a number of physics steps per control step."""

    model: mujoco.MjModel
    num_substeps: int

    def init(
        self,
        qpos: jax.Array,
        qvel: jax.Array,
        mocap_pos: jax.Array | None = None,
        geom_size: jax.Array | None = None,
    ) -> PhysicsState:
        """Return the state at time 0 with these positions and velocities.

        Shapes are as in `PhysicsState`; `mocap_pos` and `geom_size` are the model's own if None.
        Sensors read 0 until the first step.
        """
        default_pos, default_size = default_slabs(self.model)
        return PhysicsState(
            qpos=jnp.asarray(qpos, jnp.float32),
            qvel=jnp.asarray(qvel, jnp.float32),
            act=jnp.zeros(self.model.na),
            qacc_warmstart=jnp.zeros(self.model.nv),
            time=jnp.zeros(()),
            mocap_pos=default_pos if mocap_pos is None else mocap_pos,
            geom_size=default_size if geom_size is None else geom_size,
            sensordata=jnp.zeros(self.model.nsensordata),
            failed=jnp.zeros((), bool),
            bits=jnp.zeros(0, jnp.uint32),
        )

    def step(self, state: PhysicsState, ctrl: jax.Array) -> PhysicsState:
        """Hold `ctrl`, float32[nu], for `num_substeps` physics steps."""
        ...


def check_state(model: mujoco.MjModel, back_end: str) -> None:
    """Raise a ValueError if a model keeps state that `PhysicsState` does not hold."""
    if model.nhistory or model.npluginstate or model.nuserdata:
        raise ValueError(
            "the model has delayed signals, stateful plugins or user data, whose state the "
            f"{back_end!r} back end does not carry from step to step; remove them from the model."
        )


def mocap_geoms(model: mujoco.MjModel) -> np.ndarray:
    """Return int32[nmocap], the id of each mocap body's geom.

    Raises:
        ValueError: a mocap body has no geom, several, or one that is not a box.
    """
    geoms = np.zeros(model.nmocap, np.int32)
    for body in np.flatnonzero(model.body_mocapid >= 0):
        start, count = model.body_geomadr[body], model.body_geomnum[body]
        if count != 1 or model.geom_type[start] != mujoco.mjtGeom.mjGEOM_BOX:
            raise ValueError(
                f"mocap body {model.body(body).name!r} has {count} geoms; the physics moves and "
                "sizes mocap bodies that have exactly one, a box."
            )
        geoms[model.body_mocapid[body]] = start
    return geoms


def default_slabs(model: mujoco.MjModel) -> tuple[jax.Array, jax.Array]:
    """Return the positions of a model's mocap bodies and the half sizes of their boxes, each
    float32[nmocap, 3]."""
    bodies = np.argsort(np.where(model.body_mocapid < 0, model.nbody, model.body_mocapid))
    position = model.body_pos[bodies[: model.nmocap]]
    size = model.geom_size[mocap_geoms(model)]
    return jnp.asarray(position, jnp.float32), jnp.asarray(size, jnp.float32)


def unless_broken(
    old: PhysicsState, new: PhysicsState, broke: jax.Array | bool = False
) -> PhysicsState:
    """Return `new`, or `old` as failed if `new` broke down, or if `broke`, bool[], is true."""
    bad = is_bad(new.qpos, new.qvel, new.qacc_warmstart, new.act) | broke
    kept = jax.tree.map(lambda before, now: jnp.where(bad, before, now), old, new)
    return dataclasses.replace(kept, failed=old.failed | bad)


def is_bad(*arrays: jax.Array) -> jax.Array:
    """Return bool[], whether any number is not finite or beyond `mjMAXVAL` (`mju_isBad`)."""
    worst = [jnp.any(~(jnp.abs(a) <= mujoco.mjMAXVAL)) for a in arrays]
    return jnp.any(jnp.stack(worst))
