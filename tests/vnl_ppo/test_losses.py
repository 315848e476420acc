import jax
import jax.numpy as jnp
import numpy as np

from vnl_ppo import distributions
from vnl_ppo.config import PPOConfig
from vnl_ppo.losses import ppo_loss
from vnl_ppo.rollout import Decision, Experience

LOGITS = jnp.array([[0.2, 0.5], [-0.4, 0.1]])
RAW = jnp.array([[0.3], [-1.0]])
CONFIG = PPOConfig(entropy_cost=0.0, vf_loss_coefficient=0.5, normalize_advantage=False)


def loss_with_ratio(ratio, advantage, value=(0.0, 0.0), old_value=(0.0, 0.0), config=CONFIG):
    """The loss where the new policy is `ratio` times as likely as the old to act as it did."""
    log_prob = distributions.log_prob(LOGITS, RAW) - jnp.log(jnp.asarray(ratio))
    batch = Experience(
        obs={"unused": jnp.zeros((2, 1))},
        decision=Decision(RAW, log_prob, jnp.asarray(old_value)),
        advantage=jnp.asarray(advantage),
    )
    return ppo_loss(lambda obs: (LOGITS, jnp.asarray(value)), batch, jax.random.key(0), config)


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


def test_kl_is_zero_for_the_same_policy_and_matches_its_estimator():
    assert loss_with_ratio([1.0, 1.0], [1.0, 1.0])[1]["approx_kl"] == 0
    _, metrics = loss_with_ratio([2.0, 0.5], [1.0, 1.0])
    expected = np.mean([2 - 1 - np.log(2), 0.5 - 1 - np.log(0.5)])
    np.testing.assert_allclose(metrics["approx_kl"], expected, rtol=1e-5)


def test_advantages_are_standardized():
    config = PPOConfig(entropy_cost=0.0, normalize_advantage=True)
    _, metrics = loss_with_ratio([1.1, 0.9], [10.0, 30.0], config=config)
    np.testing.assert_allclose(metrics["policy_loss"], -(1.1 * -1 + 0.9 * 1) / 2, rtol=1e-5)
