import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.probes import Pixels
from vnl_ppo.config import PPOConfig
from vnl_ppo.loading import Policy
from vnl_ppo.networks import ActorCritic
from vnl_ppo.normalization import init_moments
from vnl_ppo.policy import Weights, apply, apply_and_capture, init_params, make_policy
from vnl_ppo.recurrence import GRU, initial_memory

SPEC = {
    "legs": {"angles": jax.ShapeDtypeStruct((3,), jnp.float16)},
    "touch": jax.ShapeDtypeStruct((2,), bool),
}


def obs_of(*batch):
    fill = lambda s: jax.random.normal(jax.random.key(1), (*batch, *s.shape)).astype(s.dtype)
    return jax.tree.map(fill, SPEC)


def weights_for(network):
    return Weights(init_params(network, SPEC, jax.random.key(0)), init_moments(SPEC))


def test_apply_takes_any_leading_axes_nesting_and_dtype():
    network = ActorCritic(2, {}, (8,), (8,))
    weights = weights_for(network)
    assert set(weights.moments.mean) == {"legs.angles"}
    logits, value, memory = apply(network, weights, obs_of(2, 3))
    assert (logits.shape, logits.dtype) == ((2, 3, 4), jnp.float32)
    assert value.shape == (2, 3)
    assert memory == ()


def test_an_unroll_of_a_network_with_memory_is_its_steps_one_by_one():
    network = ActorCritic(2, {}, (8,), (8,), value_leaves=("touch",), core=GRU(5))
    weights, start = weights_for(network), initial_memory(network, 2)
    assert start["policy"].shape == start["value"].shape == (2, 5)
    obs, end = obs_of(2, 4), jnp.array([[0, 1, 0, 0], [0, 0, 1, 1]], bool)
    logits, value, last = jax.jit(lambda: apply(network, weights, obs, start, end))()

    @jax.jit
    def step(memory, t):
        *output, memory = apply(network, weights, jax.tree.map(lambda x: x[:, t], obs), memory)
        return output, jax.tree.map(lambda x: jnp.where(end[:, t, None], 0, x), memory)

    memory = start
    for t in range(4):
        (one_logits, one_value), memory = step(memory, t)
        np.testing.assert_allclose(one_logits, logits[:, t], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one_value, value[:, t], rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), memory, last)


def test_actor_and_critic_that_see_different_leaves_remember_apart():
    network = ActorCritic(2, {}, (8,), (8,), value_leaves=("touch",), core=GRU(5))
    weights, memory = weights_for(network), initial_memory(network, 2)
    run = jax.jit(lambda memory: apply(network, weights, obs_of(2), memory))
    logits, value, after = run(memory)
    for stream, moved in (("policy", 0), ("value", 1)):
        other = run(memory | {stream: memory[stream] + 1})
        same = [bool((x == y).all()) for x, y in zip(other[:2], (logits, value), strict=True)]
        assert same == [moved != 0, moved != 1]
        assert {k for k in after if (other[2][k] != after[k]).any()} == {stream}


def test_a_policy_acts_at_its_mode_and_passes_its_memory_on():
    network = ActorCritic(2, {}, (8,), (8,), core=GRU(5))
    act, judge = make_policy(network, weights_for(network), deterministic=True)
    memory = initial_memory(network, 3)
    action, decision = act(obs_of(3), jax.random.key(0), memory)
    np.testing.assert_allclose(action, jnp.tanh(decision.raw_action), rtol=1e-6)
    assert (decision.memory["policy"] != memory["policy"]).any()
    np.testing.assert_allclose(judge(obs_of(3), memory), decision.value, rtol=1e-6)
    assert (judge(obs_of(3), decision.memory) != decision.value).all()


def test_a_loaded_policy_takes_nested_observations_single_or_in_batches():
    network = ActorCritic(2, {}, (8,), (8,), core=GRU(5))
    env = types.SimpleNamespace(observation_spec=SPEC)
    policy = Policy(env, network, PPOConfig(), weights_for(network), step=0)
    batch, memory = policy.act(obs_of(4))
    one, _ = policy.act(jax.tree.map(lambda x: x[1], obs_of(4)))
    assert batch.shape == (4, 2) and memory["policy"].shape == (4, 5)
    np.testing.assert_allclose(one, batch[1], rtol=1e-5)
    with pytest.raises(ValueError, match=r"has leaves \['touch'\]; this policy was trained on"):
        policy.act({"touch": obs_of()["touch"]})
    # What would be broadcast is refused.
    for touch in (jnp.zeros((4, 1)), jnp.zeros(obs_of(3)["touch"].shape)):
        with pytest.raises(ValueError, match=r"'touch' has the shape .*that of one .* is \(\d,\)"):
            policy.act(obs_of(4) | {"touch": touch})


def test_a_loaded_policy_needs_only_what_it_looks_at():
    network = ActorCritic(2, {}, (8,), (8,), policy_leaves=("legs.angles",), share_encoders=False)
    env = types.SimpleNamespace(observation_spec=SPEC)
    policy = Policy(env, network, PPOConfig(), weights_for(network), step=0)
    both, legs = obs_of(4), {"legs": obs_of(4)["legs"]}
    np.testing.assert_array_equal(policy(legs), policy(both))
    with pytest.raises(ValueError, match=r"this value was trained on \['legs.angles', 'touch'\]"):
        policy.value(legs)
    with pytest.raises(ValueError, match="this policy was trained on"):
        policy(both | {"smell": both["touch"]})
    remembering = network.clone(core=GRU(5))
    policy = Policy(env, remembering, PPOConfig(), weights_for(remembering), step=0)
    with pytest.raises(ValueError, match=r"\['legs.angles', 'touch'\]"):
        policy.act(legs)


def test_every_module_is_captured_and_what_it_sows_is_not():
    class Sowing(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow("intermediates", "mine", x)
            return nn.Dense(3)(x.astype(jnp.float32))

    network = ActorCritic(2, {"touch": Sowing()}, (8,), (4,), core=GRU(5))
    memory = initial_memory(network, 6)
    output, found = apply_and_capture(network, weights_for(network), obs_of(6), memory)
    gates = {f"core/GRUCell_0/{name}" for name in ("ir", "iz", "in", "hr", "hz", "hn")}
    assert set(found) == gates | {
        "encoders_touch", "encoders_touch/Dense_0", "core", "core/GRUCell_0",
        "policy", "policy/Dense_0", "policy/Dense_1",
        "value", "value/Dense_0", "value/Dense_1",
    }  # fmt: skip
    expected = apply(network, weights_for(network), obs_of(6), memory)
    jax.tree.map(np.testing.assert_array_equal, output, expected)
    np.testing.assert_array_equal(found["policy"], expected[0])
    np.testing.assert_array_equal(found["value"][:, 0], expected[1])


def test_an_image_that_is_not_bytes_is_refused():
    # A float image of 0 to 255 would be taken for one of 0 to 1.
    spec = {"vision": jax.ShapeDtypeStruct((4, 4, 3), jnp.uint8)}
    network = ActorCritic(2, {"vision": Pixels()}, (8,), (8,))
    weights = Weights(init_params(network, spec, jax.random.key(0)), init_moments(spec))
    env = types.SimpleNamespace(observation_spec=spec)
    policy = Policy(env, network, PPOConfig(), weights, step=0)
    image = np.full((4, 4, 3), 200)
    assert policy({"vision": image.astype(np.uint8)}).shape == (2,)
    for dtype in (np.float32, np.int64):
        with pytest.raises(ValueError, match="'vision' is .*; images have to be uint8"):
            policy({"vision": image.astype(dtype)})
