import dataclasses

import pytest

from vnl_ppo.config import PPOConfig, check
from vnl_ppo.train import evaluation_iterations


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_envs": 0}, "num_envs is 0; it has to be at least 1"),
        ({"num_envs": 100}, "256 unrolls, which num_envs = 100 does not divide"),
        ({"unroll_length": 2000}, "unroll_length is 2000 and episode_length 400"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"discounting": 1.5}, r"discounting is 1.5; it has to lie in \[0, 1\]"),
        ({"entropy_cost": -1.0}, "entropy_cost is -1.0"),
        ({"env_chunk_size": 7}, "env_chunk_size is 7, which does not divide the 256"),
        ({"num_evals": 0}, "num_evals is 0"),
        ({"max_kl": 0.0}, "max_kl is 0.0; it has to be positive"),
        ({"clipping_epsilon_value": -1.0}, "clipping_epsilon_value is -1.0"),
        ({"entropy_cost_final": float("inf")}, "entropy_cost_final is inf"),
        ({"image_shift": -1}, "image_shift is -1"),
        ({"learning_rate_schedule": "cosine"}, "'cosine'; it has to be one of constant, linear"),
        (
            {"learning_rate_schedule": "adaptive_kl", "learning_rate": 0.1},
            "learning_rate is 0.1; the adaptive schedule keeps it within 1e-05 and 0.01",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        check(dataclasses.replace(PPOConfig(), **change))


def test_devices_have_to_share_evenly():
    check(PPOConfig(), num_devices=2)
    with pytest.raises(ValueError, match="num_envs is 256, which does not divide over 3 devices"):
        check(PPOConfig(), num_devices=3)


def test_an_iteration_uses_the_data_that_its_minibatches_need():
    config = PPOConfig(num_timesteps=10_001, unroll_length=10, batch_size=5, num_minibatches=20)
    assert config.steps_per_iteration == 1000
    assert config.num_iterations == 11


@pytest.mark.parametrize("num_evals, expected", [(1, {10}), (2, {0, 10}), (3, {0, 5, 10})])
def test_evaluations_are_spread_evenly_and_end_the_run(num_evals, expected):
    config = PPOConfig(
        num_timesteps=100, num_envs=1, unroll_length=10, batch_size=1, num_minibatches=1,
        num_evals=num_evals,
    )  # fmt: skip
    assert evaluation_iterations(config) == expected
