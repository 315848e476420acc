"""Measure how fast rejax trains, in its environment; arguments and result as in rate_ours.py."""

import json
import sys
import time
from pathlib import Path

import jax
import worlds
from brax.envs.wrappers.training import EpisodeWrapper
from hyper_parameters import HIDDEN
from rejax import PPO
from rejax.compat.brax2gymnax import Brax2GymnaxEnv
from report import report, resident_bytes


def main(name: str, seconds: float, settings: dict[str, float]) -> None:
    """Train for so many seconds and report."""
    imported = resident_bytes()
    jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "peers_of_vnl_ppo"))
    if settings["batch_size"] * settings["num_minibatches"] != settings["num_envs"]:
        raise SystemExit("error: rejax takes one unroll of each environment in an iteration")
    # It restarts episodes itself.
    env = EpisodeWrapper(worlds.make(name), settings["episode_length"], action_repeat=1)
    algorithm = PPO.create(
        env=Brax2GymnaxEnv(env),
        agent_kwargs={"hidden_layer_sizes": HIDDEN, "activation": "swish"},
        num_envs=settings["num_envs"],
        num_steps=settings["unroll_length"],
        num_minibatches=settings["num_minibatches"],
        num_epochs=settings["num_updates_per_batch"],
        learning_rate=settings["learning_rate"],
        gamma=settings["discounting"],
        gae_lambda=settings["gae_lambda"],
        clip_eps=settings["clipping_epsilon"],
        ent_coef=settings["entropy_cost"],
        normalize_observations=settings["normalize_observations"],
    )
    state = jax.jit(algorithm.init_state)(jax.random.PRNGKey(0))
    begin = time.perf_counter()
    step = jax.jit(algorithm.train_iteration, donate_argnums=0).lower(state).compile()
    compile_seconds = time.perf_counter() - begin
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        state = jax.block_until_ready(step(state))
        times.append(time.perf_counter() - start)
    report([algorithm.iteration_size / t for t in times], compile_seconds, step, imported)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3]))
