"""Define the policy's distribution: a diagonal normal squashed into [-1, 1] by tanh or clipping.

Rollouts store the raw action, before squashing: its log-probability is exact, while that of a
squashed action near +-1 is lost to rounding. distrax has neither the entropy nor the mode of a
tanh-transformed distribution, so both are computed here.
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

with warnings.catch_warnings():
    # TensorFlow Probability, which distrax imports, warns about its own use of JAX.
    warnings.simplefilter("ignore", DeprecationWarning)
    import distrax

from vnl_ppo.randomness import draw

MIN_SCALE = 1e-3
_tanh = distrax.Tanh()


def normal(logits: jax.Array) -> distrax.MultivariateNormalDiag:
    """Return the distribution of raw actions.

    Args:
        logits: float32[..., 2A], A means, then A raw scales; scale = softplus(raw) + `MIN_SCALE`.
    """
    loc, raw_scale = jnp.split(logits, 2, axis=-1)
    return distrax.MultivariateNormalDiag(loc, jax.nn.softplus(raw_scale) + MIN_SCALE)


def sample(logits: jax.Array, key: jax.Array) -> jax.Array:
    """Draw raw actions, float32[..., A]; `key` as for `vnl_ppo.randomness.draw`."""
    raw = normal(logits)
    return raw.loc + raw.scale_diag * draw(jax.random.normal, key, raw.loc.shape)


@dataclasses.dataclass(frozen=True)
class SquashedNormal:
    """A normal distribution of raw actions, and the function that squashes them into [-1, 1].

    Attributes:
        squash: raw action float32[..., A] -> action for the environment, same shape.
        log_det: raw action -> float32[..., A], logarithm of the derivative of `squash`, by entry.
    """

    squash: Callable[[jax.Array], jax.Array]
    log_det: Callable[[jax.Array], jax.Array]

    def mode(self, logits: jax.Array) -> jax.Array:
        """Return the squashed mode of the raw distribution, float32[..., A]."""
        return self.squash(normal(logits).mode())

    def log_prob(self, logits: jax.Array, raw_action: jax.Array) -> jax.Array:
        """Return the action's log-density by change of variables, float32[...]."""
        return normal(logits).log_prob(raw_action) - self.log_det(raw_action).sum(-1)

    def entropy(self, logits: jax.Array, key: jax.Array) -> jax.Array:
        """Return an unbiased estimate of the entropy from one sample, float32[...]; tanh has no
        closed form. `key` as for `sample`."""
        return normal(logits).entropy() + self.log_det(sample(logits, key)).sum(-1)


TANH_NORMAL = SquashedNormal(_tanh.forward, _tanh.forward_log_det_jacobian)

CLIPPED_NORMAL = SquashedNormal(lambda x: jnp.clip(x, -1, 1), jnp.zeros_like)
"""Clipping counts as part of the environment: the density is that of the raw action."""

DISTRIBUTIONS = {"tanh_normal": TANH_NORMAL, "clipped_normal": CLIPPED_NORMAL}


def of(network: Any) -> SquashedNormal:
    """Return the distribution that a network's attribute `distribution` names, by default tanh.

    Raises:
        ValueError: there is no distribution of that name.
    """
    name = getattr(network, "distribution", "tanh_normal")
    if name not in DISTRIBUTIONS:
        raise ValueError(
            f"the network's distribution is {name!r}; it has to be one of {sorted(DISTRIBUTIONS)}"
        )
    return DISTRIBUTIONS[name]
