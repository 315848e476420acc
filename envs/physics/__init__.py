"""Step physics by one of three back ends behind one interface.

A `Physics` advances one simulation by one control step. It has no batch axis: `jax.vmap` adds it,
and every call works inside `jit`, `scan` and `pmap`. Its state holds only what integration needs,
so that rollouts carry little and checkpoints are small and exact.

- `mujoco`: MuJoCo in C on the host's cores; fast on a CPU, and runs every MuJoCo model.
- `mjx`: MuJoCo in JAX; for GPU and TPU, and if everything has to be traced.
- `warp`: MJWarp, MuJoCo for NVIDIA GPUs, in which the same geoms collide as in C; needs the extra
  `warp`.
"""

import jax
from mujoco import MjModel

from envs.physics.state import Physics, PhysicsState, mocap_geoms

__all__ = ["BACK_ENDS", "Physics", "PhysicsState", "choose", "make_physics"]

BACK_ENDS = ("mujoco", "mjx", "warp")


def choose(name: str) -> str:
    """Return the back end that `name` stands for on this machine: one of `BACK_ENDS`.

    Args:
        name: one of `BACK_ENDS`, or "auto", which is `mujoco` if JAX computes on a CPU, else `mjx`.

    Raises:
        ValueError: there is no such back end.
    """
    if name == "auto":
        return "mujoco" if jax.default_backend() == "cpu" else "mjx"
    if name not in BACK_ENDS:
        known = ", ".join((*BACK_ENDS, "auto"))
        raise ValueError(f"unknown physics back end {name!r}; use one of {known}.")
    return name


def make_physics(name: str, model: MjModel, num_substeps: int) -> Physics:
    """Return the back end called `name`, ready to step `model`.

    Args:
        name: one of `BACK_ENDS`, or "auto", see `choose`.
        model: a model each of whose mocap bodies has exactly one geom, a box.
        num_substeps: number of physics steps in a control step, 1 or more.

    Raises:
        ValueError: there is no such back end, or it cannot run `model`. Nothing has been compiled.
    """
    if num_substeps < 1:
        raise ValueError(f"num_substeps is {num_substeps}; a control step needs at least 1.")
    mocap_geoms(model)
    # Imported late: each takes seconds, and one is used.
    match choose(name):
        case "mjx":
            from envs.physics.mjx import MjxPhysics

            return MjxPhysics(model, num_substeps)
        case "warp":
            from envs.physics.warp import WarpPhysics

            return WarpPhysics(model, num_substeps)
    from envs.physics.mujoco import MujocoPhysics

    return MujocoPhysics(model, num_substeps)
