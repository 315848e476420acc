"""Learning on probes whose answers are known, and the promises of one iteration.

Compiling an iteration takes far longer than running it, so each fixture here trains once and many
tests look at what came of it.
"""

import dataclasses
import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from tests.probes import Pixels, Probe, Recall, Senses, Worlds
from vnl_ppo import schedules
from vnl_ppo.config import PPOConfig
from vnl_ppo.evaluation import make_evaluate
from vnl_ppo.networks import ActorCritic
from vnl_ppo.normalization import init_moments
from vnl_ppo.policy import Weights, init_params, make_policy
from vnl_ppo.ppo import DEVICES, TrainingState, learn, make_ppo
from vnl_ppo.recurrence import GRU
from vnl_ppo.rollout import Experience
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
)


NETWORK = ActorCritic(1, {}, (8,), (8,))


def train(env, network, config, iterations):
    """Returns the state, and metrics with leaves [iterations]."""
    ppo = make_ppo(env, network, config)
    state, history = ppo.init(0), []
    for _ in range(iterations):
        state, metrics = ppo.step(state)
        history.append({k: x[0] for k, x in metrics.items()})
    return ppo, state, jax.tree.map(lambda *xs: np.stack(xs), *jax.device_get(history))


@dataclasses.dataclass
class Trained:
    """Hold what a fixture leaves behind."""

    network: nn.Module
    ppo: object
    state: object
    metrics: dict

    @property
    def weights(self):
        return weights_of(self.state)

    def __call__(self, obs):
        """The deterministic action and the value, float32[B]."""

        @jax.jit
        def both(weights, obs):
            act, judge = make_policy(self.network, weights, deterministic=True)
            return act(obs, jax.random.key(0))[0][:, 0], judge(obs)

        return both(self.weights, obs)


@pytest.fixture(scope="module")
def senses():
    network = ActorCritic(1, {"eye_left": Pixels(), "eye_right": Pixels()}, (32, 32), (32, 32))
    return Trained(network, *train(Senses(), network, CONFIG, 300))


@pytest.fixture(scope="module")
def worlds():
    # In chunks, unnormalised, with a time limit of 7 that is no multiple of the unroll.
    config = dataclasses.replace(
        CONFIG,
        discounting=0.8,
        episode_length=7,
        env_chunk_size=8,
        normalize_observations=False,
    )
    network = ActorCritic(1, {}, (32,), (32,))
    return Trained(network, *train(Worlds(), network, config, 300))


def test_policy_reads_every_sense_whatever_its_scale(senses):
    signs = jnp.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    action, _ = senses(jax.vmap(Senses.see)(signs))
    np.testing.assert_allclose(action, jax.vmap(Senses.target)(signs), atol=0.15)


def test_the_first_minibatch_always_meets_the_policy_that_acted(senses):
    np.testing.assert_allclose(senses.metrics["first_ratio"], 1, atol=2e-6)
    assert senses.metrics["approx_kl"].min() > 1e-6


def test_statistics_count_every_transition_once_and_images_not_at_all(senses):
    moments = senses.weights.moments
    assert set(moments.mean) == {"faint", "loud"}
    assert moments.count == 300 * CONFIG.steps_per_iteration
    np.testing.assert_allclose(moments.mean["loud"], 500, rtol=0.05)
    np.testing.assert_allclose(moments.variance["faint"], 1e-6, rtol=0.01)


def test_sound_training_skips_nothing(senses):
    for name in ("skipped_updates", "nonfinite_episodes"):
        assert (senses.metrics[name] == 0).all()


@pytest.mark.parametrize(
    "kind, value",
    # 1 / (1 - 0.8) = 5. Taken for a failure, a limit would leave 1 + 0.8 + .. + 0.8^6 = 3.95.
    list(zip(Worlds.kinds, (5.0, 5.0, 1.0, 0.0, 0.0, 0.0), strict=True)),
)
def test_values_of_worlds_that_end_in_different_ways(worlds, kind, value):
    obs = Worlds.see(jnp.arange(len(Worlds.kinds)))
    assert worlds(obs)[1][Worlds.kinds.index(kind)] == pytest.approx(value, abs=0.3)


