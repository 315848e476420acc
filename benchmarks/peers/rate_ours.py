"""Measure how fast vnl_ppo trains, and in how much memory.

    python rate_ours.py ENV SECONDS '{"num_envs": 256, ...}'

ENV is as in worlds.py, or a preset: gap_ant (blind) or gap_ant:vision. The last line is one JSON
object (report.py).
"""

import json
import sys
import time

import jax
from hyper_parameters import HIDDEN, NO_CLIPPING
from report import report, resident_bytes

import envs
from encoders import make_encoder
from envs.foreign import Foreign
from vnl_ppo.config import PPOConfig
from vnl_ppo.footprint import compile_step
from vnl_ppo.networks import ActorCritic
from vnl_ppo.ppo import make_ppo
from vnl_ppo.runtime import keep_compilations

CHUNKS = {"brax:ant": 64}
"""Number of environments to step at a time (`PPOConfig.env_chunk_size`), if not all: the physics of
a whole batch does not fit a core's cache. It changes nothing else."""


def main(name: str, seconds: float, settings: dict[str, float]) -> None:
    """Train for so many seconds and report."""
    imported = resident_bytes()
    keep_compilations()
    preset, _, sense = name.partition(":")
    is_preset = preset in envs.names()
    if is_preset:
        env = envs.make(preset, seeing=bool(sense))
    else:
        # Brax is not needed for the rest.
        import worlds

        env = Foreign(worlds.make(name))
    own = {"max_grad_norm": NO_CLIPPING, "env_chunk_size": CHUNKS.get(name, 0)}
    config = PPOConfig(**own | settings)
    images = [leaf for leaf, x in env.observation_spec.items() if len(x.shape) == 3]
    eyes = {leaf: make_encoder("nature_cnn", features=HIDDEN[0]) for leaf in images}
    # Brax's policy and value have an eye each.
    network = ActorCritic(env.action_size, eyes, HIDDEN, HIDDEN, share_encoders=is_preset)
    ppo = make_ppo(env, network, config)
    begin = time.perf_counter()
    step = compile_step(ppo)
    compile_seconds = time.perf_counter() - begin
    state = jax.block_until_ready(ppo.init(0))
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state))
        times.append(time.perf_counter() - start)
    report([config.steps_per_iteration / t for t in times], compile_seconds, step, imported)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3]))
