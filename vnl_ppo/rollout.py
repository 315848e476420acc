"""Collect experience: step a batch of environments in a scan, and restart them as episodes end."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from vnl_ppo.advantages import generalized_advantages
from vnl_ppo.config import PPOConfig
from vnl_ppo.env import Env, Observation, State
from vnl_ppo.observations import flatten
from vnl_ppo.randomness import fold_in
from vnl_ppo.recurrence import remembers

Tree = TypeVar("Tree")

LARGEST = 1e15
"""Larger numbers count as infinite: their variances and squared errors would overflow float32."""

LOST_TRUNCATIONS = "lost_truncations"
"""The metric that counts truncated episodes whose last state was not valued, see `unroll`."""


@struct.dataclass
class Decision:
    """The policy's output for observations with leading axes [...].

    Attributes:
        raw_action: float32[..., A], before squashing.
        log_prob: float32[...], log-probability of the action.
        value: float32[...], value of the observation.
        memory: the policy's memory afterwards; `()` if it has none.
        captured: what else an actor tells of itself, such as the outputs of its network's modules;
            `()` for nothing.
        noise: uint32[..., 2], data of the PRNG keys from which encoders drew random numbers, so
            that learning meets the policy that acted; `()` if they draw none.
    """

    raw_action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    memory: Any = ()
    captured: Any = ()
    noise: Any = ()


@struct.dataclass
class Experience:
    """The data that one PPO iteration learns from: B transitions in any order, leaves [B, ...].

    For a policy with memory these are B unrolls of T steps instead: leaves [B, T, ...].

    Attributes:
        obs: observations.
        decision: the policy's outputs for them.
        advantage: float32[B], advantages of the actions.
        end: bool[B], whether the step ended its episode.
        memory: the memory before the first step of each unroll, leaves [B, ...]; `()` for none.
        later: leaves of later observations, float32[B, n] by name (see `some_steps_later`).
    """

    obs: Observation
    decision: Decision
    advantage: jax.Array
    end: jax.Array | None = None
    memory: Any = ()
    later: Mapping[str, jax.Array] = dataclasses.field(default_factory=dict)


@struct.dataclass
class Episodes:
    """N environments, each in the middle of an episode; leaves [N, ...].

    Attributes:
        state: the environments' states.
        length: int32[N], steps taken so far in the episode; in a run's first episodes plus a
            number that is drawn for each environment.
        reward: float32[N], sum of the episode's rewards so far.
        memory: the policy's memory; `()` if it has none.
    """

    state: State
    length: jax.Array
    reward: jax.Array
    memory: Any = ()


Act = Callable[[Observation, jax.Array, Any], tuple[jax.Array, Decision]]
"""(obs [N, ...], keys [N], memory [N, ...]) -> action float32[N, A], decision [N]."""
ValueFn = Callable[[Observation, Any], jax.Array]
"""(obs [N, ...], memory [N, ...]) -> value float32[N]."""


def start_episodes(env: Env, keys: jax.Array, memory: Any = ()) -> Episodes:
    """Reset N environments with `keys` [N]; `memory` (leaves [N, ...]) is the policy's first."""
    state = jax.vmap(env.reset)(keys)
    # An environment that is broken from the start is only found out by its first step.
    obs = jax.tree.map(lambda x: jnp.where(_is_bad(x), 0, x) if _is_float(x) else x, state.obs)
    return Episodes(
        state=dataclasses.replace(state, obs=obs),
        length=jnp.zeros(len(keys), jnp.int32),
        reward=jnp.zeros(len(keys)),
        memory=memory,
    )


def collect(
    env: Env,
    act: Act,
    value_fn: ValueFn,
    episodes: Episodes,
    keys: jax.Array,
    config: PPOConfig,
    later: Mapping[str, int] | None = None,
) -> tuple[Episodes, Experience, dict[str, jax.Array]]:
    """Collect `config.num_unrolls` unrolls from each of the N environments of one device.

    Each environment draws its random numbers from its own key of `keys` [N]. Chunks of
    `config.env_chunk_size` environments run one after the other, so that temporary memory is needed
    for one chunk only. `later` is how many steps later than the observation the leaves of
    `Experience.later` are, by name.

    Returns:
        the episodes afterwards; the experience, as transitions, or as unrolls if the policy has a
        memory; sums over the steps taken (see `_totals`).
    """
    num_envs = episodes.length.shape[0]
    chunk = config.env_chunk_size or num_envs

    def collect_chunk(episodes_and_keys):
        episodes, keys = episodes_and_keys

        def one_unroll(episodes, number):
            now = fold_in(keys, number)
            episodes, experience, totals = unroll(env, act, value_fn, episodes, now, config, later)
            return episodes, (experience, totals)

        return jax.lax.scan(one_unroll, episodes, jnp.arange(config.num_unrolls))

    num_chunks = num_envs // chunk
    split = lambda x: x.reshape(num_chunks, chunk, *x.shape[1:])
    join = lambda x: x.reshape(num_envs, *x.shape[2:])
    chunks = jax.tree.map(split, (episodes, keys))
    episodes, (experience, totals) = jax.lax.map(collect_chunk, chunks)
    flatten = unrolls_in_rows if remembers(episodes.memory) else transitions_in_rows
    return jax.tree.map(join, episodes), flatten(experience), jax.tree.map(jnp.sum, totals)


