import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.probes import Probe
from vnl_ppo.config import PPOConfig
from vnl_ppo.rollout import Decision, collect, select, start_episodes, unroll

CONFIG = PPOConfig(
    num_envs=3,
    unroll_length=7,
    batch_size=3,
    num_minibatches=1,
    episode_length=100,
    discounting=0.5,
    gae_lambda=0.0,
    reward_scaling=1.0,
)


def act(obs, key):
    batch = obs["proprio"].shape[:-1]
    nothing = jnp.zeros(batch)
    decision = Decision(jnp.zeros((*batch, 1)), nothing, judge(obs))
    return jnp.zeros((*batch, 1)), decision


def judge(obs):
    return 100.0 + obs["proprio"][..., 0]


def one_unroll(env, config=CONFIG):
    episodes = start_episodes(env, jax.random.key(0), config.num_envs)
    return unroll(env, act, judge, episodes, jax.random.key(1), config)


def ones(x, action):
    return jnp.ones(())


def test_a_failure_is_worth_nothing_afterwards():
    _, experience, _ = one_unroll(Probe(ones, steps=3))
    # With lambda 0 the advantage is the temporal difference; V is 99 or 101.
    target = experience.advantage + experience.decision.value
    np.testing.assert_allclose(target[jnp.array([2, 5])], 1.0)
    assert (target[jnp.array([0, 1, 3, 4, 6])] > 50).all()


@pytest.mark.parametrize(
    "env, config",
    [
        (Probe(ones, steps=5, cut=True), CONFIG),
        (Probe(ones), dataclasses.replace(CONFIG, episode_length=5, unroll_length=5)),
    ],
    ids=["cut short by the environment", "time limit"],
)
def test_a_time_out_is_worth_its_own_last_observation(env, config):
    episodes = start_episodes(env, jax.random.key(0), config.num_envs)
    _, experience, _ = unroll(env, act, judge, episodes, jax.random.key(1), config)
    # Step the same environments by hand to see what they saw last.
    state = episodes.state
    for _ in range(5):
        state = jax.vmap(env.step)(state, jnp.zeros((config.num_envs, 1)))
    target = experience.advantage + experience.decision.value
    np.testing.assert_allclose(target[4], 1 + 0.5 * judge(state.obs), rtol=1e-6)


def test_episodes_restart_with_fresh_draws_and_are_counted():
    env = Probe(ones, steps=3)
    episodes, _, totals = one_unroll(env)
    np.testing.assert_array_equal(episodes.length, [1, 1, 1])
    np.testing.assert_array_equal(totals["episodes"], [0, 0, 3, 0, 0, 3, 0])
    np.testing.assert_array_equal(totals["episode_reward"], [0, 0, 9, 0, 0, 9, 0])
    np.testing.assert_array_equal(totals["episode_length"], [0, 0, 9, 0, 0, 9, 0])
    many = dataclasses.replace(CONFIG, num_envs=64)
    first = start_episodes(env, jax.random.key(0), 64).state.data["x"]
    again = one_unroll(env, many)[1].obs["proprio"][3, :, 0]
    assert (first != again).any()


def test_the_observation_stored_is_the_one_acted_on():
    _, experience, _ = one_unroll(Probe(ones, steps=3))
    np.testing.assert_allclose(experience.decision.value, judge(experience.obs))


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_collect_covers_every_environment_and_unroll(chunk):
    config = dataclasses.replace(
        CONFIG, num_envs=4, batch_size=4, num_minibatches=2, env_chunk_size=chunk
    )
    env = Probe(lambda x, a: x, picture=True)
    episodes = start_episodes(env, jax.random.key(0), 4)
    episodes, experience, totals = collect(env, act, judge, episodes, jax.random.key(1), config)
    assert experience.advantage.shape == (config.steps_per_iteration,)
    assert experience.obs["vision"].shape == (config.steps_per_iteration, 4, 4, 3)
    assert experience.obs["vision"].dtype == jnp.uint8
    np.testing.assert_array_equal(episodes.length, [14, 14, 14, 14])
    # The metric x of the probe is what its next observation shows.
    assert abs(totals["step/x"]) <= config.steps_per_iteration
    assert totals["episodes"] == 0


def test_select_broadcasts_over_trailing_axes_and_takes_keys():
    mask = jnp.array([True, False])
    a = {"x": jnp.ones((2, 3)), "key": jax.random.split(jax.random.key(0), 2)}
    b = {"x": jnp.zeros((2, 3)), "key": jax.random.split(jax.random.key(1), 2)}
    chosen = select(mask, a, b)
    np.testing.assert_array_equal(chosen["x"], [[1, 1, 1], [0, 0, 0]])
    assert (chosen["key"] == jnp.stack([a["key"][0], b["key"][1]])).all()
