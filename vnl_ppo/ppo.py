"""Run proximal policy optimisation (PPO): in each iteration, collect experience, then learn.

Environments are vmapped and split over devices. A device holds its share of the environments and a
copy of everything else; gradients and statistics are averaged over the axis `DEVICES`. Results
depend on the number of devices only through the rounding of sums.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vnl_ppo import augmentation, distributions, losses, normalization, schedules
from vnl_ppo.config import PPOConfig, check
from vnl_ppo.env import Env
from vnl_ppo.networks import ActorCritic, check_network
from vnl_ppo.policy import (
    Weights,
    apply_in_training,
    init_params,
    make_policy,
    noise_keys,
    predicted_later,
)
from vnl_ppo.program_cache import as_it_is
from vnl_ppo.randomness import draw, keys_of
from vnl_ppo.recurrence import initial_memory
from vnl_ppo.rollout import (
    LOST_TRUNCATIONS,
    Episodes,
    Experience,
    collect,
    groups_in_rows,
    start_episodes,
)
from vnl_ppo.teaching import Teacher, check_teacher

DEVICES = "devices"
Metrics = dict[str, jax.Array]


@struct.dataclass
class TrainingState:
    """Everything needed to continue training; a run restored from it continues bit for bit.

    Attributes:
        weights: the policy's weights so far.
        optimizer: the state of optax.
        episodes: the environments; each device holds a contiguous part of them.
        key: the PRNG key that all devices share.
        iteration: int32[], number of training iterations done.
    """

    weights: Weights
    optimizer: optax.OptState
    episodes: Episodes
    key: jax.Array
    iteration: jax.Array


class PPO(NamedTuple):
    """PPO for one environment, network and `PPOConfig`.

    States and metrics have a leading axis of `config.num_seeds` agents: agent i equals a single one
    with seed `seed + i`, up to the rounding of sums.

    Attributes:
        init: seed -> TrainingState.
        step: TrainingState -> (TrainingState, Metrics): one iteration. The state passed in is
            donated: its memory is reused, so it must not be used again.
        layout: a TrainingState of shardings.
    """

    init: Callable[[int], TrainingState]
    step: Callable[[TrainingState], tuple[TrainingState, Metrics]]
    layout: TrainingState


def make_ppo(
    env: Env,
    network: nn.Module,
    config: PPOConfig,
    devices: Sequence[jax.Device] | None = None,
    keep: Callable[[str, Any], Any] = as_it_is,
    teacher: Teacher | None = None,
) -> PPO:
    """Build PPO's `init` and `step`; nothing is compiled before their first call.

    Args:
        env: one environment, without a batch axis.
        network: such as `vnl_ppo.networks.ActorCritic` (see `vnl_ppo.policy.apply`).
        config: the settings.
        devices: the devices that share the work; None for all devices of all processes.
        keep: see `vnl_ppo.program_cache.ProgramCache.keep`.
        teacher: a policy to learn from besides; None for none.

    Raises:
        ValueError: a setting is invalid, or does not divide over the devices; the network does not
            fit the observations.
    """
    mesh = Mesh(np.asarray(devices or jax.devices()), (DEVICES,))
    init, step = (
        over_agents(function, config.num_seeds)
        for function in on_one_device(env, network, config, mesh.size, teacher)
    )
    # A TrainingState of specs, not of arrays as its types say.
    everywhere: Any = PartitionSpec()
    shared_out: Any = PartitionSpec(None, DEVICES)
    specs = TrainingState(everywhere, everywhere, shared_out, everywhere, everywhere)
    on_devices = partial(jax.shard_map, mesh=mesh, check_vma=False)
    init = on_devices(init, in_specs=everywhere, out_specs=specs)
    step = on_devices(step, in_specs=(specs,), out_specs=(specs, everywhere))

    same = NamedSharding(mesh, everywhere)
    layout: TrainingState = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    init = keep("init", jax.jit(init, out_shardings=layout))
    step = jax.jit(step, in_shardings=(layout,), out_shardings=(layout, same), donate_argnums=0)
    return PPO(
        lambda seed: init(seed + np.arange(config.num_seeds, dtype=np.uint32)),
        keep("step", step),
        layout,
    )


def over_agents(function: Callable[..., Any], num_agents: int) -> Callable[..., Any]:
    """Map a function over a leading axis of agents. `jax.vmap` is left out for a single one, since
    it computes both branches of every condition."""
    if num_agents > 1:
        return jax.vmap(function)

    def of_one(*arguments: Any) -> Any:
        single = jax.tree.map(lambda x: x[0], arguments)
        return jax.tree.map(lambda x: x[None], function(*single))

    return of_one


def on_one_device(
    env: Env,
    network: nn.Module,
    config: PPOConfig,
    num_devices: int,
    teacher: Teacher | None = None,
) -> tuple[Callable[..., TrainingState], Callable[..., tuple[TrainingState, Metrics]]]:
    """Build `init` and `step` of one agent, as each of `num_devices` devices runs them.

    Returns:
        init: seed -> TrainingState, whose `episodes` are those of the device.
        step: TrainingState -> (TrainingState, Metrics); it reduces over the axis `DEVICES`.
    """
    check(config, num_devices)
    if isinstance(network, ActorCritic):
        check_network(env.observation_spec, network)
        network = freeze_parts_of_rate_zero(network, config)
    for leaf, steps in predicted_later(network).items():
        if steps > config.unroll_length:
            raise ValueError(
                f"predict_horizon is {steps}, and no unroll is as long: {leaf!r} would never be "
                f"known; let it be at most unroll_length, which is {config.unroll_length}"
            )
    if teacher is not None:
        check_teacher(teacher, network, env.observation_spec, "the teacher")
    if config.learning_rates:
        params = partial(init_params, network, env.observation_spec)
        schedules.check_parts(jax.eval_shape(params, jax.random.key(0)), config)
    optimizer = schedules.make_optimizer(config, getattr(network, "frozen_leaves", ()))
    num_envs = config.num_envs // num_devices

    def init(seed: jax.Array) -> TrainingState:
        keys = jax.random.split(jax.random.key(seed), 4)
        params_key, reset_key, spread_key, key = keys
        params = init_params(network, env.observation_spec, params_key)
        reset_keys = keys_of(reset_key, of_this_device(num_envs))
        episodes = start_episodes(env, reset_keys, initial_memory(network, num_envs))
        # If all episodes timed out together, some iterations would see only their beginnings and
        # others only their ends.
        spread_keys = keys_of(spread_key, of_this_device(num_envs))
        spread = partial(jax.random.randint, minval=0, maxval=config.episode_length)
        return TrainingState(
            weights=Weights(params, normalization.init_moments(env.observation_spec)),
            optimizer=optimizer.init(params),
            episodes=dataclasses.replace(episodes, length=draw(spread, spread_keys, (num_envs,))),
            key=key,
            iteration=jnp.zeros((), jnp.int32),
        )

    def step(state: TrainingState) -> tuple[TrainingState, Metrics]:
        key, collect_key, learn_key = jax.random.split(state.key, 3)
        # The weights, moments included, stay as they are while experience is collected and learned
        # from: the first minibatch meets the very policy that acted.
        weights = state.weights
        act, value_fn = make_policy(network, weights)
        env_keys = keys_of(collect_key, of_this_device(num_envs))
        episodes, experience, totals = collect(
            env, act, value_fn, state.episodes, env_keys, config, predicted_later(network)
        )
        chex.assert_size(experience.advantage, config.steps_per_iteration // num_devices)
        groups = groups_in_rows(episodes, config)
        params, optimizer_state, metrics = learn(
            network, optimizer, state, experience, groups, learn_key, config, teacher
        )
        moments = weights.moments
        if config.normalize_observations:
            moments = normalization.update_moments(moments, experience.obs, DEVICES)
        totals = _over_devices(jax.lax.psum, totals)
        metrics |= _reduce(totals, config.steps_per_iteration)
        metrics |= _value_metrics(experience)
        state = TrainingState(
            Weights(params, moments), optimizer_state, episodes, key, state.iteration + 1
        )
        return state, _over_devices(jax.lax.pmean, metrics)

    return init, step


def freeze_parts_of_rate_zero(network: ActorCritic, config: PPOConfig) -> ActorCritic:
    """Return the network with those encoders frozen whose learning rate is 0: no gradient is
    computed for them."""
    still = {k for k, factor in config.rate_factors.items() if factor == 0} & set(network.encoders)
    if not still:
        return network
    return network.clone(frozen_leaves=(*network.frozen_leaves, *sorted(still)))


def of_this_device(n: int) -> jax.Array:
    """Return int32[n], the global indices of this device's n items; every device has n."""
    return jax.lax.axis_index(DEVICES) * n + jnp.arange(n)


