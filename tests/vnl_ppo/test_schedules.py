import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vnl_ppo import schedules
from vnl_ppo.config import PPOConfig, check

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
    [
        (0.021, 1 / 1.5),
        (0.019, 1),
        (0.006, 1),
        (0.004, 1.5),
        (1e-10, 1),
        (0.0, 1),
        (float("nan"), 1),
    ],
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


PARTS = {
    "params": {
        "encoders_eye": {"w": jnp.array([1.0, -2.0])},
        "value_encoders_eye": {"w": jnp.array([0.5])},
        "policy": {"w": jnp.array([3.0])},
    }
}


@pytest.mark.parametrize("schedule", ["constant", "adaptive_kl"])
def test_learning_rates_of_parts_are_relative(schedule):
    plain = PPOConfig(learning_rate=1e-3, learning_rate_schedule=schedule, max_grad_norm=1e9)
    own = dataclasses.replace(plain, learning_rates=("eye=0.25", "policy=2"))
    gradient = jax.tree.map(lambda x: 0.3 * x, PARTS)
    changes = []
    for config in (plain, own):
        optimizer = schedules.make_optimizer(config)
        state = optimizer.init(PARTS)
        for _ in range(3):
            change, state = optimizer.update(gradient, state, PARTS)
        changes.append(change["params"])
    # Adam moves each parameter against the sign of its gradient, by the learning rate.
    np.testing.assert_allclose(changes[0]["encoders_eye"]["w"], [-1e-3, 1e-3], rtol=1e-4)
    for name, factor in {"encoders_eye": 0.25, "value_encoders_eye": 0.25, "policy": 2}.items():
        np.testing.assert_array_equal(changes[1][name]["w"], factor * changes[0][name]["w"])
    # States are of the same structure, so that a run can be resumed with other factors.
    one, two = (jax.tree.structure(schedules.make_optimizer(c).init(PARTS)) for c in (plain, own))
    assert one == two


def test_parts_that_do_not_learn_are_no_part_of_the_norm():
    config = PPOConfig(learning_rate=1e-3, max_grad_norm=1.0, learning_rates=("eye=0",))
    optimizer = schedules.make_optimizer(config)
    gradient = {"params": {**PARTS["params"], "policy": {"w": jnp.array([0.5])}}}
    change, state = optimizer.update(gradient, optimizer.init(PARTS), PARTS)
    assert (change["params"]["encoders_eye"]["w"] == 0).all()
    # 0.5 is below the largest norm, so the first moment is a tenth of all of it.
    moments = optax.tree.get(state, "mu")["params"]
    np.testing.assert_allclose(moments["policy"]["w"], 0.05, rtol=1e-6)
    assert (moments["encoders_eye"]["w"] == 0).all()


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (("police=1",), "'police'; did you mean 'policy'"),
        (("eyes=1",), "learning_rates has 'eyes'; did you mean 'eye'.*are eye, policy"),
        (("eye",), "has 'eye'; write PART=FACTOR"),
        (("eye=-1",), "write PART=FACTOR"),
        (("eye=nan",), "write PART=FACTOR"),
        (("eye=inf",), "write PART=FACTOR"),
        (("=1",), "write PART=FACTOR"),
        (("eye=1", "eye=2"), "has eye twice"),
    ],
)
def test_wrong_learning_rates_are_told(texts, why):
    with pytest.raises(ValueError, match=why):
        config = PPOConfig(learning_rates=texts)
        check(config)
        schedules.check_parts(PARTS, config)
