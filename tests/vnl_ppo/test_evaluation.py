import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.probes import Probe, Worlds
from vnl_ppo.config import PPOConfig
from vnl_ppo.evaluation import make_evaluate, make_record
from vnl_ppo.networks import ActorCritic
from vnl_ppo.normalization import init_moments
from vnl_ppo.policy import Weights, init_params

CONFIG = PPOConfig(episode_length=20, num_eval_envs=64)
NETWORK = ActorCritic(1, {}, (8,), (8,))


def ones(x, action):
    return jnp.ones(())


def weights_for(env):
    params = init_params(NETWORK, env.observation_spec, jax.random.key(0))
    return Weights(params, init_moments(env.observation_spec))


def test_metrics_are_reduced_as_the_environment_says():
    env = Probe(ones, steps=5)
    evaluate = make_evaluate(env, NETWORK, CONFIG)
    metrics, _ = evaluate(weights_for(env), jax.random.key(0))
    assert metrics["episode_reward"] == 5
    assert metrics["episode_length"] == 5
    assert metrics["episode_reward_std"] == 0
    again, _ = evaluate(weights_for(env), jax.random.key(0))
    assert all(metrics[k] == again[k] for k in metrics)
    # "last" of +-1 averages to less than 1; the mean over 5 steps of a sum would exceed it.
    assert abs(metrics["x"]) < 1


def test_limits_of_time_and_bad_numbers_end_an_episode():
    env = Worlds()
    config = dataclasses.replace(CONFIG, num_eval_envs=600)
    metrics, _ = make_evaluate(env, NETWORK, config)(weights_for(env), jax.random.key(0))
    assert all(np.isfinite(x) for x in metrics.values())
    kinds = np.asarray(
        jax.vmap(env.reset)(jax.random.split(jax.random.split(jax.random.key(0))[0], 600)).data[
            "kind"
        ]
    )
    share = np.bincount(kinds) / 600
    # Of the worlds in their order: limited by us, by themselves, failed at once, broken at once.
    assert metrics["episode_length"] == pytest.approx(share @ [20, 5, 1, 1, 1, 1])
    assert metrics["episode_reward"] == pytest.approx(share @ [20, 5, 1, 0, 0, 0])


def test_a_record_stops_where_the_episode_does():
    env = Probe(ones, steps=5)
    data, alive = make_record(env, NETWORK, CONFIG, 8)(weights_for(env), jax.random.key(0))
    np.testing.assert_array_equal(data["step"], [0, 1, 2, 3, 4, 5, 5, 5, 5])
    np.testing.assert_array_equal(alive, [1, 1, 1, 1, 1, 1, 0, 0, 0])
