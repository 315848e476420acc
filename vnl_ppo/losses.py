"""The clipped surrogate objective of PPO, with a value loss and an entropy bonus."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from vnl_ppo import distributions
from vnl_ppo.config import PPOConfig
from vnl_ppo.env import Observation
from vnl_ppo.rollout import Experience


def ppo_loss(
    judge_and_act: Callable[[Observation], tuple[jax.Array, jax.Array]],
    batch: Experience,
    key: jax.Array,
    config: PPOConfig,
    axis_name: str | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of one minibatch.

    With the ratio `rho = pi(a|s) / pi_old(a|s)` and the advantage A,

        L = -E[min(rho A, clip(rho, 1 - eps, 1 + eps) A)] + c_v/2 E[(v - v_target)^2] - c_e H.

    Source: Schulman et al. 2017, arXiv:1707.06347, equations 7 and 9.

    Args:
        judge_and_act: obs -> (logits float32[B, 2A], value float32[B]) under the new parameters.
        batch: the minibatch; its decisions were made under the old ones.
        key: for the entropy's estimate.
        config: `clipping_epsilon`, `entropy_cost`, `vf_loss_coefficient`, `normalize_advantage`.
        axis_name: devices over which the advantages are normalised together.

    Returns:
        float32[], the loss; its parts and some diagnostics, float32[] each.
    """
    logits, value = judge_and_act(batch.obs)
    chex.assert_equal_shape([value, batch.advantage, batch.decision.log_prob])

    advantage = batch.advantage
    if config.normalize_advantage:
        advantage = _standardize(advantage, axis_name)
    log_ratio = distributions.log_prob(logits, batch.decision.raw_action) - batch.decision.log_prob
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - config.clipping_epsilon, 1 + config.clipping_epsilon)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()

    target = batch.decision.value + batch.advantage
    value_loss = 0.5 * config.vf_loss_coefficient * jnp.square(value - target).mean()

    entropy = distributions.entropy(logits, key).mean()
    loss = policy_loss + value_loss - config.entropy_cost * entropy
    return loss, {
        "loss": loss,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        # Unbiased and never negative: Schulman, "Approximating KL divergence", 2020, estimator k3.
        "approx_kl": (ratio - 1 - log_ratio).mean(),
        "clip_fraction": (jnp.abs(ratio - 1) > config.clipping_epsilon).mean(),
        "ratio": ratio.mean(),
    }


def _standardize(x: jax.Array, axis_name: str | None) -> jax.Array:
    mean_over_devices = (lambda y: jax.lax.pmean(y, axis_name)) if axis_name else (lambda y: y)
    centred = x - mean_over_devices(x.mean())
    return centred / (jnp.sqrt(mean_over_devices(jnp.square(centred).mean())) + 1e-8)
