"""Proximal policy optimisation, one iteration from top to bottom: collect, judge, learn.

Environments are vmapped, devices pmapped; a device holds its share of the environments and a copy
of everything else, and gradients and statistics are averaged over the axis `DEVICES`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from vnl_ppo import distributions, losses, normalization
from vnl_ppo.config import PPOConfig, check
from vnl_ppo.env import Env, Observation
from vnl_ppo.rollout import Decision, Episodes, Experience, collect, start_episodes

DEVICES = "devices"
Metrics = dict[str, jax.Array]


@struct.dataclass
class Weights:
    """All that acting needs.

    Attributes:
        params: the network's parameters.
        moments: the statistics by which float leaves are normalised.
    """

    params: Any
    moments: normalization.Moments


@struct.dataclass
class TrainingState:
    """All that training needs to go on: saved and restored, the run continues bit for bit.

    Attributes:
        weights: of the policy so far.
        optimizer: the state of optax.
        episodes: the environments of this device.
        key: the PRNG key of this device.
        iteration: int32[], training iterations done.
    """

    weights: Weights
    optimizer: optax.OptState
    episodes: Episodes
    key: jax.Array
    iteration: jax.Array


class PPO(NamedTuple):
    """An algorithm bound to an environment, a network and its settings.

    Attributes:
        init: seed -> TrainingState, with a leading axis of devices.
        step: TrainingState -> (TrainingState, Metrics): one iteration. The state passed in is
            donated: its memory is reused, so it must not be used again.
    """

    init: Callable[[int], TrainingState]
    step: Callable[[TrainingState], tuple[TrainingState, Metrics]]


def make_ppo(
    env: Env,
    network: nn.Module,
    config: PPOConfig,
    devices: Sequence[jax.Device] | None = None,
) -> PPO:
    """Build the two functions of PPO; nothing is compiled before their first call.

    Args:
        env: one environment, without a batch axis.
        network: obs -> (logits, value), as `vnl_ppo.networks.ActorCritic`.
        config: the settings.
        devices: to share the work; by default all local ones.

    Raises:
        ValueError: a setting cannot be, or does not divide over the devices.
    """
    devices = list(devices or jax.local_devices())
    check(config, len(devices))
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm), optax.adam(config.learning_rate)
    )

    def init(key: jax.Array, device_key: jax.Array) -> TrainingState:
        env_key, spread_key, device_key = jax.random.split(device_key, 3)
        params = init_params(network, env.observation_spec, key)
        episodes = start_episodes(env, env_key, config.num_envs // len(devices))
        # Were all episodes to time out together, an iteration would see only their beginnings and
        # another only their ends.
        spread = jax.random.randint(spread_key, episodes.length.shape, 0, config.episode_length)
        return TrainingState(
            weights=Weights(params, normalization.init_moments(env.observation_spec)),
            optimizer=optimizer.init(params),
            episodes=episodes.replace(length=spread),
            key=device_key,
            iteration=jnp.zeros((), jnp.int32),
        )

    def step(state: TrainingState) -> tuple[TrainingState, Metrics]:
        key, collect_key, learn_key = jax.random.split(state.key, 3)
        # The weights, moments included, stay as they are while experience is collected and learned
        # from: the first minibatch meets the very policy that acted.
        weights = state.weights
        act, judge = make_policy(network, weights)
        episodes, experience, totals = collect(env, act, judge, state.episodes, collect_key, config)
        chex.assert_shape(experience.advantage, (config.steps_per_iteration // len(devices),))
        params, optimizer_state, metrics = learn(
            network, optimizer, weights, state.optimizer, experience, learn_key, config
        )
        moments = weights.moments
        if config.normalize_observations:
            moments = normalization.update_moments(moments, experience.obs, DEVICES)
        metrics |= _reduce(jax.lax.psum(totals, DEVICES), config.steps_per_iteration)
        metrics |= _value_metrics(experience)
        state = TrainingState(
            Weights(params, moments), optimizer_state, episodes, key, state.iteration + 1
        )
        return state, jax.lax.pmean(metrics, DEVICES)

    pmapped_init = jax.pmap(init, axis_name=DEVICES, in_axes=(None, 0), devices=devices)
    pmapped_step = jax.pmap(step, axis_name=DEVICES, donate_argnums=0, devices=devices)

    def init_all(seed: int) -> TrainingState:
        key, device_key = jax.random.split(jax.random.key(seed))
        return pmapped_init(key, jax.random.split(device_key, len(devices)))

    return PPO(init_all, pmapped_step)


def init_params(network: nn.Module, observation_spec: Any, key: jax.Array) -> Any:
    """The network's initial parameters, drawn from `key`."""
    zeros = {k: jnp.zeros((1, *s.shape), s.dtype) for k, s in observation_spec.items()}
    return network.init(key, zeros)


