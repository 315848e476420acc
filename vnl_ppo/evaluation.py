"""How well a policy does: whole episodes, apart from training."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vnl_ppo.config import PPOConfig
from vnl_ppo.env import Env, metric_reductions
from vnl_ppo.policy import Weights, make_policy
from vnl_ppo.recurrence import initial_memory
from vnl_ppo.rollout import advance, is_broken, select, start_episodes


def make_evaluate(
    env: Env, network: nn.Module, config: PPOConfig
) -> Callable[[Weights, jax.Array], dict[str, jax.Array]]:
    """Build (weights, key) -> metrics of `config.num_eval_envs` episodes, one in each environment.

    The same key gives the same episodes to any policy. Each metric of the environment is summed up
    over its episode as `vnl_ppo.env.metric_reductions` says and averaged over episodes, beside
    `episode_reward`, `episode_reward_std` (over episodes) and `episode_length`.
    """
    reductions = metric_reductions(env)

    def evaluate(weights: Weights, key: jax.Array) -> dict[str, jax.Array]:
        act, _ = make_policy(network, weights, config.deterministic_eval)
        reset_key, act_key = jax.random.split(key)
        memory = initial_memory(network, config.num_eval_envs)
        episodes = start_episodes(env, reset_key, config.num_eval_envs, memory)

        def going_on(carry):
            _, over, _, step = carry
            return (step < config.episode_length) & ~over.all()

        def go_on(carry):
            episodes, over, sums, step = carry
            key = jax.random.fold_in(act_key, step)
            action, decision = act(episodes.state.obs, key, episodes.memory)
            episodes = dataclasses.replace(episodes, memory=decision.memory)
            moved, faults = advance(env, episodes, action)
            ends = (moved.state.done > 0) | is_broken(faults)
            sums = {k: sums[k] + jnp.where(over, 0, x) for k, x in moved.state.metrics.items()}
            # An episode that is over stands still, while the others go on.
            return select(over, episodes, moved), over | ends, sums, step + 1

        nothing = jax.tree.map(jnp.zeros_like, episodes.state.metrics)
        none_over = jnp.zeros(config.num_eval_envs, bool)
        episodes, _, sums, _ = jax.lax.while_loop(
            going_on, go_on, (episodes, none_over, nothing, 0)
        )
        by_reduction = {
            "mean": {k: x / episodes.length for k, x in sums.items()},
            "sum": sums,
            "last": episodes.state.metrics,
        }
        metrics = {k: by_reduction[reductions.get(k, "mean")][k].mean() for k in sums}
        return metrics | {
            "episode_reward": episodes.reward.mean(),
            "episode_reward_std": episodes.reward.std(),
            "episode_length": episodes.length.mean(),
        }

    return jax.jit(evaluate)


def make_record(
    env: Env, network: nn.Module, config: PPOConfig, length: int
) -> Callable[[Weights, jax.Array], tuple[Any, jax.Array]]:
    """Build (weights, key) -> one episode as the environment lived it.

    Returns:
        the `data` of its states, leaves [length + 1, ...], and bool[length + 1], true for the
        states that belong to the episode.
    """

    def record(weights: Weights, key: jax.Array) -> tuple[Any, jax.Array]:
        act, _ = make_policy(network, weights, config.deterministic_eval)
        reset_key, act_key = jax.random.split(key)
        first = start_episodes(env, reset_key, 1, initial_memory(network, 1))

        def go_on(carry, key):
            episodes, over = carry
            action, decision = act(episodes.state.obs, key, episodes.memory)
            episodes = dataclasses.replace(episodes, memory=decision.memory)
            moved, faults = advance(env, episodes, action)
            episodes = select(over, episodes, moved)
            ends = (episodes.state.done > 0) | is_broken(faults)
            return (episodes, over | ends), (episodes.state.data, ~over)

        _, (data, alive) = jax.lax.scan(
            go_on, (first, jnp.zeros(1, bool)), jax.random.split(act_key, length)
        )
        data = jax.tree.map(lambda x, xs: jnp.concatenate([x, xs[:, 0]]), first.state.data, data)
        return data, jnp.concatenate([jnp.ones(1, bool), alive[:, 0]])

    return jax.jit(record)
