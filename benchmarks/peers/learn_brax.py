"""Train by Brax PPO and save the policy at even intervals. Runs in the environment of Brax."""

import json
import sys
from pathlib import Path

import jax
from brax import envs
from brax.training.agents.ppo import train
from brax_networks import make_networks
from policies import save


def main(name: str, seed: int, steps: int, points: int, folder: Path, settings: dict) -> None:
    """Arguments and files as those of learn_ours.py."""

    def keep(step: int, _: object, params: tuple) -> None:
        normalizer, policy, _ = jax.device_get(params)
        layers = policy["params"]
        names = sorted(layers, key=lambda name: int(name.split("_")[-1]))
        save(folder, step, normalizer.mean, normalizer.std, [layers[name] for name in names])

    train.train(
        environment=envs.get_environment(name.removeprefix("brax:"), backend="mjx"),
        num_timesteps=steps,
        seed=seed,
        num_evals=points + 1,
        run_evals=False,
        policy_params_fn=keep,
        network_factory=make_networks,
        **settings,
    )


if __name__ == "__main__":
    name, seed, steps, points, folder, settings = sys.argv[1:]
    main(name, int(seed), int(steps), int(points), Path(folder), json.loads(settings))