def apply(network: nn.Module, weights: Weights, obs: Observation) -> tuple[jax.Array, jax.Array]:
    """Logits float32[..., 2A] and value float32[...] of raw observations [..., *leaf shape]."""
    return network.apply(weights.params, normalization.normalize(weights.moments, obs))


def make_policy(network: nn.Module, weights: Weights, deterministic: bool = False):
    """The two things a policy does with observations of any leading axes [...].

    Returns:
        act: (obs, key) -> action float32[..., A] in (-1, 1), `Decision`.
        judge: obs -> value float32[...].
    """

    def act(obs: Observation, key: jax.Array) -> tuple[jax.Array, Decision]:
        logits, value = apply(network, weights, obs)
        raw = distributions.normal(logits)
        raw_action = raw.mode() if deterministic else raw.sample(seed=key)
        decision = Decision(raw_action, distributions.log_prob(logits, raw_action), value)
        return distributions.squash(raw_action), decision

    def judge(obs: Observation) -> jax.Array:
        return apply(network, weights, obs)[1]

    return act, judge


def learn(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    weights: Weights,
    optimizer_state: optax.OptState,
    experience: Experience,
    key: jax.Array,
    config: PPOConfig,
) -> tuple[Any, optax.OptState, Metrics]:
    """Minibatch SGD over the experience of one iteration.

    Only indices are shuffled; a minibatch is gathered when its turn comes, so images are stored
    once, as bytes. An update whose gradient is not finite is skipped.

    Returns:
        the new parameters and optimiser state; metrics averaged over the updates made, how many
        were skipped, and `first_ratio`, the mean ratio of the first minibatch: it has to be 1.
    """
    size = experience.advantage.shape[0]

    def loss(params, batch, key):
        judge_and_act = partial(apply, network, weights.replace(params=params))
        return losses.ppo_loss(judge_and_act, batch, key, config, DEVICES)

    def move(carry, gradient):
        params, optimizer_state = carry
        change, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return optax.apply_updates(params, change), optimizer_state

    def update(carry, indices_and_key):
        params, _ = carry
        indices, key = indices_and_key
        batch = jax.tree.map(lambda x: x[indices], experience)
        gradient, metrics = jax.grad(loss, has_aux=True)(params, batch, key)
        gradient = jax.lax.pmean(gradient, DEVICES)
        metrics["gradient_norm"] = norm = optax.tree.norm(gradient)
        # Adam would carry a single NaN on for ever.
        sound = jnp.isfinite(norm)
        carry = jax.lax.cond(sound, move, lambda carry, _: carry, carry, gradient)
        return carry, (metrics, sound)

    def epoch(carry, key):
        shuffle_key, loss_key = jax.random.split(key)
        indices = jax.random.permutation(shuffle_key, size).reshape(config.num_minibatches, -1)
        return jax.lax.scan(
            update, carry, (indices, jax.random.split(loss_key, config.num_minibatches))
        )

    (params, optimizer_state), (metrics, sound) = jax.lax.scan(
        epoch,
        (weights.params, optimizer_state),
        jax.random.split(key, config.num_updates_per_batch),
    )
    first_ratio = metrics["ratio"][0, 0]
    metrics = {k: _mean(jnp.where(sound, x, 0).sum(), sound.sum()) for k, x in metrics.items()}
    metrics["skipped_updates"] = (~sound).sum().astype(jnp.float32)
    return params, optimizer_state, metrics | {"first_ratio": first_ratio}


def _reduce(totals: Metrics, steps: int) -> Metrics:
    """Means per step of the environments' metrics and per finished episode of its return; counts
    of what broke down."""
    episodes = totals["episodes"]
    of_steps = {k[5:]: x / steps for k, x in totals.items() if k.startswith("step/")}
    of_episodes = {k: _mean(totals[k], episodes) for k in ("episode_reward", "episode_length")}
    faults = {k: x for k, x in totals.items() if k.startswith("nonfinite_")}
    return {**of_steps, **of_episodes, "episodes": episodes, **faults}


def _mean(total: jax.Array, count: jax.Array) -> jax.Array:
    """Where there is nothing there is no mean: NaN, which loggers leave out."""
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)


def _value_metrics(experience: Experience) -> Metrics:
    """How much of the targets' variance the value function already explains; 1 is all."""
    target = experience.decision.value + experience.advantage
    unexplained = experience.advantage.var() / jnp.maximum(target.var(), 1e-12)
    return {"explained_variance": 1 - unexplained, "value": experience.decision.value.mean()}
