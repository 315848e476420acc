"""Evaluate a policy over whole episodes."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax.tree_util import Partial

from vnl_ppo.activations import encoder_activations
from vnl_ppo.config import PPOConfig
from vnl_ppo.env import Env, Observation, metric_reductions
from vnl_ppo.policy import Weights, make_policy
from vnl_ppo.recurrence import initial_memory
from vnl_ppo.rollout import Act, Decision, advance, is_broken, select, start_episodes

Metrics = dict[str, jax.Array]
_WATCHED = 8
_MOMENTS = (0.0, 0.125, 0.25, 0.5)


class Actor(NamedTuple):
    """A policy and its initial memory, as `run_episodes` and `record` take them.

    Those that this project makes are pytrees whose leaves are the policy's weights
    (`jax.tree_util.Partial`). A jitted function that takes one as an argument is the same program
    for all policies of a network, and is compiled once and kept on disk; one that closes over an
    actor has the weights in its program, and is compiled for each policy anew.

    Attributes:
        act: (obs [N, ...], key, memory) -> action float32[N, A], `Decision`; see
            `vnl_ppo.policy.make_policy`.
        memory: N -> the memory at the start of N episodes, leaves [N, ...].
    """

    act: Act
    memory: Callable[[int], Any] = Partial(lambda n: ())


@struct.dataclass
class Watched:
    """The first K episodes of an evaluation, step by step; T is the longest possible length.

    Attributes:
        action: float32[T, K, A].
        value: float32[T, K], the policy's value estimate.
        alive: bool[T, K], whether the step belongs to the episode.
        obs: leaves [V, K, ...], the observations at V moments; 0 if the episode was over.
        seen: bool[V, K], whether the episode was still running at that moment.
        activations: float32[] by name, statistics of the encoders' layers under `obs` (see
            `vnl_ppo.activations`); empty without a network.
    """

    action: jax.Array
    value: jax.Array
    alive: jax.Array
    obs: Observation
    seen: jax.Array
    activations: Metrics = struct.field(default_factory=dict)


def run_episodes(
    env: Env, actor: Actor, key: jax.Array, num_episodes: int, episode_length: int
) -> tuple[Metrics, Watched]:
    """Run N whole episodes of at most `episode_length` steps, one in each environment.

    The same key gives the same first states to any policy.

    Returns:
        float32[N] by name: each metric of the environment, reduced over its episode as
        `vnl_ppo.env.metric_reductions` says, `episode_reward` and `episode_length` (steps); and the
        first episodes, step by step.
    """
    reset_key, act_key = jax.random.split(key)
    keys = jax.random.split(reset_key, num_episodes)
    episodes = start_episodes(env, keys, actor.memory(num_episodes))
    moments = jnp.array([int(m * episode_length) for m in _MOMENTS])
    watch = min(num_episodes, _WATCHED)
    watched_obs = lambda obs: jax.tree.map(lambda x: x[:watch], obs)
    nothing = Watched(
        action=jnp.zeros((episode_length, watch, env.action_size)),
        value=jnp.zeros((episode_length, watch)),
        alive=jnp.zeros((episode_length, watch), bool),
        obs=jax.tree.map(
            lambda x: jnp.zeros((len(_MOMENTS), *x.shape), x.dtype),
            watched_obs(episodes.state.obs),
        ),
        seen=jnp.zeros((len(_MOMENTS), watch), bool),
    )

    def any_alive(carry):
        _, over, _, _, step = carry
        return (step < episode_length) & ~over.all()

    def take_step(carry):
        episodes, over, sums, watched, step = carry
        obs = episodes.state.obs
        key = jax.random.fold_in(act_key, step)
        action, decision = actor.act(obs, key, episodes.memory)
        now = (step == moments)[:, None] & ~over[:watch]
        watched = Watched(
            action=watched.action.at[step].set(action[:watch]),
            value=watched.value.at[step].set(decision.value[:watch]),
            alive=watched.alive.at[step].set(~over[:watch]),
            obs=jax.tree.map(
                lambda x, xs: select(now, jnp.broadcast_to(x, xs.shape), xs),
                watched_obs(obs),
                watched.obs,
            ),
            seen=watched.seen | now,
        )
        acted = dataclasses.replace(episodes, memory=decision.memory)
        moved, faults = advance(env, acted, action)
        ends = (moved.state.done > 0) | is_broken(faults)
        sums = {k: sums[k] + jnp.where(over, 0, x) for k, x in moved.state.metrics.items()}
        # An episode that is over keeps its last state until all are.
        return select(over, episodes, moved), over | ends, sums, watched, step + 1

    none_over = jnp.zeros(num_episodes, bool)
    no_sums = jax.tree.map(jnp.zeros_like, episodes.state.metrics)
    episodes, _, sums, watched, _ = jax.lax.while_loop(
        any_alive, take_step, (episodes, none_over, no_sums, nothing, 0)
    )
    by_reduction: Mapping[str, Metrics] = {
        "mean": {k: x / episodes.length for k, x in sums.items()},
        "sum": sums,
        "last": episodes.state.metrics,
    }
    reductions = metric_reductions(env)
    metrics = {k: by_reduction[reductions.get(k, "mean")][k] for k in sums}
    metrics |= {
        "episode_reward": episodes.reward,
        "episode_length": episodes.length.astype(jnp.float32),
    }
    return metrics, watched


def make_evaluate(
    env: Env, network: nn.Module, config: PPOConfig
) -> Callable[[Weights, jax.Array], tuple[Metrics, Watched]]:
    """Build a function (weights, key) -> metrics, watched: the metrics of `run_episodes`, averaged
    over `config.num_eval_envs` episodes, and the standard deviation `episode_reward_std`."""

    def evaluate(weights: Weights, key: jax.Array) -> tuple[Metrics, Watched]:
        actor = acting(network, weights, config.deterministic_eval)
        metrics, watched = run_episodes(
            env, actor, key, config.num_eval_envs, config.episode_length
        )
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (watched.obs, watched.seen))
        layers = encoder_activations(network, weights, *rows)
        watched = dataclasses.replace(watched, activations=layers)
        spread = {"episode_reward_std": metrics["episode_reward"].std()}
        return {k: x.mean() for k, x in metrics.items()} | spread, watched

    return jax.jit(evaluate)


def acting(network: nn.Module, weights: Weights, deterministic: bool) -> Actor:
    """Return a network's policy as an `Actor`, which takes the mode if `deterministic`."""

    def act(
        weights: Weights, obs: Observation, key: jax.Array, memory: Any
    ) -> tuple[jax.Array, Decision]:
        return make_policy(network, weights, deterministic)[0](obs, key, memory)

    return Actor(Partial(act, weights), Partial(lambda n: initial_memory(network, n)))


