"""Learning on probes whose answers are known, and the promises of one iteration."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.probes import Probe
from vnl_ppo.config import PPOConfig
from vnl_ppo.evaluation import make_evaluate, make_record
from vnl_ppo.networks import ActorCritic
from vnl_ppo.ppo import apply, make_policy, make_ppo
from vnl_ppo.train import weights_of

CONFIG = PPOConfig(
    num_envs=64,
    unroll_length=4,
    batch_size=64,
    num_minibatches=4,
    learning_rate=1e-3,
    discounting=0.0,
    reward_scaling=1.0,
    entropy_cost=1e-3,
    episode_length=50,
    num_eval_envs=64,
)


class Pixels(nn.Module):
    """Flattened pixels through one layer."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(*x.shape[:-3], -1).astype(jnp.float32) / 255
        return nn.relu(nn.Dense(8)(x))


def network(encoders=None):
    return ActorCritic(1, encoders or {}, (32, 32), (32, 32))


def trained(env, iterations, config=CONFIG, encoders=None):
    ppo = make_ppo(env, network(encoders), config)
    state = ppo.init(0)
    for _ in range(iterations):
        state, metrics = ppo.step(state)
    return weights_of(state), jax.tree.map(lambda x: x[0], metrics)


def act_on(env, weights, x, encoders=None):
    act, judge = make_policy(network(encoders), weights, deterministic=True)
    obs = env._see(jnp.float32(x))
    return float(act(obs, jax.random.key(0))[0][0]), float(judge(obs))


def chase(x, action):
    return -jnp.square(action - 0.5 * x)


def test_value_of_a_constant_reward():
    # Nothing but a reward of 1 for ever, discounted by 0.8: V = 1 / (1 - 0.8) = 5.
    env = Probe(lambda x, a: jnp.ones(()))
    weights, _ = trained(env, 300, dataclasses.replace(CONFIG, discounting=0.8))
    assert act_on(env, weights, 1.0)[1] == pytest.approx(5.0, abs=0.3)


def test_a_time_limit_does_not_lower_the_value():
    # The same, cut every 4 steps: the limit is not part of the world, and V stays 5. Taken for a
    # failure it would be 1 + 0.8 + 0.64 + 0.512 = 2.95 at most.
    config = dataclasses.replace(CONFIG, discounting=0.8, episode_length=4)
    env = Probe(lambda x, a: jnp.ones(()))
    assert act_on(env, trained(env, 300, config)[0], 1.0)[1] == pytest.approx(5.0, abs=0.3)
    # And a failure after one step is worth that step only.
    env = Probe(lambda x, a: jnp.ones(()), steps=1)
    assert act_on(env, trained(env, 300, config)[0], 1.0)[1] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_policy_follows_the_observation_whatever_its_scale(scale):
    env = Probe(chase, scale=scale)
    weights, _ = trained(env, 300)
    assert act_on(env, weights, 1.0)[0] == pytest.approx(0.5, abs=0.2)
    assert act_on(env, weights, -1.0)[0] == pytest.approx(-0.5, abs=0.2)


def test_policy_reads_the_picture_where_only_the_picture_tells():
    env = Probe(chase, picture=True)
    weights, _ = trained(env, 300, encoders={"vision": Pixels()})
    assert act_on(env, weights, 1.0, {"vision": Pixels()})[0] == pytest.approx(0.5, abs=0.2)
    assert act_on(env, weights, -1.0, {"vision": Pixels()})[0] == pytest.approx(-0.5, abs=0.2)


def test_the_first_minibatch_meets_the_policy_that_acted():
    env = Probe(chase, picture=True)
    for iterations in (1, 3):
        _, metrics = trained(env, iterations, encoders={"vision": Pixels()})
        assert metrics["first_ratio"] == pytest.approx(1.0, abs=2e-6)


def test_an_iteration_compiles_once(caplog):
    ppo = make_ppo(Probe(chase), network(), CONFIG)
    state = ppo.init(0)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for _ in range(3):
            state, _ = ppo.step(state)
    compiled = [r for r in caplog.records if r.getMessage().startswith("Compiling")]
    assert len(compiled) == 1


def test_statistics_are_updated_after_the_iteration_and_not_at_all_if_unwanted():
    env = Probe(chase, scale=7.0)
    weights, _ = trained(env, 1)
    assert weights.moments.count == CONFIG.steps_per_iteration
    assert weights.moments.variance["proprio"][0] == pytest.approx(49.0, rel=0.05)
    weights, _ = trained(env, 1, dataclasses.replace(CONFIG, normalize_observations=False))
    assert weights.moments.count == 0


def test_chunks_of_environments_learn_as_well():
    env = Probe(chase)
    weights, _ = trained(env, 300, dataclasses.replace(CONFIG, env_chunk_size=8))
    assert act_on(env, weights, 1.0)[0] == pytest.approx(0.5, abs=0.2)


def test_evaluation_reduces_metrics_as_the_environment_says():
    env = Probe(lambda x, a: jnp.ones(()), steps=5)
    weights, _ = trained(env, 1)
    metrics = make_evaluate(env, network(), CONFIG)(weights, jax.random.key(0))
    assert metrics["episode_reward"] == 5
    assert metrics["episode_length"] == 5
    assert metrics["episode_reward_std"] == 0
    again = make_evaluate(env, network(), CONFIG)(weights, jax.random.key(0))
    assert all(metrics[k] == again[k] for k in metrics)
    # "last" of +-1 averages to less than 1; the mean over 5 steps of a sum would exceed it.
    assert abs(metrics["x"]) < 1
    # A time limit ends an episode that would go on for ever.
    endless = Probe(lambda x, a: jnp.ones(()))
    metrics = make_evaluate(endless, network(), CONFIG)(weights, jax.random.key(0))
    assert metrics["episode_length"] == CONFIG.episode_length


def test_a_record_stops_where_the_episode_does():
    env = Probe(chase, steps=5)
    weights, _ = trained(env, 1)
    data, alive = make_record(env, network(), CONFIG, 8)(weights, jax.random.key(0))
    np.testing.assert_array_equal(data["step"], [0, 1, 2, 3, 4, 5, 5, 5, 5])
    np.testing.assert_array_equal(alive, [1, 1, 1, 1, 1, 1, 0, 0, 0])


def test_apply_takes_any_leading_axes():
    env = Probe(chase)
    weights, _ = trained(env, 1)
    obs = {"proprio": jnp.ones((2, 3, 2))}
    logits, value = apply(network(), weights, obs)
    assert logits.shape == (2, 3, 2)
    assert value.shape == (2, 3)