def test_bad_numbers_are_counted_and_reach_nothing(worlds):
    metrics = worlds.metrics
    assert (metrics["nonfinite_episodes"] > 0).all()
    parts = [metrics[f"nonfinite_{k}"] for k in ("observation", "reward", "simulation")]
    np.testing.assert_array_equal(sum(parts), metrics["nonfinite_episodes"])
    assert all(np.isfinite(x).all() for x in metrics.values())
    assert (metrics["skipped_updates"] == 0).all()
    numbers = jax.tree.leaves((worlds.weights, worlds.state.optimizer))
    assert all(np.isfinite(x).all() for x in numbers)


def test_statistics_are_left_alone_if_unwanted(worlds):
    assert worlds.weights.moments.count == 0


def test_an_iteration_compiles_once(worlds, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for _ in range(2):
            worlds.state, _ = worlds.ppo.step(worlds.state)
    assert not [r for r in caplog.records if r.getMessage().startswith("Compiling")]


@pytest.fixture(scope="module")
def recall():
    # Unrolls of 4 in episodes of 6: the memory has to outlive an unroll. With everything on that a
    # recurrent policy shares with others.
    config = dataclasses.replace(
        CONFIG,
        unroll_length=4,
        learning_rate=2e-3,
        learning_rate_schedule="linear",
        num_timesteps=200 * CONFIG.steps_per_iteration,
        clipping_epsilon_value=0.5,
        max_kl=0.5,
        entropy_cost_final=0.0,
    )
    network = ActorCritic(
        1, {}, (16,), (16,), core=GRU(16), state_dependent_std=False, distribution="clipped_normal"
    )
    return Trained(network, *train(Recall(), network, config, 200))


def test_a_policy_with_memory_answers_what_it_no_longer_sees(recall):
    config = dataclasses.replace(CONFIG, num_eval_envs=64)
    evaluate = make_evaluate(Recall(), recall.network, config)
    metrics, _ = evaluate(recall.weights, jax.random.key(0))
    assert metrics["episode_length"] == 6
    # -1.5 is the best without memory; 0.02 a step is an error of 0.14 of 0.5.
    assert metrics["episode_reward"] > -0.12


def test_unrolls_meet_the_policy_and_the_memory_that_acted(recall):
    np.testing.assert_allclose(recall.metrics["first_ratio"], 1, atol=1e-5)


def test_schedules_run_their_course(recall):
    np.testing.assert_allclose(
        recall.metrics["learning_rate"], 2e-3 * (1 - np.arange(200) / 200), rtol=1e-4
    )


@pytest.fixture(scope="module")
def two_seeds():
    config = dataclasses.replace(CONFIG, num_envs=8, batch_size=8, num_minibatches=2, seed=3)
    together = make_ppo(Probe(chase), NETWORK, dataclasses.replace(config, num_seeds=2))
    alone = make_ppo(Probe(chase), NETWORK, config)
    return together, alone


def chase(x, action):
    return -jnp.square(action - 0.5 * x)


def test_agents_trained_together_equal_those_trained_alone(two_seeds):
    together, alone = two_seeds
    states = together.init(3)
    for _ in range(3):
        states, metrics = together.step(states)
    for agent in range(2):
        state = alone.init(3 + agent)
        for _ in range(3):
            state, expected = alone.step(state)
        found, state = (jax.tree.map(lambda x: x[i], s) for i, s in ((agent, states), (0, state)))  # noqa: B023
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
        jax.tree.map(close, found.weights, state.weights)
        jax.tree.map(close, found.episodes.state.obs, state.episodes.state.obs)
        np.testing.assert_array_equal(
            jax.random.key_data(found.key), jax.random.key_data(state.key)
        )
        close(metrics["value_loss"][agent], expected["value_loss"][0])
    params = jax.tree.leaves(states.weights.params)
    assert any((x[0] != x[1]).any() for x in params)


def test_no_seeds_are_no_training():
    with pytest.raises(ValueError, match="num_seeds is 0"):
        make_ppo(Probe(chase), NETWORK, dataclasses.replace(CONFIG, num_seeds=0))


UPDATE = PPOConfig(num_minibatches=4, num_updates_per_batch=3, learning_rate=1e-2)


def make_update(config):
    """`learn` alone, on one device, with experience made by hand; the state before it."""
    spec = {"x": jax.ShapeDtypeStruct((2,), jnp.float32)}
    weights = Weights(init_params(NETWORK, spec, jax.random.key(0)), init_moments(spec))
    optimizer = schedules.make_optimizer(config)
    nothing = jnp.zeros((), jnp.int32)
    state = TrainingState(weights, optimizer.init(weights.params), None, None, nothing)

    @jax.jit
    def run(state, experience):
        groups, key = jnp.arange(32).reshape(4, 8), jax.random.key(4)
        learn_it = lambda _: learn(NETWORK, optimizer, state, experience, groups, key, config)
        results = jax.vmap(learn_it, axis_name=DEVICES)(jnp.zeros(1))
        return jax.tree.map(lambda x: x[0], results)

    return run, state


@pytest.fixture(scope="module")
def experience():
    _, state = make_update(UPDATE)

    @jax.jit
    def acted(obs):
        return make_policy(NETWORK, state.weights)[0](obs, jax.random.key(2))[1]

    obs = {"x": jax.random.normal(jax.random.key(1), (32, 2))}
    return Experience(obs, acted(obs), jax.random.normal(jax.random.key(3), (32,)))


@pytest.fixture(scope="module")
def update():
    return make_update(UPDATE)


def test_an_update_with_a_bad_gradient_is_skipped_and_counted(update, experience):
    run, state = update
    broken = experience.replace(advantage=experience.advantage.at[7].set(jnp.nan))
    *moved, metrics = run(state, broken)
    # One minibatch of four holds it, in each of three epochs.
    assert metrics["skipped_updates"] == 3
    assert metrics["updates"] == 9
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((moved, metrics)))
    assert optax.tree.get(moved[1], "count") == 9, "Adam counts the updates that were made"


