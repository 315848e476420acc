"""Step simulations by MuJoCo in C on the host's cores, called from JAX."""

import collections
import dataclasses
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco.batch import Batch

from envs.physics import host_call
from envs.physics.state import Physics, PhysicsState, check_state, mocap_geoms

_BREAKDOWNS = [
    int(warning)
    for warning in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
        mujoco.mjtWarning.mjWARN_BADCTRL,
    )
]


class MujocoPhysics(Physics):
    """The back end `mujoco`; see `envs.physics.Physics`.

    A batch of simulations is one call from JAX to the host, even under nested `jax.vmap`. Each
    simulation's result is the same, bit for bit, in any batch and on any number of threads.

    Args:
        model: the model to simulate.
        num_substeps: number of physics steps in a control step.
        num_threads: number of threads; None for one per core that this process may use.

    Raises:
        ValueError: the model keeps state that `PhysicsState` does not hold.
    """

    def __init__(
        self, model: mujoco.MjModel, num_substeps: int, num_threads: int | None = None
    ) -> None:
        check_state(model, "mujoco")
        self.model = model
        self.num_substeps = num_substeps
        threads = num_threads or usable_cores()
        # A compiled program that is kept on disk knows its model by these.
        settings = f"mujoco {mujoco.__version__}, {num_substeps} substeps, {threads} threads"
        self._stepper = host_call.register(
            _Stepper(model, num_substeps, threads), settings.encode(), content(model)
        )

    def init(
        self,
        qpos: jax.Array,
        qvel: jax.Array,
        mocap_pos: jax.Array | None = None,
        geom_size: jax.Array | None = None,
    ) -> PhysicsState:
        """See `envs.physics.Physics`."""
        state = super().init(qpos, qvel, mocap_pos, geom_size)
        parts = (state.time[None], state.qpos, state.qvel, state.act, state.qacc_warmstart)
        return dataclasses.replace(state, bits=double_bits(jnp.concatenate(parts)))

    def step(self, state: PhysicsState, ctrl: jax.Array) -> PhysicsState:
        """See `envs.physics.Physics`."""
        m = self.model
        results = (
            jax.ShapeDtypeStruct(state.bits.shape, jnp.uint32),
            jax.ShapeDtypeStruct((state.bits.shape[0] // 2,), jnp.float32),
            jax.ShapeDtypeStruct((m.nsensordata,), jnp.float32),
            jax.ShapeDtypeStruct((), jnp.bool_),
        )
        new_bits, new, sensordata, broke = host_call.call(
            self._stepper,
            results,
            state.bits,
            jnp.asarray(ctrl, jnp.float32),
            state.mocap_pos,
            state.geom_size,
        )
        time, qpos, qvel, act, warmstart = jnp.split(new, np.cumsum([1, m.nq, m.nv, m.na]).tolist())
        return dataclasses.replace(
            state,
            qpos=qpos,
            qvel=qvel,
            act=act,
            qacc_warmstart=warmstart,
            time=time[0],
            sensordata=jnp.where(broke, state.sensordata, sensordata),
            failed=state.failed | broke,
            bits=new_bits,
        )


class _Stepper:
    """Advances any number of simulations in NumPy.

    A `Batch` serves one Python thread at a time, and devices call concurrently under `pmap`: each
    call takes an idle batch of its size, or makes one, and gives it back.
    """

    def __init__(self, model: mujoco.MjModel, num_substeps: int, num_threads: int) -> None:
        self._model = model
        self._num_substeps = num_substeps
        self._num_threads = num_threads
        self._idle: dict[int, list[_SlabBatch]] = collections.defaultdict(list)
        self._lock = threading.Lock()

    def __call__(
        self, bits: np.ndarray, ctrl: np.ndarray, mocap_pos: np.ndarray, geom_size: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Step any leading batch axes; return new bits, their float32 values, sensors, failures."""
        axes = bits.shape[:-1]
        n = math.prod(axes)
        # Elsewhere than on CPUs, JAX hands in arrays of its own.
        flat = lambda a, rank: np.asarray(a).reshape(n, *a.shape[a.ndim - rank :])
        state = np.ascontiguousarray(flat(bits, 1)).view(np.float64)
        with self._batch(n) as batch:
            new, sensordata, broke = batch.step(
                state, flat(ctrl, 1), flat(mocap_pos, 2), flat(geom_size, 2), self._num_substeps
            )
        shaped = lambda a: a.reshape(axes + a.shape[1:])
        with np.errstate(over="ignore"):
            values = new.astype(np.float32)
        return shaped(new.view(np.uint32)), shaped(values), shaped(sensordata), shaped(broke)

    @contextmanager
    def _batch(self, n: int) -> "Iterator[_SlabBatch]":
        with self._lock:
            idle = self._idle[n]
            batch = idle.pop() if idle else None
        if batch is None:
            batch = _SlabBatch(self._model, n, min(n, self._num_threads))
        yield batch
        with self._lock:
            idle.append(batch)


class _SlabBatch:
    """A `mujoco.batch.Batch` in which every simulation has its own sizes of mocap boxes."""

    def __init__(self, model: mujoco.MjModel, n: int, num_threads: int) -> None:
        self._batch = Batch(model, n, nthread=num_threads)
        self._geoms = mocap_geoms(model)
        self._volumes = model.body_bvhadr[model.geom_bodyid[self._geoms]]
        # The state rows begin with time, qpos, qvel, act and the warm start (mjtState).
        self._nstate = 1 + model.nq + 2 * model.nv + model.na
        self._stage = (
            mujoco.mjtStage.mjSTAGE_VEL if model.nsensordata else mujoco.mjtStage.mjSTAGE_NONE
        )
        self._sensordata = self._batch.bind("sensordata") if model.nsensordata else None
        if len(self._geoms):
            # The collision phases cull by bounding sphere, box and volume tree: a new size needs
            # all of them, or contacts are lost.
            self._size = self._batch.expand("geom_size")
            self._radius = self._batch.expand("geom_rbound")
            self._box = self._batch.expand("geom_aabb")
            self._tree = self._batch.expand("bvh_aabb")

    def step(
        self,
        state: np.ndarray,
        ctrl: np.ndarray,
        mocap_pos: np.ndarray,
        geom_size: np.ndarray,
        num_substeps: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step; return float64[n, nstate], float32[n, nsensordata] and bool[n] (broke down)."""
        batch = self._batch
        batch.state[:, : self._nstate] = state
        batch.bind("ctrl")[:] = ctrl
        if len(self._geoms):
            size = geom_size.astype(np.float64)
            batch.bind("mocap_pos")[:] = mocap_pos
            self._size[:, self._geoms] = size
            self._radius[:, self._geoms] = np.linalg.norm(size, axis=-1)
            self._box.reshape(len(size), -1, 6)[:, self._geoms, 3:] = size
            self._tree.reshape(len(size), -1, 6)[:, self._volumes, 3:] = size
        batch.warning[:] = 0
        batch.step(nstep=num_substeps, stage=int(self._stage))
        new = np.ascontiguousarray(batch.state[:, : self._nstate])
        # MuJoCo resets a simulation that breaks down to its initial state, and only warns.
        broke = batch.warning[:, _BREAKDOWNS].any(axis=(1, 2))
        broke |= ~(np.abs(new) <= mujoco.mjMAXVAL).all(axis=1)
        new[broke] = state[broke]
        if self._sensordata is None:
            return new, np.zeros((len(new), 0), np.float32), broke
        return new, self._sensordata.astype(np.float32), broke


def double_bits(x: jax.Array) -> jax.Array:
    """Return the bits of `x` as float64, without float64 in JAX.

    Args:
        x: float32[n]. Subnormal numbers count as 0.

    Returns:
        uint32[2 n], for each number its low word, then its high word, as float64[n] lies in the
        memory of a little-endian machine.
    """
    word = jax.lax.bitcast_convert_type(x, jnp.uint32)
    sign, exponent, mantissa = word & jnp.uint32(0x80000000), (word >> 23) & 0xFF, word & 0x7FFFFF
    # Exponent biases are 127 and 1023; the largest exponent stands for infinity and NaN.
    wide = jnp.where(exponent == 255, 2047, exponent + (1023 - 127))
    high = jnp.where(exponent == 0, sign, sign | (wide << 20) | (mantissa >> 3))
    low = jnp.where(exponent == 0, 0, mantissa << 29)
    return jnp.stack([low, high], axis=-1).astype(jnp.uint32).reshape(-1)


def content(model: mujoco.MjModel) -> bytes:
    """Return a whole model as bytes, as MuJoCo writes it to a file."""
    buffer = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
