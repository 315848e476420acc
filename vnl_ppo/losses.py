"""Compute PPO's clipped surrogate loss, with a value loss and an entropy bonus."""

import chex
import jax
import jax.numpy as jnp

from vnl_ppo.config import PPOConfig
from vnl_ppo.distributions import SquashedNormal
from vnl_ppo.rollout import Experience


def ppo_loss(
    logits: jax.Array,
    value: jax.Array,
    batch: Experience,
    key: jax.Array,
    config: PPOConfig,
    distribution: SquashedNormal,
    entropy_cost: jax.Array | float,
    axis_name: str | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Compute the loss of one minibatch.

    With the ratio `rho = pi(a|s) / pi_old(a|s)` and the advantage A,

        L = -E[min(rho A, clip(rho, 1 - eps, 1 + eps) A)] + c_v/2 E[(v - v_target)^2] - c_e H.

    If `clipping_epsilon_value` is set, the squared error is the larger of two: that of v, and that
    of v clipped to within this distance of the old value.

    Source: Schulman et al. 2017, arXiv:1707.06347, equations 7 and 9; for the value's clip, Huang
    et al. 2022, "The 37 Implementation Details of Proximal Policy Optimization", detail 9.

    Args:
        logits: float32[..., 2A], of the batch under the new parameters.
        value: float32[...], of the batch under the new parameters.
        batch: the minibatch, leaves [...] ([B] or [B, T]); its decisions were made under the old
            parameters.
        key: one PRNG key or several (see `vnl_ppo.randomness.draw`) to estimate the entropy.
        config: gives eps (`clipping_epsilon`), `clipping_epsilon_value`, c_v
            (`vf_loss_coefficient`) and `normalize_advantage`.
        distribution: the distribution of the logits.
        entropy_cost: c_e.
        axis_name: axis of devices over which the advantages are normalised together; None for one.

    Returns:
        the loss, float32[]; its parts and diagnostics, float32[] by name.
    """
    chex.assert_equal_shape([value, batch.advantage, batch.decision.log_prob])

    advantage = batch.advantage
    if config.normalize_advantage:
        advantage = _standardize(advantage, axis_name)
    log_ratio = distribution.log_prob(logits, batch.decision.raw_action) - batch.decision.log_prob
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - config.clipping_epsilon, 1 + config.clipping_epsilon)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()

    old_value = batch.decision.value
    target = old_value + batch.advantage
    error = jnp.square(value - target)
    if config.clipping_epsilon_value is not None:
        limit = config.clipping_epsilon_value
        near = old_value + jnp.clip(value - old_value, -limit, limit)
        error = jnp.maximum(error, jnp.square(near - target))
    value_loss = 0.5 * config.vf_loss_coefficient * error.mean()

    entropy = distribution.entropy(logits, key).mean()
    loss = policy_loss + value_loss - entropy_cost * entropy
    return loss, {
        "loss": loss,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        # Unbiased: Schulman, "Approximating KL divergence", 2020, estimator k3. The ratio less 1
        # would round away what is small.
        "approx_kl": (jnp.expm1(log_ratio) - log_ratio).mean(),
        "clip_fraction": (jnp.abs(ratio - 1) > config.clipping_epsilon).mean(),
        "ratio": ratio.mean(),
    }


def _standardize(x: jax.Array, axis_name: str | None) -> jax.Array:
    mean_over_devices = (lambda y: jax.lax.pmean(y, axis_name)) if axis_name else (lambda y: y)
    centred = x - mean_over_devices(x.mean())
    return centred / (jnp.sqrt(mean_over_devices(jnp.square(centred).mean())) + 1e-8)
