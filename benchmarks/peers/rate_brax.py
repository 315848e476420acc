"""How fast Brax PPO trains. Runs where Brax does; arguments and result as those of rate_ours.py."""

import json
import math
import os
import statistics
import sys
import time
from pathlib import Path

import jax
from brax import envs
from brax.training.agents.ppo import train
from brax_networks import make_networks
from hyper_parameters import steps_per_iteration


def main(name: str, seconds: float, settings: dict[str, float]) -> None:
    """Print environment steps per second, the median over iterations, the first apart."""
    jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "peers_of_vnl_ppo"))
    begin = time.perf_counter()
    rates: list[float] = []
    first = math.nan

    def progress(step: int, metrics: dict[str, float]) -> None:
        nonlocal first
        if math.isnan(first):
            first = time.perf_counter() - begin
            return
        rates.append(float(metrics["training/sps"]))
        if sum(steps_per_iteration(settings) / rate for rate in rates) >= seconds:
            result = {"env_steps_per_second": statistics.median(rates), "iterations": rates}
            result |= {"first_iteration_seconds": first, "jax": jax.__version__}
            print(json.dumps(result), flush=True)
            # It cannot be told to stop.
            os._exit(0)

    env = envs.get_environment(name.removeprefix("brax:"), backend="mjx")
    # One iteration in each of its epochs, so that each is timed.
    many = 10_000
    train.train(
        environment=env,
        num_timesteps=many * steps_per_iteration(settings),
        num_evals=many + 1,
        run_evals=False,
        progress_fn=progress,
        network_factory=make_networks,
        **settings,
    )


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3]))
