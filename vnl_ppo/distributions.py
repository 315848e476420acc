"""The policy's distribution: a diagonal normal brought into [-1, 1], by tanh or by clipping.

The raw action, before it is brought there, is what gets stored: its log-probability is exact, while
that of a squashed action near +-1 is lost to rounding. distrax offers neither entropy nor mode for
a tanh transform, so both are made here from its parts.
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

with warnings.catch_warnings():
    # TensorFlow Probability, below distrax, says at its import how it will have to change for JAX.
    warnings.simplefilter("ignore", DeprecationWarning)
    import distrax

from vnl_ppo.randomness import draw

MIN_SCALE = 1e-3
_tanh = distrax.Tanh()


def normal(logits: jax.Array) -> distrax.MultivariateNormalDiag:
    """Distribution of raw actions.

    Args:
        logits: float32[..., 2A], the means, then the inverse softplus of the scales.
    """
    loc, raw_scale = jnp.split(logits, 2, axis=-1)
    return distrax.MultivariateNormalDiag(loc, jax.nn.softplus(raw_scale) + MIN_SCALE)


def sample(logits: jax.Array, key: jax.Array) -> jax.Array:
    """float32[..., A], raw actions; `key` is one or several (see `vnl_ppo.randomness.draw`)."""
    raw = normal(logits)
    return raw.loc + raw.scale_diag * draw(jax.random.normal, key, raw.loc.shape)


@dataclasses.dataclass(frozen=True)
class SquashedNormal:
    """A normal raw action, then a function into [-1, 1].

    Attributes:
        squash: raw action float32[..., A] -> action for the environment, same shape.
        log_det: raw action -> float32[..., A], the logarithm of the function's derivative by which
            densities are corrected.
    """

    squash: Callable[[jax.Array], jax.Array]
    log_det: Callable[[jax.Array], jax.Array]

    def mode(self, logits: jax.Array) -> jax.Array:
        """float32[..., A], the action at the centre of the raw distribution."""
        return self.squash(normal(logits).mode())

    def log_prob(self, logits: jax.Array, raw_action: jax.Array) -> jax.Array:
        """float32[...], log-density of the action, by change of variables."""
        return normal(logits).log_prob(raw_action) - self.log_det(raw_action).sum(-1)

    def entropy(self, logits: jax.Array, key: jax.Array) -> jax.Array:
        """float32[...], an unbiased one-sample estimate, as tanh leaves it without closed form;
        `key` as for `sample`."""
        return normal(logits).entropy() + self.log_det(sample(logits, key)).sum(-1)


TANH_NORMAL = SquashedNormal(_tanh.forward, _tanh.forward_log_det_jacobian)

CLIPPED_NORMAL = SquashedNormal(lambda x: jnp.clip(x, -1, 1), jnp.zeros_like)
"""Clipping is taken for a part of the environment: the density is that of the raw action."""

DISTRIBUTIONS = {"tanh_normal": TANH_NORMAL, "clipped_normal": CLIPPED_NORMAL}


def of(network: Any) -> SquashedNormal:
    """The distribution whose logits a network makes: its attribute `distribution`, else tanh.

    Raises:
        ValueError: there is none of that name.
    """
    name = getattr(network, "distribution", "tanh_normal")
    if name not in DISTRIBUTIONS:
        raise ValueError(
            f"the network's distribution is {name!r}; it has to be one of {sorted(DISTRIBUTIONS)}"
        )
    return DISTRIBUTIONS[name]
