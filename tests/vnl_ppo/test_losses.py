import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests import reference
from vnl_ppo import distributions
from vnl_ppo.config import PPOConfig
from vnl_ppo.distributions import TANH_NORMAL
from vnl_ppo.losses import ppo_loss
from vnl_ppo.rollout import Decision, Experience

LOGITS = jnp.array([[0.2, 0.5], [-0.4, 0.1]])
RAW = jnp.array([[0.3], [-1.0]])
CONFIG = PPOConfig(vf_loss_coefficient=0.5, normalize_advantage=False)


def loss_with_ratio(ratio, advantage, value=(0.0, 0.0), old_value=(0.0, 0.0), config=CONFIG):
    """The loss where the new policy is `ratio` times as likely as the old to act as it did."""
    log_prob = TANH_NORMAL.log_prob(LOGITS, RAW) - jnp.log(jnp.asarray(ratio))
    batch = Experience(
        obs={"unused": jnp.zeros((2, 1))},
        decision=Decision(RAW, log_prob, jnp.asarray(old_value)),
        advantage=jnp.asarray(advantage),
    )
    key = jax.random.key(0)
    return ppo_loss(LOGITS, jnp.asarray(value), batch, key, config, TANH_NORMAL, 0.0)


def test_the_objective_is_clipped_only_where_the_policy_already_gained():
    # rho A = 1.5 * 2 is cut to 1.2 * 2; 1.5 * -2 is not; both are averaged, with a minus.
    loss, metrics = loss_with_ratio([1.5, 1.5], [2.0, -2.0])
    np.testing.assert_allclose(loss, -(1.2 * 2 - 1.5 * 2) / 2 - 0 + 0.25 * 4, rtol=1e-5)
    np.testing.assert_allclose(metrics["policy_loss"], 0.3, rtol=1e-5)
    np.testing.assert_allclose(metrics["clip_fraction"], 1.0)
    # 0.5 * 2 is not cut, 0.5 * -2 is cut to 0.8 * -2.
    _, metrics = loss_with_ratio([0.5, 0.5], [2.0, -2.0])
    np.testing.assert_allclose(metrics["policy_loss"], -(0.5 * 2 - 0.8 * 2) / 2, rtol=1e-5)


def test_the_value_target_is_the_old_value_plus_the_advantage():
    _, metrics = loss_with_ratio([1.0, 1.0], [1.0, 2.0], value=(5.0, 5.0), old_value=(3.0, 4.0))
    # Targets 4 and 6, errors 1 and -1.
    np.testing.assert_allclose(metrics["value_loss"], 0.5 * 0.5 * 1.0, rtol=1e-6)


def test_a_value_that_left_its_old_one_is_judged_by_the_worse_error():
    config = dataclasses.replace(CONFIG, clipping_epsilon_value=0.5)
    values = dict(value=(5.0, 1.0), old_value=(3.0, 4.0))
    _, metrics = loss_with_ratio([1.0, 1.0], [1.0, 2.0], **values, config=config)
    # Targets 4 and 6. 5 is cut to 3.5: errors 1 and 0.5; 1 is cut to 3.5: errors 5 and 2.5.
    np.testing.assert_allclose(metrics["value_loss"], 0.25 * (1.0**2 + 5.0**2) / 2, rtol=1e-6)
    # One that runs past its target is held where the cut leaves it, and has no gradient there.
    slope = jax.grad(
        lambda v: loss_with_ratio([1.0, 1.0], [1.0, 2.0], (v, 4.0), (3.0, 4.0), config)[0]
    )
    assert slope(3.8) == 0
    assert slope(3.2) < 0


def test_kl_is_zero_for_the_same_policy_and_matches_its_estimator():
    assert loss_with_ratio([1.0, 1.0], [1.0, 1.0])[1]["approx_kl"] == 0
    _, metrics = loss_with_ratio([2.0, 0.5], [1.0, 1.0])
    expected = np.mean([2 - 1 - np.log(2), 0.5 - 1 - np.log(0.5)])
    np.testing.assert_allclose(metrics["approx_kl"], expected, rtol=1e-5)


def test_advantages_are_standardized():
    config = PPOConfig(normalize_advantage=True)
    _, metrics = loss_with_ratio([1.1, 0.9], [10.0, 30.0], config=config)
    np.testing.assert_allclose(metrics["policy_loss"], -(1.1 * -1 + 0.9 * 1) / 2, rtol=1e-5)


SIZE, ACTIONS = 8, 3
EVERYTHING = PPOConfig(vf_loss_coefficient=0.7, clipping_epsilon=0.2)


