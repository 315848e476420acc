"""The policy's distribution: a diagonal normal squashed by tanh into (-1, 1).

The raw action, before the squashing, is what gets stored: its log-probability is exact, while that
of a squashed action near +-1 is lost to rounding. distrax offers neither entropy nor mode for a
tanh transform, so both are made here from its parts.
"""

import warnings

import jax
import jax.numpy as jnp

with warnings.catch_warnings():
    # TensorFlow Probability, below distrax, says at its import how it will have to change for JAX.
    warnings.simplefilter("ignore", DeprecationWarning)
    import distrax

MIN_SCALE = 1e-3
_tanh = distrax.Tanh()


def normal(logits: jax.Array) -> distrax.MultivariateNormalDiag:
    """Distribution of raw actions.

    Args:
        logits: float32[..., 2A], the means, then the inverse softplus of the scales.
    """
    loc, raw_scale = jnp.split(logits, 2, axis=-1)
    return distrax.MultivariateNormalDiag(loc, jax.nn.softplus(raw_scale) + MIN_SCALE)


def squash(raw_action: jax.Array) -> jax.Array:
    """float32[..., A] in (-1, 1), the action for the environment."""
    return _tanh.forward(raw_action)


def mode(logits: jax.Array) -> jax.Array:
    """float32[..., A], the action at the centre of the raw distribution."""
    return squash(normal(logits).mode())


def log_prob(logits: jax.Array, raw_action: jax.Array) -> jax.Array:
    """float32[...], log-density of the squashed action, by change of variables."""
    return normal(logits).log_prob(raw_action) - _log_det(raw_action)


def entropy(logits: jax.Array, key: jax.Array) -> jax.Array:
    """float32[...], an unbiased one-sample estimate; it has no closed form."""
    raw = normal(logits)
    return raw.entropy() + _log_det(raw.sample(seed=key))


def _log_det(raw_action: jax.Array) -> jax.Array:
    return _tanh.forward_log_det_jacobian(raw_action).sum(-1)
