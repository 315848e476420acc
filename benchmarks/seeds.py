"""Compare the time of eight agents that train at once with that of one.

    python benchmarks/seeds.py whole --task pendulum
    python benchmarks/seeds.py whole --task ant
    python benchmarks/seeds.py steady --task ant

`whole` times whole runs, each in its own process from start to end: importing, compiling (without
any cache of compiled programs), training, evaluations, checkpoints. `steady` times iterations
alone, in turns. The last line is one JSON object; `ratio` is the time of all agents at once over
that of one, and would be their number if they trained one after the other.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from machine import machine

from experiments.settings import build, defaults_for
from vnl_ppo import run_folder
from vnl_ppo.config import PPOConfig
from vnl_ppo.env import State
from vnl_ppo.networks import ActorCritic
from vnl_ppo.ppo import make_ppo
from vnl_ppo.train import train


@dataclasses.dataclass(frozen=True)
class Pendulum:
    """Swing up a pendulum and hold it: Gymnasium's Pendulum-v1, with its reward."""

    action_size: int = 1

    @property
    def observation_spec(self):
        """Cosine and sine of the angle, 0 on top, and its speed in rad/s."""
        return {"pendulum": jax.ShapeDtypeStruct((3,), jnp.float32)}

    def reset(self, key):
        """Anywhere."""
        angle, speed = jax.random.uniform(key, (2,), minval=-1.0) * jnp.array([jnp.pi, 1.0])
        return self._state(angle, speed, jnp.zeros(()))

    def step(self, state, action):
        """0.05 s later."""
        angle, speed = state.data
        torque = 2 * action[0]
        away = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
        cost = away**2 + 0.1 * speed**2 + 0.001 * torque**2
        speed = jnp.clip(speed + 0.05 * (15 * jnp.sin(angle) + 3 * torque), -8, 8)
        return self._state(angle + 0.05 * speed, speed, -cost)

    def _state(self, angle, speed, reward):
        obs = {"pendulum": jnp.stack([jnp.cos(angle), jnp.sin(angle), speed])}
        return State((angle, speed), obs, reward, jnp.zeros(()), {}, {})


def task(arguments: argparse.Namespace, num_seeds: int):
    """Environment, network and settings."""
    num_steps, num_envs = arguments.steps, arguments.num_envs
    if arguments.task == "pendulum":
        config = PPOConfig(
            num_timesteps=num_steps, num_envs=num_envs or 32, unroll_length=16,
            batch_size=num_envs or 32, num_minibatches=4, learning_rate=1e-3, episode_length=200,
            num_evals=2, num_seeds=num_seeds,
        )  # fmt: skip
        return Pendulum(), ActorCritic(1, {}, (32, 32), (32, 32)), config
    settings = defaults_for("gap_ant", seeing=False)
    config = dataclasses.replace(
        settings.ppo, num_timesteps=num_steps, num_evals=2, num_seeds=num_seeds
    )
    if num_envs:
        config = dataclasses.replace(config, num_envs=num_envs, batch_size=-(-num_envs // 8))
    return *build(dataclasses.replace(settings, ppo=config)), config


def whole(arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of whole runs, and of their iterations after the first."""
    seconds = {}
    for num_seeds in (1, arguments.num_seeds):
        with tempfile.TemporaryDirectory() as folder:
            child = [sys.executable, __file__, "child", "--task", arguments.task]
            for name, value in {"steps": arguments.steps, "num-envs": arguments.num_envs}.items():
                child += [f"--{name}", str(value)]
            child += ["--num-seeds", str(num_seeds)]
            start = time.monotonic()
            subprocess.run(
                [*child, "--folder", folder],
                check=True,
                stdout=sys.stderr,
                env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
            )
            seconds[f"{num_seeds}"] = time.monotonic() - start
    return seconds


def child(arguments: argparse.Namespace) -> None:
    """One of those runs."""
    env, network, config = task(arguments, arguments.num_seeds)
    folder = run_folder.create(Path(arguments.folder) / "run", {})
    train(env, network, config, folder, quiet=True)


def steady(arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of an iteration, the median, once all is compiled."""
    sides = {}
    for num_seeds in (1, arguments.num_seeds):
        ppo = make_ppo(*task(arguments, num_seeds))
        sides[f"{num_seeds}"] = [ppo.step, ppo.step(ppo.init(0))[0], []]
    for _ in range(arguments.iterations):
        for side in sides.values():
            step, state, times = side
            start = time.perf_counter()
            side[1], _ = jax.block_until_ready(step(state))
            times.append(time.perf_counter() - start)
    return {n: statistics.median(times) for n, (_, _, times) in sides.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("whole", "steady", "child"))
    parser.add_argument("--task", choices=("pendulum", "ant"), required=True)
    parser.add_argument("--num-seeds", type=int, default=8)
    parser.add_argument("--num-envs", type=int, default=0, help="of each agent; 0: the default")
    parser.add_argument("--steps", type=int, default=100_000, help="of each agent's whole run")
    parser.add_argument("--iterations", type=int, default=10, help="steady: of each")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "child":
        return child(arguments)
    seconds = {"whole": whole, "steady": steady}[arguments.what](arguments)
    ratio = seconds[f"{arguments.num_seeds}"] / seconds["1"]
    settings = {k: v for k, v in vars(arguments).items() if k != "folder"}
    print(json.dumps({"seconds": seconds, "ratio": ratio, "settings": settings} | machine()))


if __name__ == "__main__":
    main()
