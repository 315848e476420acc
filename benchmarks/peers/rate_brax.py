"""Measure how fast Brax PPO trains, in its environment; arguments and result as in rate_ours.py."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import worlds
from brax.training.agents.ppo import train
from brax_networks import make_networks, make_vision_networks
from hyper_parameters import steps_per_iteration
from report import report, resident_bytes


def main(name: str, seconds: float, settings: dict[str, float]) -> None:
    """Train for so many seconds and report."""
    imported = resident_bytes()
    jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "peers_of_vnl_ppo"))
    programs = keep_programs()
    steps = steps_per_iteration(settings)
    times: list[float] = []

    def progress(_: int, metrics: dict[str, float]) -> None:
        program, compile_seconds = programs["training_epoch"]
        # Its first rate is of compiling, too.
        compiled = 0.0 if times else compile_seconds
        times.append(steps / float(metrics["training/sps"]) - compiled)
        if sum(times) >= seconds:
            report([steps / t for t in times], compile_seconds, program, imported)
            # It cannot be told to stop.
            os._exit(0)

    # One iteration in each of its epochs, so that each is timed.
    many = 10_000
    house = name.partition(":")[0]
    train.train(
        environment=worlds.make(name),
        num_timesteps=many * steps,
        num_evals=many + 1,
        run_evals=False,
        progress_fn=progress,
        network_factory=make_vision_networks if house == "pixels" else make_networks,
        wrap_env_fn=playground_wrapper() if house == "playground" else None,
        **settings,
    )


def playground_wrapper() -> Callable:
    """Return the wrapper that Playground uses for training with Brax."""
    from mujoco_playground import wrapper

    return wrapper.wrap_for_brax_training


def keep_programs() -> dict[str, tuple[Any, float]]:
    """Replace `jax.pmap` by one that compiles each function once, and return its programs by name.

    `train.train` hands out no program, and only a program knows what memory XLA plans for it. The
    seconds that compiling took are kept with it.
    """
    programs: dict[str, tuple[Any, float]] = {}
    pmap = jax.pmap

    def keeping(function: Callable, *arguments: Any, **options: Any) -> Callable:
        name, mapped = function.__name__, pmap(function, *arguments, **options)

        def call(*inputs: Any) -> Any:
            if name not in programs:
                begin = time.perf_counter()
                program = mapped.lower(*inputs).compile()
                programs[name] = program, time.perf_counter() - begin
            program, _ = programs[name]
            return program(*inputs)

        return call

    jax.pmap = keeping
    return programs


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3]))
