"""Schedule the learning rate and the weight of the entropy over a run."""

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vnl_ppo.config import PPOConfig

_STEP = 1.5
_ROUNDING = 1e-9
"""KL of a policy from itself that rounding may give."""
_OTHERS = ("b1", "b2", "eps", "eps_root", "mu_dtype", "nesterov")


def make_optimizer(config: PPOConfig, frozen: Collection[str] = ()) -> optax.GradientTransformation:
    """Build Adam with clipping of the gradient's global norm.

    Parts that are `frozen` (see `part_of`) do not change, whatever their gradients and earlier
    momentum.
    A learning rate that is not constant is kept in the optimiser's state, and so in checkpoints;
    `begin_iteration` and `adapt` change it there.
    """
    clip = optax.clip_by_global_norm(config.max_grad_norm)
    if config.learning_rate_schedule == "constant":
        optimizer = optax.chain(clip, optax.adam(config.learning_rate))
    else:
        adam = optax.inject_hyperparams(optax.adam, static_args=_OTHERS)
        optimizer = optax.chain(clip, adam(learning_rate=config.learning_rate))
    factors = config.rate_factors | dict.fromkeys(frozen, 0.0)
    return _by_part(optimizer, factors) if factors else optimizer


def part_of(name: str) -> str:
    """Return the part, as `PPOConfig.learning_rates` names it, of a parameter of the network.

    Args:
        name: of its outermost module, such as encoders_vision, value_encoders_vision or policy.
    """
    for prefix in ("value_encoders_", "encoders_"):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return "core" if name == "value_core" else name


def check_parts(params: Any, config: PPOConfig) -> None:
    """Raise a ValueError if `config.learning_rates` names a part that the parameters do not have.

    Args:
        params: the network's parameters, or their shapes (`jax.eval_shape`).
        config: the settings.
    """
    parts = sorted({part_of(name) for name in params["params"]})
    for part in config.rate_factors:
        if part not in parts:
            (near,) = difflib.get_close_matches(part, parts, n=1, cutoff=0.0)
            raise ValueError(
                f"learning_rates has {part!r}; did you mean {near!r}? the parts of this network "
                f"that learn are {', '.join(parts)}"
            )


def _by_part(
    optimizer: optax.GradientTransformation, factors: Mapping[str, float]
) -> optax.GradientTransformation:
    """Return an optimiser with the same state, whose changes are scaled by the factor of each part.

    The gradients of parts that do not learn are no part of the global norm.
    """

    def scaled(tree: Any, factor_of: Callable[[float], float]) -> Any:
        def one(path: Any, x: jax.Array) -> jax.Array:
            factor = factor_of(factors.get(part_of(path[1].key), 1.0))
            return x * factor if factor else jnp.zeros_like(x)

        return jax.tree_util.tree_map_with_path(one, tree)

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        change, state = optimizer.update(scaled(gradient, bool), state, params)
        return scaled(change, float), state

    return optax.GradientTransformation(optimizer.init, update)


def begin_iteration(
    state: optax.OptState, iteration: jax.Array, config: PPOConfig
) -> optax.OptState:
    """Set the learning rate of a linear schedule, which falls to 0 at the end of a run.

    It is constant within an iteration, as in Huang et al. 2022, "The 37 Implementation Details of
    Proximal Policy Optimization", detail 4.
    """
    if config.learning_rate_schedule != "linear":
        return state
    rate = config.learning_rate * (1 - _progress(iteration, config))
    return optax.tree.set(state, learning_rate=rate)


def adapt(state: optax.OptState, kl: jax.Array, config: PPOConfig) -> optax.OptState:
    """Set the learning rate of an adaptive schedule after an update.

    It is divided by 1.5 if the KL from the policy that acted exceeds twice `config.desired_kl`,
    multiplied by 1.5 if the KL is less than half of `config.desired_kl`, and clipped to its bounds.
    Source: rsl_rl (Schwarke et al. 2025, arXiv:2509.10771), as in Brax's ADAPTIVE_KL.

    Args:
        state: the state of the optimiser of `make_optimizer`.
        kl: float32[], the KL of the last minibatch over all devices. Below 1e-9 it is taken for
            that of an iteration's first minibatch, which meets the policy that acted, and changes
            nothing, as NaN does.
        config: the settings.
    """
    if config.learning_rate_schedule != "adaptive_kl":
        return state
    rate = optax.tree.get(state, "learning_rate")
    slower = kl > 2 * config.desired_kl
    faster = (kl > _ROUNDING) & (kl < config.desired_kl / 2)
    rate = jnp.where(slower, rate / _STEP, jnp.where(faster, rate * _STEP, rate))
    bounds = config.learning_rate_schedule_min_lr, config.learning_rate_schedule_max_lr
    return optax.tree.set(state, learning_rate=jnp.clip(rate, *bounds))


def learning_rate(state: optax.OptState, config: PPOConfig) -> jax.Array:
    """Return the learning rate of the next update, float32[]."""
    if config.learning_rate_schedule == "constant":
        return jnp.float32(config.learning_rate)
    return optax.tree.get(state, "learning_rate")


def entropy_cost(iteration: jax.Array, config: PPOConfig) -> jax.Array | float:
    """Return the entropy's weight in this iteration: constant, or changing linearly to its last."""
    if config.entropy_cost_final is None:
        return config.entropy_cost
    change = config.entropy_cost_final - config.entropy_cost
    return config.entropy_cost + change * _progress(iteration, config)


def teacher_weight(iteration: jax.Array, config: PPOConfig) -> jax.Array:
    """Return the weight of the distance to a teacher in this iteration, float32[]."""
    left = 1 - _progress(iteration, config) / config.teacher_until
    return config.teacher_weight * jnp.maximum(left, 0)


def _progress(iteration: jax.Array, config: PPOConfig) -> jax.Array:
    """Return the share of the run that is done: 0 in the first iteration, 1 after the last."""
    return jnp.clip(iteration / config.num_iterations, 0, 1)
