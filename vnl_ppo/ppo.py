"""Proximal policy optimisation, one iteration from top to bottom: collect, judge, learn.

Environments are vmapped, devices pmapped; a device holds its share of the environments and a copy
of everything else, and gradients and statistics are averaged over the axis `DEVICES`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from vnl_ppo import augmentation, distributions, losses, normalization, schedules
from vnl_ppo.config import PPOConfig, check
from vnl_ppo.env import Env
from vnl_ppo.networks import ActorCritic, check_network
from vnl_ppo.policy import Weights, apply, init_params, make_policy
from vnl_ppo.programs import as_it_is
from vnl_ppo.recurrence import initial_memory
from vnl_ppo.rollout import Episodes, Experience, collect, start_episodes

DEVICES = "devices"
Metrics = dict[str, jax.Array]


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
    keep: Callable[[str, Any], Any] = as_it_is,
) -> PPO:
    """Build the two functions of PPO; nothing is compiled before their first call.

    Args:
        env: one environment, without a batch axis.
        network: as `vnl_ppo.networks.ActorCritic` (see `vnl_ppo.policy.apply`).
        config: the settings.
        devices: to share the work; by default all local ones.
        keep: see `vnl_ppo.programs.Programs.keep`.

    Raises:
        ValueError: a setting cannot be, or does not divide over the devices; the network does not
            suit the observations.
    """
    devices = list(devices or jax.local_devices())
    init, step = on_one_device(env, network, config, len(devices))
    init = keep("init", jax.pmap(init, axis_name=DEVICES, in_axes=(None, 0), devices=devices))
    step = keep("step", jax.pmap(step, axis_name=DEVICES, donate_argnums=0, devices=devices))
    return PPO(lambda seed: init(*_keys(seed, len(devices))), step)


def make_ppo_for_seeds(
    env: Env,
    network: nn.Module,
    config: PPOConfig,
    num_seeds: int,
    devices: Sequence[jax.Device] | None = None,
) -> PPO:
    """As `make_ppo`, for many independent agents in one program.

    Agent i is what `make_ppo` trains from `seed + i`, up to the order in which sums are rounded.
    States and metrics have an axis of agents behind that of devices.

    Args:
        env, network, config, devices: as for `make_ppo`; `config.num_envs` are each agent's.
        num_seeds: how many agents.

    Raises:
        ValueError: as `make_ppo`, or there are no agents.
    """
    if num_seeds < 1:
        raise ValueError(f"num_seeds is {num_seeds}; it has to be at least 1")
    devices = list(devices or jax.local_devices())
    init, step = map(jax.vmap, on_one_device(env, network, config, len(devices)))
    pmapped_init = jax.pmap(init, axis_name=DEVICES, in_axes=(None, 0), devices=devices)
    pmapped_step = jax.pmap(step, axis_name=DEVICES, donate_argnums=0, devices=devices)

    def init_all(seed: int) -> TrainingState:
        keys = [_keys(seed + i, len(devices)) for i in range(num_seeds)]
        of_agents, of_devices = zip(*keys, strict=True)
        return pmapped_init(jnp.stack(of_agents), jnp.stack(of_devices, axis=1))

    return PPO(init_all, pmapped_step)


def _keys(seed: int, num_devices: int) -> tuple[jax.Array, jax.Array]:
    """The key that all devices share, and one for each of them."""
    key, device_key = jax.random.split(jax.random.key(seed))
    return key, jax.random.split(device_key, num_devices)


def on_one_device(
    env: Env, network: nn.Module, config: PPOConfig, num_devices: int
) -> tuple[Callable[..., TrainingState], Callable[..., tuple[TrainingState, Metrics]]]:
    """What each of `num_devices` devices does, joined by the axis `DEVICES`.

    Returns:
        init: (key that all share, key of the device) -> TrainingState.
        step: TrainingState -> (TrainingState, Metrics).
    """
    check(config, num_devices)
    if isinstance(network, ActorCritic):
        check_network(env.observation_spec, network)
    optimizer = schedules.make_optimizer(config)

    def init(key: jax.Array, device_key: jax.Array) -> TrainingState:
        env_key, spread_key, device_key = jax.random.split(device_key, 3)
        params = init_params(network, env.observation_spec, key)
        num_envs = config.num_envs // num_devices
        episodes = start_episodes(env, env_key, num_envs, initial_memory(network, num_envs))
        # Were all episodes to time out together, an iteration would see only their beginnings and
        # another only their ends.
        spread = jax.random.randint(spread_key, (num_envs,), 0, config.episode_length)
        return TrainingState(
            weights=Weights(params, normalization.init_moments(env.observation_spec)),
            optimizer=optimizer.init(params),
            episodes=dataclasses.replace(episodes, length=spread),
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
        chex.assert_size(experience.advantage, config.steps_per_iteration // num_devices)
        params, optimizer_state, metrics = learn(
            network, optimizer, state, experience, learn_key, config
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

    return init, step


def learn(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainingState,
    experience: Experience,
    key: jax.Array,
    config: PPOConfig,
) -> tuple[Any, optax.OptState, Metrics]:
    """Minibatch SGD over the experience of one iteration.

    Only indices are shuffled, of transitions or of whole unrolls; a minibatch is gathered when its
    turn comes, so images are stored once, as bytes. An update whose gradient is not finite is
    skipped; all that remain are, once the policy has moved by `config.max_kl`.

    Returns:
        the new parameters and optimiser state; metrics averaged over the updates made, how many
        were made and how many were skipped for their gradient, and `first_ratio`, the mean ratio of
        the first minibatch: it has to be 1.
    """
    size = experience.advantage.shape[0]
    distribution = distributions.of(network)
    entropy_cost = schedules.entropy_cost(state.iteration, config)
    optimizer_state = schedules.begin_iteration(state.optimizer, state.iteration, config)

    def loss(params, batch, key):
        weights = Weights(params, state.weights.moments)
        logits, value, _ = apply(network, weights, batch.obs, batch.memory, batch.end)
        return losses.ppo_loss(
            logits, value, batch, key, config, distribution, entropy_cost, DEVICES
        )

    def move(learner, gradient):
        params, optimizer_state = learner
        change, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return optax.apply_updates(params, change), optimizer_state

    def update(carry, indices_and_key):
        learner, _ = carry
        indices, key = indices_and_key
        batch = jax.tree.map(lambda x: x[indices], experience)
        if config.image_shift:
            shift_key, axes = jax.random.fold_in(key, 1), batch.advantage.ndim
            obs = augmentation.random_shift(shift_key, batch.obs, axes, config.image_shift)
            batch = dataclasses.replace(batch, obs=obs)
        gradient, metrics = jax.grad(loss, has_aux=True)(learner[0], batch, key)
        gradient, kl = jax.lax.pmean((gradient, metrics["approx_kl"]), DEVICES)
        metrics["gradient_norm"] = norm = optax.tree.norm(gradient)

        too_far = jnp.zeros((), bool) if config.max_kl is None else kl > config.max_kl
        # Adam would carry a single NaN on for ever.
        sound = jnp.isfinite(norm)
        made = sound & ~too_far
        params, optimizer_state = jax.lax.cond(made, move, lambda old, _: old, learner, gradient)
        learner = params, schedules.adapt(optimizer_state, kl, config)
        return (learner, too_far), (metrics, made, ~sound)

    def update_or_rest(carry, indices_and_key):
        shapes = jax.eval_shape(update, carry, indices_and_key)[1]
        rest = lambda carry, _: (carry, jax.tree.map(jnp.zeros_like, shapes))
        return jax.lax.cond(carry[1], rest, update, carry, indices_and_key)

    def epoch(carry, key):
        shuffle_key, loss_key = jax.random.split(key)
        indices = jax.random.permutation(shuffle_key, size).reshape(config.num_minibatches, -1)
        return jax.lax.scan(
            update if config.max_kl is None else update_or_rest,
            carry,
            (indices, jax.random.split(loss_key, config.num_minibatches)),
        )

    (learner, _), (metrics, made, skipped) = jax.lax.scan(
        epoch,
        ((state.weights.params, optimizer_state), jnp.zeros((), bool)),
        jax.random.split(key, config.num_updates_per_batch),
    )
    first_ratio = metrics["ratio"][0, 0]
    count = lambda mask: mask.sum().astype(jnp.float32)
    metrics = {k: _mean(jnp.where(made, x, 0).sum(), count(made)) for k, x in metrics.items()}
    metrics |= {"updates": count(made), "skipped_updates": count(skipped)}
    metrics["learning_rate"] = schedules.learning_rate(learner[1], config)
    return *learner, metrics | {"first_ratio": first_ratio}


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
