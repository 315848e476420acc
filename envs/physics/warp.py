"""Step simulations by MJWarp, which is MuJoCo for NVIDIA GPUs, called through MJX.

It also runs on a CPU, on one thread, so that it can be compared with MuJoCo in C without a GPU.
The first step on a machine compiles Warp's kernels, which Warp keeps on disk.
"""

import copy
from functools import partial

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjx
from mujoco.mjx.warp import WARP_INSTALLED

from envs.batching import over_environments
from envs.physics.mjx import after, put
from envs.physics.state import Physics, PhysicsState, check_state, mocap_geoms, unless_broken

CONTACTS_EACH = 64
"""Contacts, and pairs of geoms close enough to be looked at, of a simulation that there is memory
for; with a height field three times as many. A batch shares them, but the constraints of one
simulation have to have room among its own."""
LEAST_CONTACTS = 1024
"""The same of a whole batch, however small."""


class WarpPhysics(Physics):
    """The back end `warp`; see `envs.physics.Physics`.

    What collides are the same pairs of geoms as in C. A batch of simulations is one call, even
    under nested `jax.vmap`. Where there is more to solve for than there is memory for, the step
    counts as failed: of one simulation with too many constraints, and of the whole batch with too
    many contacts, since MJWarp does not tell whose were left out.

    Args:
        model: the model to simulate.
        num_substeps: number of physics steps in a control step.

    Raises:
        ValueError: Warp is not installed, MJWarp does not implement something that the model has,
            or the model keeps state that `PhysicsState` does not hold.
        RuntimeError: MJX is another than this was written for.
    """

    def __init__(self, model: mujoco.MjModel, num_substeps: int) -> None:
        if not WARP_INSTALLED:
            raise ValueError(
                "the 'warp' back end needs NVIDIA's Warp, which is not installed or does not work; "
                "install the extra with: pip install -e '.[warp]'"
            )
        check_state(model, "warp")
        self.model = copy.copy(model)
        try:
            given, data = mjx.put_model(model, impl="warp"), self._memory(1)
        # MJX asserts that it knows the device.
        except (NotImplementedError, ValueError, AssertionError) as error:
            raise ValueError(f"the 'warp' back end cannot run this model: {error}") from error
        try:
            from mujoco.mjx.third_party.mujoco_warp import OverflowType as Lack

            self._left_out = int(
                Lack.NEFC | Lack.NJMAX_NNZ | Lack.BROADPHASE | Lack.NARROWPHASE | Lack.CCD
            )
            # It would print a line for each step that ends at the solver's limit.
            self._model = given.tree_replace({"opt._impl.warn_overflow": self._left_out})
            _ = data._impl.overflow
        except (ImportError, AttributeError) as error:
            raise RuntimeError(
                f"mujoco-mjx {mujoco.__version__} has changed ({error}): envs/physics/warp.py has "
                "to be adapted"
            ) from error
        self.num_substeps = num_substeps
        self._geoms = mocap_geoms(model)

    def step(self, state: PhysicsState, ctrl: jax.Array) -> PhysicsState:
        """See `envs.physics.Physics`."""
        return over_environments(self._step_batch)(state, jnp.asarray(ctrl, jnp.float32))

    def _step_batch(self, states: PhysicsState, ctrl: jax.Array) -> PhysicsState:
        # The memory for contacts is of a whole batch, whose size has to be known here.
        data = self._memory(len(ctrl))
        return jax.vmap(partial(self._step_one, data))(states, ctrl)

    def _step_one(self, data: mjx.Data, state: PhysicsState, ctrl: jax.Array) -> PhysicsState:
        model = self._model
        if len(self._geoms):
            # What is far is culled by bounding spheres and boxes, so a new size needs all of them.
            size, geoms = state.geom_size, self._geoms
            model = model.tree_replace(
                {
                    "geom_size": model.geom_size.at[geoms].set(size),
                    "geom_rbound": model.geom_rbound.at[geoms].set(jnp.linalg.norm(size, axis=-1)),
                    "geom_aabb": model.geom_aabb.at[geoms, 1].set(size),
                }
            )
        data, _ = jax.lax.scan(
            lambda data, _: (mjx.step(model, data), None),
            put(data, state, ctrl),
            length=self.num_substeps,
        )
        # Of any of the steps: nothing takes the bits back.
        left_out = data._impl.overflow & self._left_out != 0
        return unless_broken(state, after(state, data), left_out)

    def _memory(self, size: int) -> mjx.Data:
        """Return the data of one simulation of a batch of this size."""
        model = self.model
        contacts = CONTACTS_EACH * (3 if model.nhfield else 1)
        limited = model.jnt_limited.sum() + model.tendon_limited.sum()
        rubbing = np.count_nonzero(model.dof_frictionloss) + np.count_nonzero(
            model.tendon_frictionloss
        )
        others = int(2 * limited + rubbing + 6 * model.neq)
        with jax.ensure_compile_time_eval():
            data = mjx.make_data(
                model,
                impl="warp",
                naconmax=max(size * contacts, LEAST_CONTACTS),
                njmax=others + 4 * contacts,
            )
        # Most of it is zeros, of which a compiled program need not keep every one.
        return jax.tree.map(_as_constants, data)


def _as_constants(x: jax.Array) -> jax.Array:
    values = np.asarray(x)
    if values.size < 2 or (values != values.flat[0]).any():
        return x
    return jnp.full(x.shape, values.flat[0], x.dtype)
