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

from tests.probes import Senses, Worlds
from vnl_ppo.config import PPOConfig
from vnl_ppo.networks import ActorCritic
from vnl_ppo.normalization import init_moments
from vnl_ppo.ppo import DEVICES, Weights, apply, init_params, learn, make_policy, make_ppo
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


class Pixels(nn.Module):
    """Flattened pixels through one layer."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(*x.shape[:-3], -1).astype(jnp.float32) / 255
        return nn.relu(nn.Dense(8)(x))


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
    """What a fixture leaves behind."""

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


def test_apply_takes_any_leading_axes(senses):
    obs = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, 3, *x.shape)), Senses.see(jnp.ones(3)))
    logits, value = apply(senses.network, senses.weights, obs)
    assert logits.shape == (2, 3, 2)
    assert value.shape == (2, 3)


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
def update():
    """`learn` alone, on one device, with experience made by hand."""
    network = ActorCritic(1, {}, (8,), (8,))
    config = PPOConfig(num_minibatches=4, num_updates_per_batch=3)
    optimizer = optax.adam(1e-2)
    spec = {"x": jax.ShapeDtypeStruct((2,), jnp.float32)}
    params = init_params(network, spec, jax.random.key(0))
    weights = Weights(params, init_moments(spec))
    before = (weights, optimizer.init(params))

    @jax.jit
    def run(experience, key):
        arguments = (network, optimizer, *before, experience, key, config)
        one_device = lambda _: learn(*arguments)
        return jax.tree.map(lambda x: x[0], jax.vmap(one_device, axis_name=DEVICES)(jnp.zeros(1)))

    obs = {"x": jax.random.normal(jax.random.key(1), (32, 2))}
    act, _ = make_policy(network, weights)
    _, decision = act(obs, jax.random.key(2))
    experience = Experience(obs, decision, jax.random.normal(jax.random.key(3), (32,)))
    return run, experience, before


def test_an_update_with_a_bad_gradient_is_skipped_and_counted(update):
    run, experience, _ = update
    broken = experience.replace(advantage=experience.advantage.at[7].set(jnp.nan))
    *moved, metrics = run(broken, jax.random.key(4))
    # One minibatch of four holds it, in each of three epochs.
    assert metrics["skipped_updates"] == 3
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((moved, metrics)))
    assert moved[1][0].count == 9, "Adam has counted the updates that were made"


def test_nothing_moves_where_every_gradient_is_bad(update):
    run, experience, (weights, optimizer_state) = update
    broken = experience.replace(advantage=jnp.full_like(experience.advantage, jnp.inf))
    *moved, metrics = run(broken, jax.random.key(4))
    assert metrics["skipped_updates"] == 12
    jax.tree.map(np.testing.assert_array_equal, tuple(moved), (weights.params, optimizer_state))
    assert np.isnan(metrics["loss"]), "there is no mean over no updates"


def test_a_sound_update_skips_nothing(update):
    run, experience, _ = update
    *moved, metrics = run(experience, jax.random.key(4))
    assert metrics["skipped_updates"] == 0
    assert moved[1][0].count == 12
