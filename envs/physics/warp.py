"""Step simulations by MJWarp, which is MuJoCo for NVIDIA GPUs, called through MJX.

It also runs on a CPU, on one thread, so that it can be compared with MuJoCo in C without a GPU.
The first step in a process compiles Warp's kernels, which are kept on disk in Warp's own cache.
"""

import copy
import dataclasses
import importlib.util
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjx

from envs.physics.state import PhysicsState, initial_state, is_bad, mocap_geoms

CONTACTS_EACH = 64
"""Contacts of a simulation that there is memory for; with a height field three times as many. A
batch shares them, but one simulation's constraints have to have room among its own."""
_SLOW = (1 << 9) | (1 << 10)
"""MJWarp's `OverflowType.ITERATIONS` and `LS_ITERATIONS`: the solver ended at its limit, which is
what a limit is for. The other flags tell of contacts or constraints that were left out."""


class WarpPhysics:
    """The back end `warp`; see `envs.physics.Physics`.

    Everything that collides in C collides here, and the noslip solver and adhesion are there too. A
    batch of simulations is one call, even under nested `jax.vmap`. A simulation that has more
    contacts or constraints than there is memory for counts as failed.

    Args:
        model: the model to simulate.
        num_substeps: number of physics steps in a control step.

    Raises:
        ValueError: Warp is not installed, or MJWarp does not implement something that the model
            has.
    """

    def __init__(self, model: mujoco.MjModel, num_substeps: int) -> None:
        if importlib.util.find_spec("warp") is None:
            raise ValueError(
                "the 'warp' back end needs NVIDIA's Warp, which is not installed; install the "
                "extra with: pip install -e '.[warp]'"
            )
        try:
            put = mjx.put_model(model, impl="warp")
        # MJX asserts that it knows the device; a RuntimeError tells of a broken installation.
        except (NotImplementedError, ValueError, AssertionError, RuntimeError) as error:
            raise ValueError(f"the 'warp' back end cannot run this model: {error}") from error
        self._model = put.tree_replace(
            {"opt._impl.warn_overflow": put.opt._impl.warn_overflow & ~_SLOW}
        )
        self.model = copy.copy(model)
        self.num_substeps = num_substeps
        self._geoms = mocap_geoms(model)

    def init(
        self,
        qpos: jax.Array,
        qvel: jax.Array,
        mocap_pos: jax.Array | None = None,
        geom_size: jax.Array | None = None,
    ) -> PhysicsState:
        """See `envs.physics.Physics`."""
        return initial_state(self.model, qpos, qvel, mocap_pos, geom_size)

    def step(self, state: PhysicsState, ctrl: jax.Array) -> PhysicsState:
        """See `envs.physics.Physics`."""
        one = jax.tree.map(lambda x: x[None], (state, jnp.asarray(ctrl, jnp.float32)))
        return jax.tree.map(lambda x: x[0], self._step_batch(1)(*one))

    def _step_batch(self, size: int) -> Callable[[PhysicsState, jax.Array], PhysicsState]:
        """Return (states[size], controls[size]) -> states[size].

        The memory for contacts is of a whole batch, so the batch's size has to be known where the
        memory is made: what `jax.vmap` adds becomes part of the batch.
        """

        @jax.custom_batching.custom_vmap
        def step(states: PhysicsState, ctrl: jax.Array) -> PhysicsState:
            return jax.vmap(partial(self._step_one, self._memory(size)))(states, ctrl)

        @step.def_vmap
        def step_vmapped(n, is_batched, *batch):
            def flat(x, batched):
                every = x if batched else jnp.broadcast_to(x, (n, *x.shape))
                return every.reshape(n * size, *x.shape[batched + 1 :])

            new = self._step_batch(n * size)(*jax.tree.map(flat, batch, tuple(is_batched)))
            new = jax.tree.map(lambda x: x.reshape(n, size, *x.shape[1:]), new)
            return new, jax.tree.map(lambda _: True, new)

        return step

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
        data = data.replace(
            qpos=state.qpos,
            qvel=state.qvel,
            act=state.act,
            qacc_warmstart=state.qacc_warmstart,
            time=state.time,
            mocap_pos=state.mocap_pos,
            ctrl=ctrl,
        )
        data, lost = jax.lax.scan(
            lambda d, _: ((d := mjx.step(model, d)), d._impl.overflow & ~_SLOW),
            data,
            length=self.num_substeps,
        )
        new = dataclasses.replace(
            state,
            qpos=data.qpos,
            qvel=data.qvel,
            act=data.act,
            qacc_warmstart=data.qacc_warmstart,
            time=data.time,
            sensordata=data.sensordata,
        )
        broke = is_bad(new.qpos, new.qvel, new.qacc_warmstart, new.act) | jnp.any(lost)
        kept = jax.tree.map(lambda old, now: jnp.where(broke, old, now), state, new)
        return dataclasses.replace(kept, failed=state.failed | broke)

    def _memory(self, size: int) -> mjx.Data:
        """Return the data of one simulation of a batch of this size."""
        contacts = CONTACTS_EACH * (3 if self.model.nhfield else 1)
        limits = self.model.njnt + self.model.ntendon + 2 * self.model.nv + 6 * self.model.neq
        with jax.ensure_compile_time_eval():
            data = mjx.make_data(
                self.model, impl="warp", naconmax=size * contacts, njmax=limits + 4 * contacts
            )
        # Most of it is zeros, of which a compiled program need not keep every one.
        return jax.tree.map(_compressed, data)


def _compressed(x: jax.Array) -> jax.Array:
    values = np.asarray(x)
    if values.size < 2 or (values != values.flat[0]).any():
        return x
    return jnp.full(x.shape, values.flat[0], x.dtype)
