"""Encoders that draw random numbers: learning meets the numbers that acting met."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.probes import Pixels, Shown
from vnl_ppo.config import PPOConfig
from vnl_ppo.evaluation import make_evaluate
from vnl_ppo.networks import ActorCritic
from vnl_ppo.normalization import init_moments
from vnl_ppo.policy import Weights, apply, init_params, make_policy, noise_keys
from vnl_ppo.ppo import make_ppo
from vnl_ppo.recurrence import GRU
from vnl_ppo.train import weights_of


class Noisy(nn.Module):
    """Pixels and loud noise."""

    @nn.compact
    def __call__(self, x, key=None):
        x = Pixels()(x)
        if key is None:
            return x
        one = lambda k: jax.random.normal(k, x.shape[-1:])
        for _ in range(key.ndim):
            one = jax.vmap(one)
        return x + 3 * one(key)


SPEC = Shown.observation_spec
NETWORK = ActorCritic(
    2, {"vision": Noisy()}, (8,), (8,), policy_leaves=("vision",), value_leaves=("truth", "vision")
)
CONFIG = PPOConfig(
    num_envs=16,
    unroll_length=4,
    batch_size=16,
    num_minibatches=1,
    num_updates_per_batch=1,
    episode_length=50,
    num_eval_envs=4,
)


@dataclasses.dataclass(frozen=True)
class Wide(Shown):
    action_size: int = 2


def weights_for(network):
    return Weights(init_params(network, SPEC, jax.random.key(0)), init_moments(SPEC))


def obs_of(*shape):
    keys = jax.random.split(jax.random.key(3), shape)
    reset = Wide().reset
    for _ in shape:
        reset = jax.vmap(reset)
    return reset(keys).obs


@pytest.mark.parametrize(
    "network",
    [NETWORK, pytest.param(NETWORK.clone(core=GRU(4)), marks=pytest.mark.slow)],
    ids=["plain", "gru"],
)
def test_the_first_update_meets_the_policy_that_acted(network):
    ppo = make_ppo(Wide(), network, CONFIG)
    _, metrics = ppo.step(ppo.init(0))
    np.testing.assert_allclose(metrics["first_ratio"], 1, atol=1e-5)
    # The mean ratio is near 1 for other noise too; the KL is not near 0.
    assert 0 <= metrics["approx_kl"][0] < 1e-9 and metrics["clip_fraction"][0] == 0


def test_other_noise_would_be_another_policy():
    weights, obs = weights_for(NETWORK), obs_of(200)
    act, _ = make_policy(NETWORK, weights)
    _, decision = jax.jit(act)(obs, jax.random.split(jax.random.key(1), 200))
    assert decision.noise.shape == (200, 2) and decision.noise.dtype == jnp.uint32
    again = apply(NETWORK, weights, obs, keys=noise_keys(decision))
    others = apply(NETWORK, weights, obs, keys=jax.random.split(jax.random.key(9), 200))
    np.testing.assert_allclose(again[1], decision.value, rtol=1e-5)
    assert (jnp.abs(others[1] - decision.value) > 1e-3).mean() > 0.9


def test_noise_is_of_the_environments_key_and_actions_stay_as_they_were():
    weights, keys = weights_for(NETWORK), jax.random.split(jax.random.key(1), 6)
    act, value_fn = map(jax.jit, make_policy(NETWORK, weights))
    obs = obs_of(6)
    _, all_of_them = act(obs, keys)
    _, some = act(jax.tree.map(lambda x: x[2:4], obs), keys[2:4])
    np.testing.assert_array_equal(all_of_them.noise[2:4], some.noise)
    assert len(np.unique(all_of_them.noise, axis=0)) == 6
    # One key for all, and further axes.
    for shape, key in [((), keys[0]), ((5,), keys[0]), ((6, 2), keys), ((3, 2), keys[0])]:
        obs_spec = jax.eval_shape(lambda: obs_of(*shape))  # noqa: B023
        action, decision = jax.eval_shape(act, obs_spec, key)
        assert action.shape == (*shape, 2) and decision.noise.shape == (*shape, 2)
    # Deterministic policies and values draw nothing.
    _, decision = make_policy(NETWORK, weights, deterministic=True)[0](obs, keys)
    assert decision.noise == () and noise_keys(decision) is None
    np.testing.assert_allclose(decision.value, value_fn(obs), rtol=1e-5)
    plain = ActorCritic(2, {"vision": Pixels()}, (8,), (8,), policy_leaves=("vision",))
    assert make_policy(plain, weights_for(plain))[0](obs, keys)[1].noise == ()


def test_policies_are_evaluated_without_noise():
    ppo = make_ppo(Wide(), NETWORK, CONFIG)
    weights = weights_of(ppo.init(0))
    evaluate = make_evaluate(Wide(), NETWORK, dataclasses.replace(CONFIG, episode_length=3))
    _, watched = evaluate(weights, jax.random.key(0))
    obs = jax.tree.map(lambda x: x[0], watched.obs)
    mode, _ = make_policy(NETWORK, weights, deterministic=True)[0](obs, jax.random.key(5))
    np.testing.assert_allclose(watched.action[0], mode, rtol=1e-5)