def draw(seed):
    """A minibatch in float32, whose old and new policy differ by a little or by much."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(SIZE, 2 * ACTIONS))
    old_logits = logits + rng.choice([0.01, 0.1, 0.5]) * rng.normal(size=logits.shape)
    mean, scale = mean_and_scale(old_logits)
    raw = rng.normal(mean, scale)
    value, old_value, advantage = rng.normal(size=(3, SIZE))
    numbers = (logits, old_logits, raw, value, old_value, 10 * advantage - 3)
    return [x.astype(np.float32) for x in numbers]


def mean_and_scale(logits):
    mean, raw_scale = np.split(logits.astype(np.float64), 2, axis=-1)
    return mean, np.log1p(np.exp(raw_scale)) + 1e-3


def batch_of(old_logits, raw, old_value, advantage):
    log_prob = reference.tanh_normal_log_prob(*mean_and_scale(old_logits), raw.astype(np.float64))
    decision = Decision(*(jnp.asarray(x, jnp.float32) for x in (raw, log_prob, old_value)))
    return Experience({"x": jnp.zeros((SIZE, 1))}, decision, jnp.asarray(advantage)), log_prob


@jax.jit
def loss_of(logits, value, batch, key):
    return ppo_loss(logits, value, batch, key, EVERYTHING, TANH_NORMAL, 0.1)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31))
def test_every_part_equals_the_reference_in_float64(seed):
    logits, old_logits, raw, value, old_value, advantage = draw(seed)
    batch, old_log_prob = batch_of(old_logits, raw, old_value, advantage)
    key = jax.random.key(seed)
    loss, metrics = loss_of(jnp.asarray(logits), jnp.asarray(value), batch, key)

    mean, scale = mean_and_scale(logits)
    log_prob = reference.tanh_normal_log_prob(mean, scale, raw.astype(np.float64))
    parts = reference.ppo_loss_parts(
        log_prob,
        old_log_prob,
        *(x.astype(np.float64) for x in (advantage, value, old_value)),
        EVERYTHING.clipping_epsilon,
        standardize=True,
    )
    value_loss = EVERYTHING.vf_loss_coefficient * parts.pop("squared_error") / 2
    # The entropy is a one-sample estimate: the sample is ours, what it is worth is not.
    sample = np.asarray(distributions.normal(jnp.asarray(logits)).sample(seed=key), np.float64)
    entropy = (
        0.5 * np.log(2 * np.pi * np.e) + np.log(scale) + reference.log_derivative_of_tanh(sample)
    ).sum(-1)
    np.testing.assert_allclose(metrics["entropy"], entropy.mean(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(metrics["value_loss"], value_loss, rtol=1e-4)
    # A ratio in float32 is known to some 1e-5 of itself: its exponent is a difference of numbers
    # around 10. It may fall on either side of the clip's edge.
    edge = np.abs(np.abs(np.exp(log_prob - old_log_prob) - 1) - EVERYTHING.clipping_epsilon) < 1e-4
    for name in parts.keys() - ({"clip_fraction"} if edge.any() else set()):
        np.testing.assert_allclose(metrics[name], parts[name], rtol=2e-4, atol=2e-4, err_msg=name)
    expected = parts["policy_loss"] + value_loss - 0.1 * entropy.mean()
    np.testing.assert_allclose(loss, expected, rtol=2e-4, atol=2e-4)


def test_the_kl_estimate_is_unbiased():
    old, new = np.array([[0.3, -1.0, 0.2, 0.4]]), np.array([[0.5, -0.8, 0.1, 0.6]])
    expected = reference.normal_kl(*mean_and_scale(old), *mean_and_scale(new))
    raw = distributions.normal(jnp.asarray(old[0])).sample(
        seed=jax.random.key(0), sample_shape=200_000
    )
    log_ratio = TANH_NORMAL.log_prob(jnp.asarray(new), raw) - TANH_NORMAL.log_prob(
        jnp.asarray(old), raw
    )
    estimates = np.asarray(jnp.exp(log_ratio) - 1 - log_ratio, np.float64)
    error = estimates.std() / np.sqrt(len(estimates))
    assert error < 0.05 * expected
    assert abs(estimates.mean() - expected) < 4 * error


@settings(max_examples=20, deadline=None)
@given(hnp.arrays(np.float32, SIZE, elements=st.floats(-100, 100, width=32)), st.integers(0, 99))
def test_devices_standardize_advantages_together(advantage, seed):
    # Where all are equal up to rounding, rounding is what is standardised.
    assume(advantage.std() > 1e-2 * np.abs(advantage).max())
    # Two devices with half of the batch each agree with one that has it all.
    logits, old_logits, raw, value, old_value, _ = draw(seed)
    batch, _ = batch_of(old_logits, raw, old_value, advantage)
    whole = jax.tree.map(lambda x: x[None], (jnp.asarray(logits), jnp.asarray(value), batch))
    halves = jax.tree.map(lambda x: x[0].reshape(2, SIZE // 2, *x.shape[2:]), whole)
    together, apart = parts_over_devices(*whole), parts_over_devices(*halves)
    for name in ("policy_loss", "value_loss", "approx_kl"):
        np.testing.assert_allclose(
            apart[name].mean(), together[name].mean(), rtol=1e-4, atol=1e-4, err_msg=name
        )


@jax.jit
def parts_over_devices(logits, value, batch):
    def one(logits, value, batch):
        settings = (jax.random.key(0), EVERYTHING, TANH_NORMAL, 0.1, "devices")
        return ppo_loss(logits, value, batch, *settings)[1]

    return jax.vmap(one, axis_name="devices")(logits, value, batch)


@pytest.mark.parametrize("broken", ["advantage", "value"])
def test_bad_numbers_show_in_the_gradient(broken):
    # What must never happen is that they vanish and the rest goes wrong unseen.
    logits, old_logits, raw, value, old_value, advantage = draw(0)
    batch, _ = batch_of(old_logits, raw, old_value, advantage)
    if broken == "advantage":
        batch = dataclasses.replace(batch, advantage=batch.advantage.at[3].set(jnp.nan))
    else:
        value = value * np.where(np.arange(SIZE) == 3, np.inf, 1).astype(np.float32)
    loss = lambda scale: loss_of(scale * logits, scale * value, batch, jax.random.key(0))[0]
    assert not np.isfinite(jax.grad(loss)(1.0))
