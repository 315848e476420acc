"""Measure how fast the physics is, compared with what it replaces.

    python benchmarks/physics.py [--num-envs 256] [--notebook-envs 16] [--seconds 5]

Every side of the comparison steps the ant with random actions from its start for the same number of
control steps; the sides take turns in one process. The last line is one JSON object. Rates are
physics steps per second of wall-clock time, summed over environments, without compilation:

- `mujoco`: our C back end inside one jitted scan, a new corridor for each environment, slots moved
  at each control step.
- `bare_rollout`: a Python loop over `mujoco.rollout`, the same model and number of threads, one
  corridor whose slots do not move.
- `mjx`: our MJX back end, as `mujoco`; `mjx_small` with as many environments as `notebook`.
- `warp`: our MJWarp back end, on the model of `mujoco`, if the extra `warp` is installed; on a CPU
  it has one thread.
- `notebook`: MJX on dm_control's arena with every platform, in which every geom may touch every
  other.
"""

import dataclasses
import json
import os
import platform
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import tyro
from bare_rollout import bare_rollout, place_slots
from turns import rates

import vnl_ppo  # noqa: F401 - sets JAX up for hosts with few cores
from envs import physics
from envs.arenas.gaps import Gaps, Layout
from envs.models import SimulationConfig, physics_model, slot_names, whole_model
from envs.physics.mjx import MjxPhysics
from envs.physics.mujoco import usable_cores
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.walkers.ant import Ant

ANT = Ant()


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement."""

    num_envs: int = 256
    """Environments of mujoco, bare_rollout, mjx and warp."""
    notebook_envs: int = 16
    """Environments of notebook and mjx_small."""
    seconds: float = 5.0
    """Time spent on each side."""
    control_steps: int = 20
    """Control steps in one run of a side."""
    seed: int = 0


Run = Callable[[], int]
"""Steps all environments of a side; returns the number of physics steps."""


def batched(engine: physics.Physics, arena: Gaps | None, n: int, settings: Settings) -> Run:
    """A jitted scan over control steps; without `arena` there are no slots to move."""
    key, layout_key = jax.random.split(jax.random.key(settings.seed))
    qpos = jnp.tile(jnp.asarray(engine.model.qpos0, jnp.float32), (n, 1))
    start = jax.jit(jax.vmap(lambda q: engine.init(q, jnp.zeros(engine.model.nv))))(qpos)
    ctrl = actions(key, n, settings)

    def control_step(
        state: physics.PhysicsState, layout: Layout | None, action: jax.Array
    ) -> physics.PhysicsState:
        if arena is not None:
            boxes = arena.boxes(layout, state.qpos[:3], ANT.reach)
            state = dataclasses.replace(state, mocap_pos=boxes.position, geom_size=boxes.size)
        return engine.step(state, action)

    layouts = jax.vmap(arena.draw)(jax.random.split(layout_key, n)) if arena else None

    @jax.jit
    def scan(state: physics.PhysicsState) -> physics.PhysicsState:
        step = lambda s, a: (jax.vmap(control_step)(s, layouts, a), None)
        return jax.lax.scan(step, state, ctrl)[0]

    def run() -> int:
        end = jax.block_until_ready(scan(start))
        if np.any(end.failed):
            raise RuntimeError("a simulation broke down, so the rate means nothing.")
        return n * settings.control_steps * engine.num_substeps

    return run


def actions(key: jax.Array, n: int, settings: Settings) -> jax.Array:
    """float32[T, n, 8], uniform in [-1, 1]."""
    return jax.random.uniform(key, (settings.control_steps, n, 8), minval=-1.0, maxval=1.0)


def options(model: mujoco.MjModel) -> dict[str, object]:
    """The solver's options in `model`."""
    return {
        "solver": mujoco.mjtSolver(model.opt.solver).name,
        "iterations": model.opt.iterations,
        "ls_iterations": model.opt.ls_iterations,
        "cone": mujoco.mjtCone(model.opt.cone).name,
        "noslip_iterations": model.opt.noslip_iterations,
        "timestep": model.opt.timestep,
    }


def main(settings: Settings) -> dict[str, object]:
    """Measures all sides and returns the report."""
    arena, simulation = Gaps(), SimulationConfig()
    layout = arena.draw(jax.random.key(settings.seed))
    substeps = simulation.num_substeps
    c_model = physics_model(arena, ANT, simulation, "mujoco")
    c_engine = physics.make_physics("mujoco", c_model, substeps)
    mjx_engine = MjxPhysics(physics_model(arena, ANT, simulation, "mjx"), substeps)
    notebook_simulation = dataclasses.replace(simulation, iterations=2, ls_iterations=4)
    parts = arena, ANT, RunThroughCorridor(), notebook_simulation
    notebook = MjxPhysics(whole_model(*parts, layout, ()), substeps)

    packages = ["jax", "mujoco", "mujoco-mjx", "dm_control"]
    n, few = settings.num_envs, settings.notebook_envs
    bare_model = physics_model(arena, ANT, simulation)
    boxes = jax.tree.map(np.asarray, arena.boxes(layout, jnp.asarray(arena.start), ANT.reach))
    place_slots(bare_model, slot_names(arena), boxes.position, boxes.size)
    ctrl = np.asarray(actions(jax.random.key(settings.seed), n, settings), np.float64)
    groups = [
        {
            "mujoco": batched(c_engine, arena, n, settings),
            "bare_rollout": bare_rollout(bare_model, mujoco.MjData(bare_model), ctrl, substeps),
            "mjx": batched(mjx_engine, arena, n, settings),
        },
        {
            "mjx_small": batched(mjx_engine, arena, few, settings),
            "notebook": batched(notebook, None, few, settings),
        },
    ]
    if find_spec("warp"):
        warp_engine = physics.make_physics("warp", c_model, substeps)
        groups[0]["warp"] = batched(warp_engine, arena, n, settings)
        packages.append("warp-lang")
    rate: dict[str, float] = {}
    for sides in groups:
        rate |= rates(sides, settings.seconds)
        print({name: round(rate[name]) for name in sides}, flush=True)
    return {
        "ratio": {
            "mujoco_vs_bare_rollout": round(rate["mujoco"] / rate["bare_rollout"], 3),
            "mujoco_vs_mjx": round(rate["mujoco"] / rate["mjx"], 2),
            "mjx_vs_notebook": round(rate["mjx_small"] / rate["notebook"], 2),
        },
        # What the solver sees; our MJX model looks for 45 and keeps the deepest.
        "contacts": {"ours": mjx_engine.num_contacts, "notebook": notebook.num_contacts},
        "steps_per_second": {name: round(value) for name, value in rate.items()},
        "envs": {**dict.fromkeys(groups[0], n), **dict.fromkeys(groups[1], few)},
        "options": {
            "mujoco": options(c_model),
            "bare_rollout": options(bare_model),
            "mjx": options(mjx_engine.model),
            "notebook": options(notebook.model),
        },
        "control_steps": settings.control_steps,
        "cores": usable_cores(),
        "device": jax.devices()[0].device_kind,
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in packages},
        },
        "pjrt_nproc": os.environ.get("PJRT_NPROC"),
    }


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Settings, description=__doc__))))
