"""Compare contacts of walkers with those that they have with capsules in place of ellipsoids and
cylinders (`--walker.capsules`), over physics steps in C with random actions.

python benchmarks/capsules.py --steps 1000
"""

import argparse
import dataclasses
import json

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.interfaces import WALKER, Pose
from envs.models import control_range, physics_model
from envs.presets import PRESETS, Preset

NAMES = ("rodent_floor", "humanoid_stand", "fly_floor")


def compare(preset: Preset, steps: int, seed: int = 0) -> dict[str, float]:
    """Step a walker as it is, and look at each state for contacts with the world in both models.

    Args:
        preset: an environment whose walker has the setting `capsules`.
        steps: number of physics steps; actions are drawn anew at each control step.
        seed: of the actions and the beginning.

    Returns:
        `contacts` and `contacts_capsules`, numbers of contacts with the world, summed over steps;
        `only_one`, the share of steps in which one model has a contact and the other has none;
        `distance_mean` and `distance_99`, mean and 99th percentile over the contacts of the
        walker as it is of the distance to the nearest contact of the same body in the model with
        capsules, metres, and `missing`, the share of contacts whose body has none there.
    """
    changed = dataclasses.replace(preset.walker, capsules=True)  # type: ignore[type-var]
    own, other = (
        physics_model(preset.arena, walker, preset.simulation)
        for walker in (preset.walker, changed)
    )
    data, there = mujoco.MjData(own), mujoco.MjData(other)
    keys = jax.random.split(jax.random.key(seed))
    pose = Pose(jnp.zeros(3), jnp.zeros(()))
    data.qpos[:], data.qvel[:] = preset.walker.reset(own, pose, *keys)
    rng = np.random.default_rng(seed)
    middle, half = control_range(own) or (np.zeros(own.nu), np.ones(own.nu))
    number, number_capsules, alone, missing = 0, 0, 0, 0
    distances: list[float] = []
    for i in range(steps):
        if i % preset.simulation.num_substeps == 0:
            data.ctrl[:] = middle + half * rng.uniform(-1, 1, own.nu)
        mujoco.mj_step(own, data)
        mujoco.mj_forward(own, data)
        there.qpos[:] = data.qpos
        mujoco.mj_fwdPosition(other, there)
        touches, capsules = _contacts(own, data), _contacts(other, there)
        number, number_capsules = number + len(touches), number_capsules + len(capsules)
        alone += bool(touches) != bool(capsules)
        for body, place in touches:
            near = [float(np.linalg.norm(place - at)) for b, at in capsules if b == body]
            if near:
                distances.append(min(near))
            else:
                missing += 1
    return {
        "steps": steps,
        "contacts": number,
        "contacts_capsules": number_capsules,
        "only_one": alone / steps,
        "missing": missing / max(number, 1),
        "distance_mean": float(np.mean(distances or [0])),
        "distance_99": float(np.quantile(distances or [0], 0.99)),
    }


def _contacts(model: mujoco.MjModel, data: mujoco.MjData) -> list[tuple[int, np.ndarray]]:
    """Return the body of the walker and the place of each contact with the world."""
    found = []
    for contact in data.contact:
        bodies = model.geom_bodyid[contact.geom]
        own = [b for b in bodies if model.body(b).name.startswith(WALKER)]
        if len(own) == 1:
            found.append((int(own[0]), contact.pos.copy()))
    return found


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = {name: compare(PRESETS[name], options.steps, options.seed) for name in NAMES}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
