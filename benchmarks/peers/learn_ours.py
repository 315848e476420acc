"""Train by vnl_ppo and save the policy at even intervals.

    python learn_ours.py brax:ant SEED STEPS POINTS FOLDER '{"num_envs": 256, ...}'

writes FOLDER/STEP.npz (see policies.py) at step 0 and at POINTS even intervals.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from hyper_parameters import HIDDEN, NO_CLIPPING
from policies import save

from envs import foreign
from vnl_ppo.config import PPOConfig
from vnl_ppo.networks import ActorCritic
from vnl_ppo.ppo import TrainingState, make_ppo


def main(name: str, seed: int, steps: int, points: int, folder: Path, settings: dict) -> None:
    """Train, and keep what is learned on the way."""
    env = foreign.make(name)
    config = PPOConfig(num_timesteps=steps, seed=seed, max_grad_norm=NO_CLIPPING, **settings)
    ppo = make_ppo(env, ActorCritic(env.action_size, {}, HIDDEN, HIDDEN), config)
    state = ppo.init(seed)
    keep(state, 0, folder)
    every = -(-config.num_iterations // points)
    for point in range(1, points + 1):
        for _ in range(every):
            state, metrics = ppo.step(state)
        keep(state, point * every * config.steps_per_iteration, folder)
        print(point, {k: float(metrics[k][0]) for k in ("episode_reward", "episode_length")})


def keep(state: TrainingState, step: int, folder: Path) -> None:
    """Write the one agent's policy."""
    weights = jax.device_get(jax.tree.map(lambda x: x[0], state.weights))
    layers = weights.params["params"]["policy"]
    names = sorted(layers, key=lambda name: int(name.split("_")[-1]))
    mean, variance = weights.moments.mean["state"], weights.moments.variance["state"]
    save(folder, step, mean, np.sqrt(variance), [layers[name] for name in names])


if __name__ == "__main__":
    name, seed, steps, points, folder, settings = sys.argv[1:]
    main(name, int(seed), int(steps), int(points), Path(folder), json.loads(settings))
