"""Measure the time of each part of a training iteration: physics, camera, policy, learning.

    python benchmarks/iteration.py [--worlds seeing] [--networks default bfloat16 separate gru]

This is done for the gap ant, blind and seeing, on its default physics. Each part is compiled by
itself, with as many steps in a scan as an iteration takes, and timed in turns with the other parts,
the rollout and the whole iteration. Parts may cost more or less by themselves than together, so the
remainders of the rollout (fresh episodes, restarts, advantages) and of the iteration (statistics,
metrics) may be below 0. The last line is one JSON object, in milliseconds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from machine import machine

import envs
from encoders import make_encoder
from envs.locomotion import Locomotion
from envs.vision import VisionConfig
from vnl_ppo import schedules
from vnl_ppo.config import PPOConfig
from vnl_ppo.networks import ActorCritic
from vnl_ppo.policy import make_policy
from vnl_ppo.ppo import DEVICES, learn, make_ppo
from vnl_ppo.recurrence import GRU
from vnl_ppo.rollout import collect, groups_in_rows
from vnl_ppo.runtime import keep_compilations

HIDDEN = (128, 128)
NETWORKS: dict[str, dict[str, Any]] = {
    "default": {},
    "bfloat16": {"encoder_dtype": jnp.bfloat16},
    "separate": {"share_encoders": False},
    "gru": {"core": GRU(128)},
}
"""Attributes of each network that differ from the default."""


def main() -> None:
    """Measure all and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", nargs="+", choices=["blind", "seeing"])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["default"])
    parser.add_argument("--num-envs", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=2, help="num_updates_per_batch")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    keep_compilations()

    config = PPOConfig(
        num_envs=arguments.num_envs,
        batch_size=arguments.num_envs // 8,
        num_minibatches=8,
        num_updates_per_batch=arguments.epochs,
    )
    vision = VisionConfig(height=arguments.size, width=arguments.size)
    found = {}
    for world in arguments.worlds or ("blind", "seeing"):
        env = envs.make("gap_ant", seeing=world == "seeing", vision=vision)
        encoders = {"vision": make_encoder("nature_cnn")} if env.vision else {}
        for name in arguments.networks:
            network = ActorCritic(env.action_size, encoders, HIDDEN, HIDDEN, **NETWORKS[name])
            times = milliseconds(parts(env, network, config), arguments.rounds)
            found[f"{world} {name}"] = with_rest(times, config.steps_per_iteration)
            print(f"{world} {name}: {found[f'{world} {name}']}", flush=True)
    print(json.dumps({"milliseconds": found, "settings": vars(arguments)} | machine()))


def parts(env: Locomotion, network: ActorCritic, config: PPOConfig) -> dict[str, Callable[[], Any]]:
    """The parts of an iteration by name, each on what the same few iterations led to."""
    ppo = make_ppo(env, network, config, jax.local_devices()[:1])
    training = ppo.init(0)
    for _ in range(3):
        training, _ = ppo.step(training)
    # `step` reuses the memory of what it is given.
    state = jax.tree.map(lambda x: jnp.copy(x[0]), training)
    keys = jax.random.split(jax.random.key(1), config.num_envs)
    steps = jnp.arange(config.unroll_length)
    blind = envs.make("gap_ant", seeing=False, physics=env.back_end)
    eye = next(iter(env.eyes.values()), None)
    optimizer = schedules.make_optimizer(config)

    @jax.jit
    def rollout(state):
        act, judge = make_policy(network, state.weights)
        return collect(env, act, judge, state.episodes, keys, config)

    @jax.jit
    def physics(start, actions):
        def step(now, action):
            after = jax.vmap(blind.step)(now, action)
            return after, after.data

        return jax.lax.scan(step, start, actions)[1]

    @jax.jit
    def camera(data):
        draw = jax.vmap(lambda one: env.draw(one, eye))
        return jax.lax.map(draw, data)

    @jax.jit
    def policy(state, obs):
        act, _ = make_policy(network, state.weights)

        def step(memory, obs_and_time):
            obs, time = obs_and_time
            action, decision = act(obs, jax.random.fold_in(keys[0], time), memory)
            return decision.memory, (action, decision)

        return jax.lax.scan(step, state.episodes.memory, (obs, steps))[1]

    mesh = Mesh(jax.local_devices()[:1], (DEVICES,))
    on_one_device = partial(jax.shard_map, mesh=mesh, check_vma=False)

    @jax.jit
    @partial(on_one_device, in_specs=PartitionSpec(), out_specs=PartitionSpec())
    def learning(state, experience):
        groups = groups_in_rows(state.episodes, config)
        return learn(network, optimizer, state, experience, groups, keys[0], config)

    _, experience, _ = rollout(state)
    proprio = {"proprio": state.episodes.state.obs["proprio"]}
    start = state.episodes.state.replace(obs=proprio)
    actions = jax.random.uniform(
        keys[0], (len(steps), config.num_envs, env.action_size), minval=-1, maxval=1
    )
    data = physics(start, actions)
    by_time = lambda x: jnp.broadcast_to(x, (len(steps), *x.shape))
    obs = jax.tree.map(by_time, state.episodes.state.obs)
    whole = {"training": training}

    def iteration():
        whole["training"], metrics = ppo.step(whole["training"])
        return metrics

    timed: dict[str, Callable[[], Any]] = {
        "iteration": iteration,
        "rollout": lambda: rollout(state),
        "physics": lambda: physics(start, actions),
        "policy": lambda: policy(state, obs),
        "learning": lambda: learning(state, experience),
    }
    return timed | ({"camera": lambda: camera(data)} if eye else {})


def milliseconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median time of each call over rounds, without its first call, which compiles."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: statistics.median(ts[1:]) for name, ts in times.items()}


def with_rest(times: dict[str, float], steps: int) -> dict[str, float]:
    """Add the time that no part explains, and the environment steps per second."""
    inside = sum(times.get(name, 0) for name in ("physics", "camera", "policy"))
    return times | {
        "rest_of_rollout": times["rollout"] - inside,
        "rest_of_iteration": times["iteration"] - times["rollout"] - times["learning"],
        "env_steps_per_second": 1e3 * steps / times["iteration"],
    }


if __name__ == "__main__":
    main()
