"""How fast vnl_ppo trains, on an environment of another house or on our gap ant.

    python rate_ours.py ENV SECONDS '{"num_envs": 256, ...}'

ENV is as for experiments/train.py, or gap_ant. The last line is one JSON object.
"""

import json
import statistics
import sys
import time

import jax
from hyper_parameters import HIDDEN, NO_CLIPPING

from envs import foreign
from envs.gap_ant import GapAnt
from vnl_ppo.config import PPOConfig
from vnl_ppo.networks import ActorCritic
from vnl_ppo.ppo import make_ppo
from vnl_ppo.runtime import keep_compilations


def main(name: str, seconds: float, settings: dict[str, float]) -> None:
    """Print environment steps per second, the median over iterations, the first apart."""
    keep_compilations()
    env = GapAnt() if name == "gap_ant" else foreign.make(name)
    config = PPOConfig(**{"max_grad_norm": NO_CLIPPING} | settings)
    network = ActorCritic(env.action_size, {}, HIDDEN, HIDDEN)
    ppo = make_ppo(env, network, config)
    begin = time.perf_counter()
    state, _ = jax.block_until_ready(ppo.step(ppo.init(0)))
    first = time.perf_counter() - begin
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(ppo.step(state))
        times.append(time.perf_counter() - start)
    rates = [config.steps_per_iteration / t for t in times]
    result = {"env_steps_per_second": statistics.median(rates), "iterations": rates}
    print(json.dumps(result | {"first_iteration_seconds": first, "jax": jax.__version__}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3]))
