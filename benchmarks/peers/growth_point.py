"""Measure one point of growth.py: time and memory of training the gap ant with some settings.

python growth_point.py SETTINGS SECONDS

SETTINGS: '{"environments": 128, "pixels": 64, "width": 64, "seeds": 1, "devices": 1}'
"""

import dataclasses
import json
import statistics
import sys
import time

import jax
from report import planned_bytes, resident_bytes

from encoders import make_encoder
from envs.presets import PRESETS
from vnl_ppo.config import PPOConfig
from vnl_ppo.footprint import compile_step
from vnl_ppo.networks import ActorCritic
from vnl_ppo.ppo import make_ppo
from vnl_ppo.runtime import keep_compilations

UNROLL, MINIBATCHES = 20, 8


def main(settings: dict[str, int], seconds: float) -> None:
    """Train and print."""
    jax.config.update("jax_num_cpu_devices", settings["devices"])
    keep_compilations()
    height, width = settings["pixels"], settings["width"]
    vision = dataclasses.replace(PRESETS["gap_ant"].vision, height=height, width=width)
    env = dataclasses.replace(PRESETS["gap_ant"], vision=vision).make()
    number = settings["environments"]
    # As many transitions in an iteration as are collected by one unroll of every environment.
    config = PPOConfig(
        num_envs=number, unroll_length=UNROLL, num_minibatches=MINIBATCHES,
        batch_size=number // MINIBATCHES, num_updates_per_batch=2, episode_length=200,
        num_seeds=settings["seeds"],
    )  # fmt: skip
    eyes = {"vision": make_encoder("nature_cnn")}
    ppo = make_ppo(env, ActorCritic(env.action_size, eyes, (128, 128), (128, 128)), config)
    begin = time.perf_counter()
    step = compile_step(ppo)
    compile_seconds = time.perf_counter() - begin
    state = jax.block_until_ready(ppo.init(0))
    times: list[float] = []
    while sum(times) < seconds or len(times) < 2:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state))
        times.append(time.perf_counter() - start)
    steps = config.steps_per_iteration * settings["seeds"]
    iteration = statistics.median(times)
    result = {
        "iteration_seconds": iteration,
        "seconds_per_env_step": iteration / steps,
        "env_steps_per_second": steps / iteration,
        "planned_bytes_per_env": planned_bytes(step) / (number * settings["seeds"]),
        "planned_bytes_per_env_step": planned_bytes(step) / steps,
        "resident_bytes": resident_bytes(),
        "compile_seconds": compile_seconds,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), float(sys.argv[2]))
