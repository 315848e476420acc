"""Compare what is said about layers with what NumPy says about their outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vnl_ppo.activations import encoder_activations
from vnl_ppo.networks import ActorCritic
from vnl_ppo.normalization import init_moments
from vnl_ppo.policy import Weights, init_params
from vnl_ppo.recurrence import GRU

SPEC = {
    "eye": jax.ShapeDtypeStruct((4, 4, 3), jnp.uint8),
    "legs": jax.ShapeDtypeStruct((2,), jnp.float32),
}
OBS = {
    "eye": jax.random.randint(jax.random.key(0), (5, 4, 4, 3), 0, 256).astype(jnp.uint8),
    "legs": jnp.ones((5, 2)),
}
COUNTS = jnp.array([True, True, False, True, False])


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(6, (2, 2), name="filters")(x)


class Eye(nn.Module):
    """A user's: a module inside a module, and a ReLU that is none."""

    @nn.compact
    def __call__(self, image):
        x = nn.relu(Block(name="block")(image / 255.0))
        return nn.relu(nn.Dense(7)(x.mean((-3, -2))))


def statistics_of(network):
    weights = Weights(init_params(network, SPEC, jax.random.key(1)), init_moments(SPEC))
    found = jax.jit(lambda: encoder_activations(network, weights, OBS, COUNTS))()
    return weights, found


def test_every_layer_of_a_users_encoder_is_described():
    weights, found = statistics_of(ActorCritic(2, {"eye": Eye()}, (8,), (8,)))
    layers = ("block", "block.filters", "Dense_0", "output")
    assert set(found) == {f"eye/{x}/{k}" for x in layers for k in ("mean", "std", "dead")}
    seen = OBS["eye"][COUNTS]
    output, layers = Eye().apply(
        {"params": weights.params["params"]["encoders_eye"]}, seen, capture_intermediates=True
    )
    dense = np.asarray(layers["intermediates"]["Dense_0"]["__call__"][0])
    for name, x in (("Dense_0", dense), ("output", np.asarray(output))):
        assert found[f"eye/{name}/mean"] == pytest.approx(x.mean(), abs=1e-6)
        assert found[f"eye/{name}/std"] == pytest.approx(x.std(), rel=1e-4)
        assert found[f"eye/{name}/dead"] == pytest.approx((x.max(0) <= 0).mean())
    assert 0 < found["eye/output/dead"] < 1
    assert found["eye/output/dead"] == found["eye/Dense_0/dead"]


def test_encoders_apart_memory_and_lower_precision_are_described_too():
    eyes = {"eye": Eye()}
    _, apart = statistics_of(ActorCritic(2, eyes, (8,), (8,), share_encoders=False, core=GRU(3)))
    _, together = statistics_of(ActorCritic(2, eyes, (8,), (8,)))
    assert set(apart) == {p + k for p in ("", "value_") for k in together}
    _, coarse = statistics_of(ActorCritic(2, eyes, (8,), (8,), encoder_dtype=jnp.bfloat16))
    assert set(coarse) == set(together)
    assert coarse["eye/output/mean"] == pytest.approx(float(together["eye/output/mean"]), rel=0.05)


def test_where_nothing_was_seen_nothing_is_a_number_but_finite():
    network = ActorCritic(2, {"eye": Eye()}, (8,), (8,))
    weights = Weights(init_params(network, SPEC, jax.random.key(1)), init_moments(SPEC))
    found = encoder_activations(network, weights, OBS, jnp.zeros(5, bool))
    assert all(np.isfinite(x) for x in found.values())
    blind = ActorCritic(2, {}, (8,), (8,), policy_leaves=("legs",), value_leaves=("legs",))
    assert statistics_of(blind)[1] == {}
