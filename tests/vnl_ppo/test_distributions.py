import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from tests import reference
from vnl_ppo import distributions
from vnl_ppo.distributions import CLIPPED_NORMAL, TANH_NORMAL

log_prob = jax.jit(TANH_NORMAL.log_prob)


def logits(mean, scale):
    raw = np.log(np.expm1(np.asarray(scale) - distributions.MIN_SCALE))
    return jnp.concatenate([jnp.asarray(mean), jnp.asarray(raw)]).astype(jnp.float32)


def test_log_prob_equals_the_change_of_variables_in_float64():
    mean, scale, raw = np.array([0.3, -1.0]), np.array([0.5, 2.0]), np.array([0.9, -2.5])
    expected = stats.norm(mean, scale).logpdf(raw).sum() - np.log(1 - np.tanh(raw) ** 2).sum()
    ours = log_prob(logits(mean, scale), jnp.asarray(raw, jnp.float32))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


number = st.floats(-5, 5, width=32)
scales = st.floats(0.125, 5, width=32)


@settings(max_examples=200, deadline=None)
@given(*(st.tuples(x, x) for x in (number, scales, st.floats(-20, 20, width=32))))
def test_log_prob_equals_the_reference(mean, scale, raw):
    mean, scale, raw = (np.array(x, np.float64) for x in (mean, scale, raw))
    expected = reference.tanh_normal_log_prob(mean, scale, raw)
    ours = log_prob(logits(mean, scale), jnp.asarray(raw, jnp.float32))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-3)


def test_log_prob_stays_finite_where_tanh_is_one_in_float32():
    ours = TANH_NORMAL.log_prob(logits([0.0], [1.0]), jnp.array([15.0]))
    # log(1 - tanh(x)^2) -> log 4 - 2 x for large x.
    np.testing.assert_allclose(ours, stats.norm.logpdf(15) - np.log(4) + 30, rtol=1e-5)


def test_entropy_is_unbiased():
    mean, scale = 0.7, 0.8

    def integrand(raw):
        density = stats.norm(mean, scale).pdf(raw)
        return -density * (np.log(density) - np.log(1 - np.tanh(raw) ** 2))

    expected, _ = integrate.quad(integrand, mean - 6 * scale, mean + 6 * scale)
    by_quadrature = reference.tanh_normal_entropy(np.array([mean]), np.array([scale]))
    np.testing.assert_allclose(by_quadrature, expected, rtol=1e-6)
    keys = jax.random.split(jax.random.key(0), 20_000)
    estimates = jax.vmap(TANH_NORMAL.entropy, (None, 0))(logits([mean], [scale]), keys)
    error = estimates.std() / np.sqrt(len(keys))
    assert abs(estimates.mean() - expected) < 4 * error


def test_mode_is_the_squashed_mean():
    np.testing.assert_allclose(
        TANH_NORMAL.mode(logits([0.5, -3.0], [1.0, 1.0])), np.tanh([0.5, -3.0]), rtol=1e-6
    )


def test_a_clipped_normal_keeps_the_density_of_the_raw_action():
    mean, scale, raw = np.array([0.3, -1.0]), np.array([0.5, 2.0]), np.array([0.9, -2.5])
    numbers = logits(mean, scale), jnp.asarray(raw, jnp.float32)
    expected = stats.norm(mean, scale)
    np.testing.assert_allclose(
        CLIPPED_NORMAL.log_prob(*numbers), expected.logpdf(raw).sum(), rtol=1e-5
    )
    np.testing.assert_allclose(
        CLIPPED_NORMAL.entropy(numbers[0], jax.random.key(0)), expected.entropy().sum(), rtol=1e-5
    )
    np.testing.assert_array_equal(CLIPPED_NORMAL.squash(numbers[1]), np.float32([0.9, -1.0]))
    np.testing.assert_allclose(CLIPPED_NORMAL.mode(logits([0.5, -3.0], [1.0, 1.0])), [0.5, -1.0])


def test_a_network_says_what_its_logits_mean():
    class Network:
        distribution = "clipped_normal"

    assert distributions.of(object()) is TANH_NORMAL
    assert distributions.of(Network()) is CLIPPED_NORMAL
    Network.distribution = "beta"
    with pytest.raises(ValueError, match="'beta'.*one of.*'tanh_normal'"):
        distributions.of(Network())
