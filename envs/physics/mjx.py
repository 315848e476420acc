"""Step simulations by MJX, which is MuJoCo in JAX, on any device."""

import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjx
from mujoco.mjx._src import scan as mjx_scan

from envs.physics.state import Physics, PhysicsState, check_state, mocap_geoms, unless_broken

_ROUND = (int(mujoco.mjtGeom.mjGEOM_ELLIPSOID), int(mujoco.mjtGeom.mjGEOM_CYLINDER))
_EDGED = (
    int(mujoco.mjtGeom.mjGEOM_BOX),
    int(mujoco.mjtGeom.mjGEOM_MESH),
    int(mujoco.mjtGeom.mjGEOM_HFIELD),
)
"""Kinds of geoms of which MJX cannot collide one with the other."""


class MjxPhysics(Physics):
    """The back end `mjx`; see `envs.physics.Physics`.

    Args:
        model: the model to simulate. At every step MJX computes all pairs of geoms that may
            collide, so few should; see `num_contacts`.
        num_substeps: number of physics steps in a control step.

    Raises:
        ValueError: MJX does not implement something that the model has, or the model keeps state
            that `PhysicsState` does not hold.
    """

    def __init__(self, model: mujoco.MjModel, num_substeps: int) -> None:
        check_state(model, "mjx")
        if model.opt.noslip_iterations:
            # MJX would leave them out without a word.
            raise ValueError(
                "the 'mjx' back end has no noslip solver, and the model asks for "
                f"{model.opt.noslip_iterations} noslip_iterations; set 0, or use 'mujoco' or "
                "'warp'."
            )
        try:
            self._model = mjx.put_model(model, impl="jax")
            # Only make_data looks for the collision functions that the geoms need.
            self._data = mjx.make_data(model, impl="jax")
        except (NotImplementedError, ValueError) as error:
            reason = (
                _reason(model) or f"{error}. Use 'mujoco' or 'warp', or change the model's options."
            )
            raise ValueError(f"the 'mjx' back end cannot run this model: {reason}") from error
        self.model = copy.copy(model)
        self.num_substeps = num_substeps
        self._geoms = mocap_geoms(model)

    @property
    def num_contacts(self) -> int:
        """Number of contacts that every step solves for, whether geoms touch or not."""
        try:
            return int(self._data._impl.ncon)
        except AttributeError as error:
            raise RuntimeError(
                f"mujoco-mjx {mujoco.__version__} no longer has Data._impl.ncon: "
                f"envs/physics/mjx.py has to be adapted"
            ) from error

    def step(self, state: PhysicsState, ctrl: jax.Array) -> PhysicsState:
        """See `envs.physics.Physics`."""
        size = self._model.geom_size.at[self._geoms].set(state.geom_size)
        model = self._model.tree_replace({"geom_size": size})

        def substep(s: PhysicsState, _: None) -> tuple[PhysicsState, None]:
            with _each_body_once():
                return after(s, mjx.step(model, put(self._data, s, ctrl))), None

        new, _ = jax.lax.scan(substep, state, length=self.num_substeps)
        return unless_broken(state, new)


@contextlib.contextmanager
def _each_body_once() -> Iterator[None]:
    """Make XLA compute each body of a tree once, in what is traced meanwhile.

    MJX unrolls the tree of bodies. On a CPU XLA fuses it into one loop, in which a body's pose is
    computed anew wherever it is used, so the work doubles with each joint or two: for the rodent's
    tail to 6e11 operations a step.
    """
    whole = mjx_scan.body_tree

    def body_tree(m, f, *args, **kwargs):  # type: ignore[no-untyped-def]
        return whole(m, lambda *x: jax.lax.optimization_barrier(f(*x)), *args, **kwargs)

    mjx_scan.body_tree = body_tree
    try:
        yield
    finally:
        mjx_scan.body_tree = whole


def put(data: mjx.Data, state: PhysicsState, ctrl: jax.Array) -> mjx.Data:
    """Return `data` in a state and under `ctrl`, float32[nu]."""
    return data.replace(
        qpos=state.qpos,
        qvel=state.qvel,
        act=state.act,
        qacc_warmstart=state.qacc_warmstart,
        time=state.time,
        mocap_pos=state.mocap_pos,
        ctrl=jnp.asarray(ctrl, jnp.float32),
    )


def after(state: PhysicsState, data: mjx.Data) -> PhysicsState:
    """Return the state that `data` has reached from `state`."""
    return dataclasses.replace(
        state,
        qpos=data.qpos,
        qvel=data.qvel,
        act=data.act,
        qacc_warmstart=data.qacc_warmstart,
        time=data.time,
        sensordata=data.sensordata,
    )


def _reason(model: mujoco.MjModel) -> str | None:
    """Return why MJX cannot run a model, by the name of a part, and what helps; None if it is none
    of the reasons known here."""
    for i in np.flatnonzero(model.actuator_trntype == mujoco.mjtTrn.mjTRN_BODY):
        return (
            f"actuator {model.actuator(i).name!r} sticks a body to what it touches, and MJX has no "
            "such actuators; leave them out (--walker.no-adhesion of walkers that have it), or use "
            "'mujoco' or 'warp'."
        )
    solid = np.flatnonzero(model.geom_contype | model.geom_conaffinity).tolist()
    round_, edged = (
        [g for g in solid if model.geom_type[g] in kinds] for kinds in (_ROUND, _EDGED)
    )
    for one, other in itertools.product(round_, edged):
        if _may_touch(model, one, other):
            kinds = [_kind(model, g) for g in (one, other)]
            names = [model.geom(g).name for g in (one, other)]
            article = "an" if kinds[0] == "ellipsoid" else "a"
            return (
                f"geom {names[0]!r} is {article} {kinds[0]}, and MJX has no collisions of it with "
                f"the {kinds[1]} {names[1]!r}; put a capsule in its place (--walker.capsules of "
                "walkers that have it), or use 'mujoco' or 'warp'."
            )
    return None


def _may_touch(model: mujoco.MjModel, one: int, other: int) -> bool:
    apart = model.geom_bodyid[one] != model.geom_bodyid[other]
    first = model.geom_contype[one] & model.geom_conaffinity[other]
    second = model.geom_contype[other] & model.geom_conaffinity[one]
    return bool(apart and (first or second))


def _kind(model: mujoco.MjModel, geom: int) -> str:
    name = mujoco.mjtGeom(int(model.geom_type[geom])).name.removeprefix("mjGEOM_").lower()
    return {"hfield": "height field"}.get(name, name)
