import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vnl_ppo import schedules
from vnl_ppo.config import PPOConfig

PARAMS = {"w": jnp.array([1.0, -2.0])}
GRADIENT = {"w": jnp.array([0.3, 0.4])}
RUN = PPOConfig(num_timesteps=10 * PPOConfig().steps_per_iteration, learning_rate=1e-3)


def rate_after(kls, **changes):
    config = dataclasses.replace(RUN, learning_rate_schedule="adaptive_kl", **changes)
    state = schedules.make_optimizer(config).init(PARAMS)
    for kl in kls:
        state = schedules.adapt(state, jnp.float32(kl), config)
    return float(schedules.learning_rate(state, config))


@pytest.mark.parametrize(
    "kl, factor",
    [(0.021, 1 / 1.5), (0.019, 1), (0.006, 1), (0.004, 1.5), (0.0, 1), (float("nan"), 1)],
)
def test_an_adaptive_rate_is_steered_towards_the_desired_kl(kl, factor):
    assert rate_after([kl], desired_kl=0.01) == pytest.approx(1e-3 * factor)


def test_an_adaptive_rate_keeps_within_its_bounds():
    assert rate_after([1.0] * 20) == pytest.approx(1e-5)
    assert rate_after([1e-6] * 20) == pytest.approx(1e-2)


@pytest.mark.parametrize("iteration, share", [(0, 1.0), (5, 0.5), (10, 0.0), (12, 0.0)])
def test_a_linear_rate_falls_to_nothing(iteration, share):
    config = dataclasses.replace(RUN, learning_rate_schedule="linear")
    state = schedules.make_optimizer(config).init(PARAMS)
    state = schedules.begin_iteration(state, jnp.int32(iteration), config)
    assert schedules.learning_rate(state, config) == pytest.approx(1e-3 * share)


def test_a_rate_in_the_state_is_the_one_that_is_used():
    plain = schedules.make_optimizer(RUN)
    expected, _ = plain.update(GRADIENT, plain.init(PARAMS), PARAMS)
    config = dataclasses.replace(RUN, learning_rate_schedule="linear")
    optimizer = schedules.make_optimizer(config)
    state = optimizer.init(PARAMS)
    np.testing.assert_allclose(optimizer.update(GRADIENT, state, PARAMS)[0]["w"], expected["w"])
    half = optax.tree.set(state, learning_rate=jnp.float32(5e-4))
    found, _ = optimizer.update(GRADIENT, half, PARAMS)
    np.testing.assert_allclose(found["w"], expected["w"] / 2, rtol=1e-6)


@pytest.mark.parametrize("iteration, cost", [(0, 0.02), (5, 0.015), (10, 0.01), (99, 0.01)])
def test_the_entropy_cost_goes_to_its_final_value(iteration, cost):
    config = dataclasses.replace(RUN, entropy_cost=0.02, entropy_cost_final=0.01)
    assert schedules.entropy_cost(jnp.int32(iteration), config) == pytest.approx(cost)


def test_a_constant_entropy_cost_stays_a_plain_number():
    assert schedules.entropy_cost(jnp.int32(5), RUN) == RUN.entropy_cost