def test_nothing_moves_where_every_gradient_is_bad(update, experience):
    run, state = update
    broken = experience.replace(advantage=jnp.full_like(experience.advantage, jnp.inf))
    *moved, metrics = run(state, broken)
    assert metrics["skipped_updates"] == 12
    before = state.weights.params, state.optimizer
    jax.tree.map(np.testing.assert_array_equal, tuple(moved), before)
    assert np.isnan(metrics["loss"]), "there is no mean over no updates"


def test_a_sound_update_skips_nothing(update, experience):
    run, state = update
    *moved, metrics = run(state, experience)
    assert metrics["skipped_updates"] == 0
    assert optax.tree.get(moved[1], "count") == 12


@pytest.mark.parametrize("max_kl, updates", [(1e-7, 1), (1e3, 12)])
def test_updates_stop_where_the_policy_has_moved_far_enough(experience, max_kl, updates):
    # The first minibatch meets the policy that acted, so its update is made; with the second the
    # policy is found to have moved, and neither it nor what follows is made.
    run, state = make_update(dataclasses.replace(UPDATE, max_kl=max_kl))
    *moved, metrics = run(state, experience)
    assert metrics["updates"] == updates
    assert metrics["skipped_updates"] == 0
    assert metrics["approx_kl"] <= max_kl
    assert optax.tree.get(moved[1], "count") == updates


def test_a_linear_rate_is_that_of_the_iteration(experience):
    config = dataclasses.replace(UPDATE, learning_rate_schedule="linear", num_timesteps=2)
    assert config.num_iterations == 1
    run, state = make_update(config)
    first = run(state, experience)
    np.testing.assert_allclose(first[2]["learning_rate"], 1e-2)
    *moved, metrics = run(state.replace(iteration=jnp.ones((), jnp.int32)), experience)
    assert metrics["learning_rate"] == 0
    jax.tree.map(np.testing.assert_array_equal, moved[0], state.weights.params)


def test_an_adaptive_rate_holds_the_policy_close_to_the_desired_kl(update, experience):
    plain = update[0](update[1], experience)[2]["approx_kl"]
    config = dataclasses.replace(
        UPDATE, learning_rate_schedule="adaptive_kl", desired_kl=float(plain) / 50
    )
    run, state = make_update(config)
    _, optimizer_state, metrics = run(state, experience)
    assert metrics["learning_rate"] < 1e-2
    assert metrics["approx_kl"] < plain
    assert optax.tree.get(optimizer_state, "learning_rate") == metrics["learning_rate"]