def learn(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainingState,
    experience: Experience,
    groups: jax.Array,
    key: jax.Array,
    config: PPOConfig,
    teacher: Teacher | None = None,
) -> tuple[Any, optax.OptState, Metrics]:
    """Update the parameters by minibatches of the experience of one iteration.

    Only indices of transitions (or of whole unrolls) are shuffled, and each minibatch is gathered
    just before its update, so images are stored once, as bytes. Indices are shuffled within each
    group, and every minibatch takes equally many from each group. An update is skipped if its
    gradient is not finite; from the first whose KL exceeds `config.max_kl`, all are skipped.

    Args:
        network, optimizer, config: as in `on_one_device`.
        state: the state before the update, whose weights collected the experience.
        experience: the experience of this device, leaves [B, ...].
        groups: int32[G, R], the rows of each group, B = G R (see `groups_in_rows`).
        key: the PRNG key that all devices share.
        teacher: as in `make_ppo`.

    Returns:
        the new parameters and optimiser state; metrics averaged over the updates made, how many
        were made, how many were skipped for their gradient, and `first_ratio`, the mean ratio of
        the first minibatch, which has to be 1.
    """
    group_numbers = of_this_device(len(groups))
    distribution = distributions.of(network)
    entropy_cost = schedules.entropy_cost(state.iteration, config)
    optimizer_state = schedules.begin_iteration(state.optimizer, state.iteration, config)

    def loss(params, batch, key):
        weights = Weights(params, state.weights.moments)
        (logits, value, _), own_loss, own_metrics = apply_in_training(
            network,
            weights,
            batch.obs,
            batch.memory,
            batch.end,
            noise_keys(batch.decision),
            batch.later,
        )
        loss, metrics = losses.ppo_loss(
            logits, value, batch, key, config, distribution, entropy_cost, DEVICES
        )
        loss += own_loss
        metrics |= own_metrics
        if teacher is not None:
            metrics["teacher_kl"] = distance = teacher.distance(batch.obs, logits)
            metrics["teacher_weight"] = weight = schedules.teacher_weight(state.iteration, config)
            loss += weight * distance
        return loss, {**metrics, "loss": loss}

    def move(learner, gradient):
        params, optimizer_state = learner
        change, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return optax.apply_updates(params, change), optimizer_state

    def update(carry, indices_and_key):
        learner, _ = carry
        indices, key = indices_and_key
        batch = jax.tree.map(lambda x: x[indices], experience)
        keys = keys_of(key, group_numbers)
        obs = augmentation.augment(keys, batch.obs, batch.advantage.ndim, config)
        batch = dataclasses.replace(batch, obs=obs)
        gradient, metrics = jax.grad(loss, has_aux=True)(learner[0], batch, keys)
        gradient, kl = _over_devices(jax.lax.pmean, (gradient, metrics["approx_kl"]))
        metrics["gradient_norm"] = norm = optax.tree.norm(gradient)

        too_far = jnp.zeros((), bool) if config.max_kl is None else kl > config.max_kl
        # Adam would keep a single NaN for ever.
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
        keys = keys_of(shuffle_key, group_numbers)
        shuffled = jax.vmap(jax.random.permutation)(keys, groups)
        # The rows of a group stay together in a minibatch: its key draws for all of them.
        indices = shuffled.reshape(len(groups), config.num_minibatches, -1).swapaxes(0, 1)
        indices = indices.reshape(config.num_minibatches, -1)
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