def acting_at_random(action_size: int) -> Actor:
    """Return an `Actor` that draws uniform actions in [-1, 1], as a baseline."""

    def act(obs: Observation, key: jax.Array, memory: Any) -> tuple[jax.Array, Decision]:
        n = jax.tree.leaves(obs)[0].shape[0]
        action = jax.random.uniform(key, (n, action_size), minval=-1.0)
        log_prob = jnp.full(n, -action_size * math.log(2))
        return action, Decision(action, log_prob, jnp.zeros(n), memory)

    return Actor(Partial(act))


def record(env: Env, actor: Actor, key: jax.Array, length: int) -> tuple[Any, jax.Array]:
    """Record the environment's states in one episode of at most `length` steps.

    The same key gives the same first state to any policy.

    Returns:
        the `data` of its states, leaves [length + 1, ...], and bool[length + 1], true for the
        states that belong to the episode.
    """
    reset_key, act_key = jax.random.split(key)
    first = start_episodes(env, jax.random.split(reset_key, 1), actor.memory(1))

    def take_step(carry, key):
        episodes, over = carry
        action, decision = actor.act(episodes.state.obs, key, episodes.memory)
        acted = dataclasses.replace(episodes, memory=decision.memory)
        moved, faults = advance(env, acted, action)
        ends = (moved.state.done > 0) | is_broken(faults)
        episodes = select(over, episodes, moved)
        return (episodes, over | ends), (episodes.state.data, ~over)

    _, (data, alive) = jax.lax.scan(
        take_step, (first, jnp.zeros(1, bool)), jax.random.split(act_key, length)
    )
    data = jax.tree.map(lambda x, xs: jnp.concatenate([x, xs[:, 0]]), first.state.data, data)
    return data, jnp.concatenate([jnp.ones(1, bool), alive[:, 0]])


def make_record(
    env: Env, network: nn.Module, config: PPOConfig, length: int
) -> Callable[[Weights, jax.Array], tuple[Any, jax.Array]]:
    """Build a function (weights, key) -> what `record` returns under the network's policy."""

    def with_weights(weights: Weights, key: jax.Array) -> tuple[Any, jax.Array]:
        actor = acting(network, weights, config.deterministic_eval)
        return record(env, actor, key, length)

    return jax.jit(with_weights)