def transitions_in_rows(experience: Experience) -> Experience:
    """Reshape leaves [chunk, unroll, T, N, ...] to [chunk * unroll * T * N, ...]."""
    flat = lambda x: x.reshape(math.prod(x.shape[:4]), *x.shape[4:])
    return jax.tree.map(flat, experience)


def unrolls_in_rows(experience: Experience) -> Experience:
    """Reshape leaves [chunk, unroll, T, N, ...] to [chunk * unroll * N, T, ...], and those of the
    memory, which has no axis T, from [chunk, unroll, N, ...] to [chunk * unroll * N, ...]."""
    flat = lambda x: x.reshape(math.prod(x.shape[:3]), *x.shape[3:])
    steps = jax.tree.map(lambda x: x.swapaxes(2, 3), dataclasses.replace(experience, memory=()))
    return jax.tree.map(flat, dataclasses.replace(steps, memory=experience.memory))


def groups_in_rows(episodes: Episodes, config: PPOConfig) -> jax.Array:
    """Return which rows of `collect`'s experience belong to which group of environments.

    Over all devices there are `config.num_groups` groups of neighbouring environments.

    Args:
        episodes: the N environments of this device.
        config: the settings.

    Returns:
        int32[G, R], the R rows of each of this device's G groups, ordered by environment, then by
        time.
    """
    num_envs = episodes.length.shape[0]
    chunk = config.env_chunk_size or num_envs
    steps = 1 if remembers(episodes.memory) else config.unroll_length
    shape = (num_envs // chunk, config.num_unrolls, steps, chunk)
    rows = jnp.arange(math.prod(shape)).reshape(shape)
    return jnp.moveaxis(rows, 3, 1).reshape(num_envs * config.num_groups // config.num_envs, -1)


def unroll(
    env: Env,
    act: Act,
    value_fn: ValueFn,
    episodes: Episodes,
    keys: jax.Array,
    config: PPOConfig,
    later: Mapping[str, int] | None = None,
) -> tuple[Episodes, Experience, dict[str, jax.Array]]:
    """Take `config.unroll_length` steps in each of N environments and estimate their advantages.

    To save memory, two things are kept once per environment, not for every step. First, a fresh
    episode, which is drawn before the unroll and starts whenever the current one ends. Second, the
    last observation and memory of a truncated episode, whose value is computed after the unroll;
    of several in one unroll the value of the last stands for all; `LOST_TRUNCATIONS` counts the
    others. `keys` are [N]; `later` is as in `collect`.

    Returns:
        the episodes afterwards; experience with leaves [T, N, ...], its memory's [N, ...]; totals
        with leaves [T].
    """
    reset_keys, act_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    first_memory = episodes.memory
    fresh = start_episodes(env, reset_keys, jax.tree.map(jnp.zeros_like, first_memory))

    def step(carry, time):
        episodes, last = carry
        obs = episodes.state.obs
        action, decision = act(obs, fold_in(act_keys, time), episodes.memory)
        episodes = dataclasses.replace(episodes, memory=decision.memory)
        decision = dataclasses.replace(decision, memory=())
        episodes, faults = advance(env, episodes, action)
        state = episodes.state

        done = state.done > 0
        cut_short = done & (state.info.get("truncation", jnp.zeros_like(state.done)) > 0)
        termination = (done & ~cut_short) | is_broken(faults)
        truncation = ~termination & (cut_short | (episodes.length >= config.episode_length))
        end = termination | truncation

        last = select(truncation, (state.obs, episodes.memory), last)
        totals = _totals(episodes, end, faults)
        carry = select(end, fresh, episodes), last
        return carry, (obs, decision, state.reward, termination, truncation, totals)

    nowhere = jax.tree.map(jnp.zeros_like, (episodes.state.obs, first_memory))
    (episodes, last), steps = jax.lax.scan(
        step, (episodes, nowhere), jnp.arange(config.unroll_length)
    )
    obs, decision, reward, termination, truncation, totals = steps
    end = termination | truncation
    # Totals are sums over steps; which step counts these does not matter.
    lost = jnp.maximum(truncation.sum(axis=0) - 1, 0).sum()
    totals[LOST_TRUNCATIONS] = jnp.zeros(config.unroll_length).at[0].set(lost)

    v_tm1 = decision.value
    v_t = jnp.concatenate([v_tm1[1:], value_fn(episodes.state.obs, episodes.memory)[None]])
    v_t = jnp.where(truncation, value_fn(*last), v_t)
    advantage = generalized_advantages(
        reward * config.reward_scaling,
        v_tm1,
        v_t,
        termination,
        end,
        config.discounting,
        config.gae_lambda,
    )
    now, afterwards = flatten(obs), flatten(episodes.state.obs)
    leaves = {
        k: some_steps_later(jnp.concatenate([now[k], afterwards[k][None]]), end, steps)
        for k, steps in (later or {}).items()
    }
    return episodes, Experience(obs, decision, advantage, end, first_memory, leaves), totals


def some_steps_later(leaf: jax.Array, end: jax.Array, steps: int) -> jax.Array:
    """Return a leaf as it is some steps later; NaN where the unroll or the episode ends before.

    Args:
        leaf: float32[T + 1, N, ...], at each step of an unroll and after it.
        end: bool[T, N], whether the step ended its episode.
        steps: 1 to T.

    Returns:
        float32[T, N, ...].
    """
    episode = jnp.pad(jnp.cumsum(end, axis=0), ((1, 0), (0, 0)))  # which one, int32[T + 1, N]
    known = episode[steps:] == episode[:-steps]
    inside = select(known, leaf[steps:], jnp.full_like(leaf[steps:], jnp.nan))
    return jnp.pad(inside, [(0, steps - 1)] + [(0, 0)] * (leaf.ndim - 1), constant_values=jnp.nan)


def advance(env: Env, episodes: Episodes, action: jax.Array) -> tuple[Episodes, dict[str, Any]]:
    """Take one step in each of N environments, and find those that broke down.

    An environment breaks down if its observation or reward is not finite (or beyond `LARGEST`), or
    if `info["failed"]` is true. Its reward and its metrics that are not finite are then set to 0,
    and the caller has to terminate its episode.

    Returns:
        the episodes, none restarted; bool[N] by fault: "observation", "reward", "simulation".
    """
    state = jax.vmap(env.step)(episodes.state, action)
    bad = [
        _is_bad(x).reshape(len(x), -1).any(-1) for x in jax.tree.leaves(state.obs) if _is_float(x)
    ]
    faults = {
        "observation": jnp.any(jnp.stack(bad), 0) if bad else jnp.zeros(state.done.shape, bool),
        "reward": _is_bad(state.reward),
        "simulation": state.info.get("failed", jnp.zeros_like(state.done)) > 0,
    }
    broken = is_broken(faults)
    state = dataclasses.replace(
        state,
        reward=jnp.where(broken, 0, state.reward),
        metrics={k: jnp.where(broken & _is_bad(x), 0, x) for k, x in state.metrics.items()},
    )
    length, reward = episodes.length + 1, episodes.reward + state.reward
    return Episodes(state, length, reward, episodes.memory), faults


def is_broken(faults: dict[str, jax.Array]) -> jax.Array:
    """Return bool[N], whether an environment has any of the faults (see `advance`)."""
    return jnp.stack(list(faults.values())).any(0)


def select(mask: jax.Array, on_true: Tree, on_false: Tree) -> Tree:
    """Apply `jnp.where` to trees whose leaves have the axes of `mask` as leading axes."""

    def one(x: Any, y: Any) -> jax.Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, y)

    return jax.tree.map(one, on_true, on_false)


def _is_float(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _is_bad(x: jax.Array) -> jax.Array:
    """Return whether each number is NaN, infinite or beyond `LARGEST`."""
    return ~(jnp.abs(x.astype(jnp.float32)) <= LARGEST)


def _totals(episodes: Episodes, end: jax.Array, faults: dict[str, Any]) -> dict[str, jax.Array]:
    """Return sums over N: metrics of the step, returns and lengths of ended episodes, faults."""
    number = lambda mask: mask.sum().astype(jnp.float32)
    return {
        **{f"step/{k}": x.sum() for k, x in episodes.state.metrics.items()},
        "episodes": number(end),
        "episode_reward": jnp.where(end, episodes.reward, 0).sum(),
        "episode_length": jnp.where(end, episodes.length, 0).sum().astype(jnp.float32),
        "nonfinite_episodes": number(is_broken(faults)),
        **{f"nonfinite_{k}": number(mask) for k, mask in faults.items()},
    }