def _over_devices(reduce: Callable[..., jax.Array], tree: Any) -> Any:
    """Return the sum or mean of a tree over devices, in one message: between hosts, waiting for
    one message for each array takes longer than sending them."""
    if jax.lax.axis_size(DEVICES) == 1:
        # Nothing to sum, and gathering the arrays of a gradient in one takes time.
        return tree
    flat, unravel = ravel_pytree(tree)
    return unravel(reduce(flat, DEVICES))


def _reduce(totals: Metrics, steps: int) -> Metrics:
    """Return the metrics' means per step, the returns' means per finished episode, and counts of
    faults."""
    episodes = totals["episodes"]
    of_steps = {k[5:]: x / steps for k, x in totals.items() if k.startswith("step/")}
    of_episodes = {k: _mean(totals[k], episodes) for k in ("episode_reward", "episode_length")}
    counted = lambda k: k.startswith("nonfinite_") or k == LOST_TRUNCATIONS
    faults = {k: x for k, x in totals.items() if counted(k)}
    return {**of_steps, **of_episodes, "episodes": episodes, **faults}


def _mean(total: jax.Array, count: jax.Array) -> jax.Array:
    """Return the mean; NaN, which is not logged, if `count` is 0."""
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)


def _value_metrics(experience: Experience) -> Metrics:
    """Return the mean value, and the share of the targets' variance that the values explain."""
    mean = lambda x: jax.lax.pmean(x.mean(), DEVICES)
    variance = lambda x: mean(jnp.square(x - mean(x)))
    value, advantage = experience.decision.value, experience.advantage
    unexplained = variance(advantage) / jnp.maximum(variance(value + advantage), 1e-12)
    return {"explained_variance": 1 - unexplained, "value": mean(value)}
