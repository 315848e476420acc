"""Measure how fast the physics of every preset is, compared with a bare loop over `mujoco.rollout`.

    python benchmarks/worlds.py [--worlds bowl_ant rodent_gaps] [--mjx gap_ant maze_ball]

In each world both sides step as many walkers with the same random actions for as many control
steps, in turns in one process: our C back end inside one jitted scan, from the starts of as many
episodes, and a Python loop over `mujoco.rollout`, the same model and number of threads, all from
the start of the first episode. With --mjx, our MJX back end takes turns with them in these worlds.
The last line is one JSON object: for each world the seconds to build it, physics steps per second
of wall-clock time summed over walkers (without compilation), and their ratio; `ratio` is the least.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import mujoco
import numpy as np
import tyro
from bare_rollout import bare_rollout, place_slots
from machine import machine
from turns import rates

import vnl_ppo  # noqa: F401 - sets JAX up for hosts with few cores
from envs import physics
from envs.locomotion import Locomotion
from envs.models import control_range, slot_names
from envs.physics.mujoco import usable_cores
from envs.presets import NEED_A_FILE, PRESETS, Preset


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement."""

    worlds: tuple[str, ...] = tuple(name for name in PRESETS if name not in NEED_A_FILE)
    """Presets."""
    mjx: tuple[str, ...] = ()
    """Presets that MJX steps too, with the settings of the walker that it needs. It compiles for
    minutes in some."""
    num_envs: int = 64
    """Number of walkers."""
    seconds: float = 4.0
    """Time spent on each side."""
    control_steps: int = 20
    """Control steps in one run of a side."""
    seed: int = 0


def main(settings: Settings) -> None:
    """Measure and print."""
    found = {}
    for name in settings.worlds:
        found[name] = measure(name, settings)
        print(name, found[name], flush=True)
    ratio = min(x["ours_vs_bare_rollout"] for x in found.values())
    result = {"benchmark": "worlds", "ratio": {"ours_vs_bare_rollout": ratio}, "worlds": found}
    print(json.dumps(result | {"num_envs": settings.num_envs, "cores": usable_cores()} | machine()))


def measure(name: str, settings: Settings) -> dict[str, float]:
    """Return what was measured in one world."""
    begin = time.perf_counter()
    env = PRESETS[name].make(seeing=False, back_end="mujoco")
    building = time.perf_counter() - begin
    sides = {"ours": ours(env, settings), "bare_rollout": bare(env, settings)}
    if name in settings.mjx:
        sides["mjx"] = ours(for_mjx(PRESETS[name]).make(seeing=False, back_end="mjx"), settings)
    per_second = rates(sides, settings.seconds)
    return {
        "build_seconds": round(building, 2),
        "ours_vs_bare_rollout": round(per_second["ours"] / per_second["bare_rollout"], 3),
        **{f"{side}_steps_per_second": round(x) for side, x in per_second.items()},
    }


def for_mjx(preset: Preset) -> Preset:
    """Return a preset with capsules and without adhesion, if its walker has such settings."""
    walker: Any = preset.walker
    needed = {"capsules": True, "adhesion": False}
    changes = {name: value for name, value in needed.items() if hasattr(walker, name)}
    return dataclasses.replace(preset, walker=dataclasses.replace(walker, **changes))


def starts(env: Locomotion, settings: Settings) -> physics.PhysicsState:
    """Return the states at the starts of episodes."""
    keys = jax.random.split(jax.random.key(settings.seed), settings.num_envs)
    return jax.jit(jax.vmap(env.reset))(keys).data.physics


def controls(env: Locomotion, settings: Settings) -> jax.Array:
    """Return random actions within the actuators' ranges, float32[T, N, nu]."""
    shape = settings.control_steps, settings.num_envs, env.action_size
    drawn = jax.random.uniform(jax.random.key(settings.seed + 1), shape, minval=-1.0)
    middle, half = control_range(env.model) or (0.0, 1.0)
    return middle + half * drawn


def ours(env: Locomotion, settings: Settings) -> Callable[[], int]:
    """Return a run of our back end, which tells how many physics steps it made."""
    substeps = env.simulation.num_substeps
    engine = physics.make_physics(env.back_end, env.model, substeps)
    start, ctrl = starts(env, settings), controls(env, settings)

    @jax.jit
    def scan(state: physics.PhysicsState) -> physics.PhysicsState:
        step = lambda s, a: (jax.vmap(engine.step)(s, a), None)
        return jax.lax.scan(step, state, ctrl)[0]

    def run() -> int:
        end = jax.block_until_ready(scan(start))
        if np.any(end.failed):
            raise RuntimeError("a simulation broke down, so the rate means nothing")
        return settings.num_envs * settings.control_steps * substeps

    return run


def bare(env: Locomotion, settings: Settings) -> Callable[[], int]:
    """Return a run of the bare loop, from the start of the first episode."""
    first: Any = jax.tree.map(lambda x: np.asarray(x[0]), starts(env, settings))
    place_slots(env.model, slot_names(env.arena), first.mocap_pos, first.geom_size)
    data = mujoco.MjData(env.model)
    data.qpos[:], data.qvel[:] = first.qpos, first.qvel
    ctrl = np.asarray(controls(env, settings), np.float64)
    return bare_rollout(env.model, data, ctrl, env.simulation.num_substeps)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
