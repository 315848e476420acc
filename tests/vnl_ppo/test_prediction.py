"""Features learn to tell what they have to predict; frozen encoders stay as they are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.probes import SHOWN, Pixels, Shown
from vnl_ppo.config import PPOConfig
from vnl_ppo.networks import ActorCritic, Predictor, check_network
from vnl_ppo.normalization import init_moments
from vnl_ppo.policy import Weights, apply, apply_in_training, init_params
from vnl_ppo.ppo import make_ppo
from vnl_ppo.recurrence import GRU
from vnl_ppo.train import weights_of

SPEC = Shown.observation_spec
CONFIG = PPOConfig(
    num_envs=64,
    unroll_length=4,
    batch_size=64,
    num_minibatches=4,
    learning_rate=3e-3,
    episode_length=50,
)
SEEING = ActorCritic(
    1, {"vision": Pixels()}, (8,), (8,), policy_leaves=("vision",), predict_leaves=("truth",)
)


class Sparse(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = Pixels()(x)
        self.sow("losses", "sparsity", 0.5 * jnp.abs(x).mean())
        self.sow("metrics", "active", (x > 0).mean())
        return x


def obs_of(n):
    return jax.vmap(Shown().reset)(jax.random.split(jax.random.key(3), n)).obs


def weights_for(network):
    return Weights(init_params(network, SPEC, jax.random.key(0)), init_moments(SPEC))


def trained(network, iterations, config=CONFIG, env=SHOWN):
    ppo = make_ppo(env, network, config)
    state = ppo.init(0)
    before = jax.device_get(weights_of(state).params)
    for _ in range(iterations):
        state, metrics = ppo.step(state)
    return before, jax.device_get(weights_of(state).params), metrics


def test_the_error_is_that_of_the_predictions():
    predictor, features = Predictor(0.25), jax.random.normal(jax.random.key(0), (5, 3, 4))
    truth = jax.random.normal(jax.random.key(1), (5, 3, 2))
    params = predictor.init(jax.random.key(2), features, {"truth": truth})["params"]
    # The head by hand: a hidden layer with swish, and a linear output.
    hidden, output = params["truth"]["Dense_0"], params["truth"]["Dense_1"]
    x = np.asarray(features) @ np.asarray(hidden["kernel"]) + hidden["bias"]
    x = x / (1 + np.exp(-x))
    predicted = x @ np.asarray(output["kernel"]) + output["bias"]
    error = np.mean((predicted - truth) ** 2)
    _, sown = predictor.apply(
        {"params": params}, features, {"truth": truth}, mutable=["losses", "metrics"]
    )
    np.testing.assert_allclose(sown["losses"]["truth_loss"][0], 0.25 * error, rtol=1e-5)
    centred = np.asarray(truth) - np.asarray(truth).mean((0, 1))
    r2 = 1 - error / np.mean(centred**2)
    np.testing.assert_allclose(sown["metrics"]["truth_r2"][0], r2, rtol=1e-4)


def test_what_is_not_known_does_not_count():
    predictor, features = Predictor(0.25), jax.random.normal(jax.random.key(0), (4, 3))
    truth = jax.random.normal(jax.random.key(1), (4, 2))
    params = predictor.init(jax.random.key(2), features, {"truth": truth})["params"]

    def sown(features, truth):
        given = {"params": params}, features, {"truth": truth}
        return predictor.apply(*given, mutable=["losses", "metrics"])[1]

    half = sown(features, truth.at[2:].set(jnp.nan))
    known = sown(features[:2], truth[:2])
    np.testing.assert_allclose(
        half["losses"]["truth_loss"][0], known["losses"]["truth_loss"][0] / 2, rtol=1e-6
    )
    jax.tree.map(np.testing.assert_allclose, half["metrics"], known["metrics"])
    gradient = jax.grad(lambda x: sown(x, truth.at[2:].set(jnp.nan))["losses"]["truth_loss"][0])
    assert (gradient(features)[:2] != 0).all() and (gradient(features)[2:] == 0).all()


def test_prediction_changes_neither_actions_nor_values_nor_their_parameters():
    plain = dataclasses.replace(SEEING, predict_leaves=())
    weights, obs = weights_for(SEEING), obs_of(6)
    own = {k: x for k, x in weights.params["params"].items() if k != "predictor"}
    assert set(weights.params) == {"params"}
    jax.tree.map(np.testing.assert_array_equal, own, weights_for(plain).params["params"])
    expected = apply(plain, weights_for(plain), obs)
    jax.tree.map(np.testing.assert_array_equal, apply(SEEING, weights, obs), expected)
    output, loss, metrics = apply_in_training(SEEING, weights, obs)
    jax.tree.map(np.testing.assert_array_equal, output, expected)
    assert loss > 0
    assert set(metrics) == {"predictor/truth_error", "predictor/truth_r2"}
    assert apply_in_training(plain, weights_for(plain), obs)[1:] == (0, {})


def test_features_learn_to_tell_what_they_have_to_predict():
    _, _, metrics = trained(SEEING, 30)
    assert metrics["predictor/truth_r2"][0] > 0.9


class ShownInAdvance(Shown):
    """Shows the numbers two steps before they are the leaf `truth`."""

    def reset(self, key):
        state = super().reset(key)
        shown = state.obs["truth"]
        obs = {**state.obs, "truth": jnp.zeros(2)}
        return state.replace(data=(state.data, jnp.stack([jnp.zeros(2), shown])), obs=obs)

    def step(self, state, action):
        key, waiting = state.data
        state = super().reset(key)
        shown = state.obs["truth"]
        obs = {**state.obs, "truth": waiting[0]}
        return state.replace(data=(state.data, jnp.stack([waiting[1], shown])), obs=obs)


@pytest.mark.parametrize("memory", [None, GRU(4)])
def test_what_comes_later_is_predicted_in_advance(memory):
    in_advance = dataclasses.replace(SEEING, predict_horizon=2, core=memory)
    if memory is None:
        now = trained(SEEING, 10, env=ShownInAdvance())[2]
        assert now["predictor/truth_r2"][0] < 0.2
    _, _, metrics = trained(in_advance, 60 if memory else 30, env=ShownInAdvance())
    assert metrics["predictor/truth_r2"][0] > 0.9
    with pytest.raises(ValueError, match="predict_horizon is 5.*'truth'.*at most.*which is 4"):
        make_ppo(Shown(), dataclasses.replace(SEEING, predict_horizon=5), CONFIG)


def test_what_the_policy_sees_may_be_predicted_in_advance():
    all_seen = dataclasses.replace(SEEING, policy_leaves=None, predict_horizon=1)
    check_network(SPEC, all_seen)
    with pytest.raises(ValueError, match="'truth', which the policy sees"):
        check_network(SPEC, dataclasses.replace(all_seen, predict_horizon=0))


def test_a_frozen_encoder_stays_bit_for_bit():
    frozen = trained(dataclasses.replace(SEEING, frozen_leaves=("vision",)), 2)
    before, after, metrics = frozen
    same = jax.tree.map(lambda x, y: bool((x == y).all()), before, after)["params"]
    assert all(jax.tree.leaves(same["encoders_vision"]))
    assert not any(jax.tree.leaves(same["predictor"]))
    assert metrics["predictor/truth_r2"][0] < 0.9
    # A learning rate of 0 is the same.
    still = trained(SEEING, 2, dataclasses.replace(CONFIG, learning_rates=("vision=0",)))
    jax.tree.map(np.testing.assert_array_equal, still, frozen)
    # Nor does an encoder move that moved before, by its momentum, or by its own part of the loss.
    own = SEEING.clone(encoders={"vision": Sparse()})
    free, frozen = (
        make_ppo(SHOWN, own.clone(frozen_leaves=leaves), CONFIG) for leaves in ((), ("vision",))
    )
    state, _ = free.step(free.init(0))
    before = jax.device_get(weights_of(state).params)["params"]["encoders_vision"]
    state, _ = frozen.step(state)
    after = jax.device_get(weights_of(state).params)["params"]["encoders_vision"]
    jax.tree.map(np.testing.assert_array_equal, before, after)
    with pytest.raises(ValueError, match="'vison'; did you mean 'vision'"):
        make_ppo(Shown(), SEEING, dataclasses.replace(CONFIG, learning_rates=("vison=0",)))


def test_an_encoder_of_ones_own_may_add_to_the_loss():
    network = ActorCritic(1, {"vision": Sparse()}, (8,), (8,), policy_leaves=("vision",),
                          value_leaves=("vision",))  # fmt: skip
    weights, obs = weights_for(network), obs_of(6)
    loss, metrics = apply_in_training(network, weights, obs)[1:]
    pixels = {"params": weights.params["params"]["encoders_vision"]["Pixels_0"]}
    seen = Pixels().apply(pixels, obs["vision"])
    np.testing.assert_allclose(loss, 0.5 * jnp.abs(seen).mean(), rtol=1e-6)
    assert list(metrics) == ["encoders_vision/active"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"predict_leaves": ("turth",)}, "predict_leaves has 'turth'.*are .*'truth'"),
        ({"predict_leaves": ("vision",)}, "predict_leaves has 'vision', which the policy sees"),
        ({"policy_leaves": ("truth",), "predict_leaves": ("vision",)}, "a vector of floats"),
        ({"predict_horizon": -1}, "predict_horizon is -1"),
        ({"predict_horizon": 2, "predict_leaves": ()}, "predict_horizon is 2.*predict_leaves"),
        ({"frozen_leaves": ("truth",)}, "'truth' has no encoder to freeze.*vision"),
    ],
)
def test_leaves_that_do_not_suit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check_network(SPEC, dataclasses.replace(SEEING, **changes))
