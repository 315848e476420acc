"""Step physics: one interface, two back ends.

A `Physics` advances one simulation by one control step. It has no batch axis: `jax.vmap` makes the
batch, and every call works inside `jit`, `scan` and `pmap`. Its state holds only what integration
needs, so that rollouts carry little and a checkpoint is small and exact.

- `mujoco`: MuJoCo in C on the host's cores. Fast on CPU, and runs whatever MuJoCo runs.
- `mjx`: MuJoCo in JAX. For GPU and TPU, and wherever everything must be traced.
"""

import jax
from mujoco import MjModel

from envs.physics.state import Physics, PhysicsState, mocap_geoms

__all__ = ["BACK_ENDS", "Physics", "PhysicsState", "choose", "make_physics"]

BACK_ENDS = ("mujoco", "mjx")


def choose(name: str) -> str:
    """Return the back end that `name` stands for here: "mujoco" or "mjx".

    Args:
        name: "mujoco", "mjx" or "auto", which is `mujoco` where JAX computes on CPU, else `mjx`.

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
        name: "mujoco", "mjx" or "auto", see `choose`.
        model: each of its mocap bodies has exactly one geom, a box.
        num_substeps: physics steps in a control step.

    Raises:
        ValueError: there is no such back end, or it cannot run `model`. Nothing has been compiled.
    """
    if num_substeps < 1:
        raise ValueError(f"num_substeps is {num_substeps}; a control step needs at least 1.")
    mocap_geoms(model)
    if choose(name) == "mjx":
        from envs.physics.mjx import MjxPhysics

        return MjxPhysics(model, num_substeps)
    from envs.physics.mujoco import MujocoPhysics

    return MujocoPhysics(model, num_substeps)
