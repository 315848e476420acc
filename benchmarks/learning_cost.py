"""Measure the cost of learning, blind and seeing: the ratio of training speed to rollout speed.

    python benchmarks/learning_cost.py

The same environments with the same policy are timed in one process as whole training iterations and
as rollouts alone (physics, camera, inference, no learning), in turns, so that the load of the
machine is the same for both. The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

import jax

import envs
from encoders import make_encoder
from envs.locomotion import Locomotion
from envs.vision import VisionConfig
from vnl_ppo.config import PPOConfig
from vnl_ppo.networks import ActorCritic
from vnl_ppo.ppo import make_policy, make_ppo
from vnl_ppo.rollout import collect
from vnl_ppo.train import weights_of


def main() -> None:
    """Measure both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-envs", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=10, help="of each kind")
    parser.add_argument("--epochs", type=int, default=2, help="num_updates_per_batch")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--physics", default="auto")
    arguments = parser.parse_args()

    vision = VisionConfig(height=arguments.size, width=arguments.size)
    make = partial(envs.make, "gap_ant", vision=vision, physics=arguments.physics)
    speeds = {
        name: measure(make(seeing=seeing), arguments)
        for name, seeing in {"blind": False, "vision": True}.items()
    }
    share = {name: s["training"] / s["rollout"] for name, s in speeds.items()}
    print(
        json.dumps(
            {
                "env_steps_per_second": speeds,
                "ratio": {f"training_vs_rollout_{name}": x for name, x in share.items()},
                "settings": vars(arguments),
                "versions": {"jax": jax.__version__},
                "device": jax.devices()[0].device_kind,
                "cores": os.cpu_count(),
            }
        )
    )


def measure(env: Locomotion, arguments: argparse.Namespace) -> dict[str, float]:
    """Environment steps per second, the median over iterations, training and rolling out."""
    config = PPOConfig(
        num_envs=arguments.num_envs,
        batch_size=arguments.num_envs // 8,
        num_minibatches=8,
        num_updates_per_batch=arguments.epochs,
    )
    encoders = {"vision": make_encoder("nature_cnn")} if env.vision else {}
    network = ActorCritic(env.action_size, encoders, (128, 128), (128, 128))
    ppo = make_ppo(env, network, config, jax.local_devices()[:1])
    state = ppo.init(0)

    @jax.jit
    def rollout(weights, episodes, key):
        return collect(env, *make_policy(network, weights), episodes, key, config)

    def seconds(function: Callable):
        start = time.perf_counter()
        result = jax.block_until_ready(function())
        return time.perf_counter() - start, result

    times: dict[str, list[float]] = {"training": [], "rollout": []}
    for i in range(arguments.iterations + 1):
        first = jax.tree.map(lambda x: x[0], state.episodes)
        key = jax.random.split(jax.random.key(i), config.num_envs)
        rolled, _ = seconds(partial(rollout, weights_of(state), first, key))
        trained, (state, _) = seconds(partial(ppo.step, state))
        # The first of each compiles.
        if i:
            times["rollout"].append(rolled)
            times["training"].append(trained)
    return {k: config.steps_per_iteration / statistics.median(t) for k, t in times.items()}


if __name__ == "__main__":
    main()
