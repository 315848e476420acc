import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vnl_ppo.networks import ActorCritic, Head, check_encoders, check_network
from vnl_ppo.recurrence import GRU

SPEC = {
    "proprio": jax.ShapeDtypeStruct((5,), jnp.float32),
    "vision": jax.ShapeDtypeStruct((4, 4, 3), jnp.uint8),
}


class Pixels(nn.Module):
    """Flattened pixels through one layer."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(8)(x.reshape(*x.shape[:-3], -1).astype(jnp.float32))


def obs_of(batch=()):
    return {k: jnp.ones((*batch, *s.shape), s.dtype) for k, s in SPEC.items()}


def gradients(share):
    network = ActorCritic(2, {"vision": Pixels()}, (8,), (8,), share)
    params = network.init(jax.random.key(0), obs_of())
    return jax.grad(lambda p: network.apply(p, obs_of())[1])(params)["params"]


def test_features_go_side_by_side_into_the_heads():
    network = ActorCritic(2, {"vision": Pixels()}, (8,), (8,))
    params = network.init(jax.random.key(0), obs_of())["params"]
    assert params["policy"]["Dense_0"]["kernel"].shape == (5 + 8, 8)
    logits, value = network.apply({"params": params}, obs_of((2, 3)))
    assert logits.shape == (2, 3, 4)
    assert value.shape == (2, 3)


def test_encoders_are_shared_unless_asked_otherwise():
    moved = lambda tree: any(bool((x != 0).any()) for x in jax.tree.leaves(tree))
    assert moved(gradients(True)["encoders_vision"])
    own = gradients(False)
    assert not moved(own["encoders_vision"])
    assert moved(own["value_encoders_vision"])


@pytest.mark.parametrize("leaves", [None, ("vision",)])
def test_a_shared_encoder_runs_once_for_both_heads(leaves):
    runs = []

    class Counting(Pixels):
        def __call__(self, x):
            runs.append(x.shape)
            self.sow("losses", "own", jnp.ones(()))
            return super().__call__(x)

    network = ActorCritic(2, {"vision": Counting()}, (8,), (8,), value_leaves=leaves)
    inner = network.init(jax.random.key(0), obs_of())["params"]
    runs.clear()
    (logits, value), sown = network.apply({"params": inner}, obs_of(), mutable=["losses"])
    assert len(runs) == 1 and sum(jax.tree.leaves(sown)) == 1
    # By hand: the heads on what each of them gets.
    image = obs_of()["vision"].reshape(-1).astype(jnp.float32)
    seen = nn.Dense(8).apply({"params": inner["encoders_vision"]["Dense_0"]}, image)
    both = jnp.concatenate([obs_of()["proprio"], seen])
    head = lambda name, width, x: Head((8,), width).apply({"params": inner[name]}, x)
    np.testing.assert_allclose(logits, head("policy", 4, both), rtol=1e-6)
    own = both if leaves is None else seen
    np.testing.assert_allclose(value, head("value", 1, own)[0], rtol=1e-6)


def test_a_leaf_that_cannot_reach_the_heads_is_named():
    with pytest.raises(ValueError, match="'vision'.*uint8.*no encoder"):
        check_encoders(SPEC, {})
    with pytest.raises(ValueError, match=r"\['smell'\].*\['proprio', 'vision'\]"):
        check_encoders(SPEC, {"vision": Pixels(), "smell": Pixels()})
    check_encoders(SPEC, {"vision": Pixels()})


def moved_by(output, network):
    """The leaves of the observation that change an output of the network."""
    params = network.init(jax.random.key(0), obs_of())
    run = jax.jit(lambda obs: network.apply(params, obs)[output])
    other = {k: x + jnp.ones((), x.dtype) for k, x in obs_of().items()}
    return {k for k in SPEC if (run(obs_of()) != run(obs_of() | {k: other[k]})).any()}


@pytest.mark.parametrize("share", [True, False])
def test_actor_and_critic_may_see_different_leaves(share):
    network = ActorCritic(
        2, {"vision": Pixels()}, (8,), (8,), share, ("vision",), ("proprio", "vision")
    )
    assert moved_by(0, network) == {"vision"}
    assert moved_by(1, network) == {"vision", "proprio"}


def test_scales_may_be_the_same_everywhere():
    network = ActorCritic(2, {"vision": Pixels()}, (8,), (8,), state_dependent_std=False)
    params = network.init(jax.random.key(0), obs_of())
    obs = obs_of((3,)) | {"proprio": jax.random.normal(jax.random.key(1), (3, 5))}
    logits, _ = network.apply(params, obs)
    means, scales = jnp.split(logits, 2, axis=-1)
    assert (means[0] != means[1]).any()
    np.testing.assert_array_equal(scales, np.zeros((3, 2)))
    params["params"]["raw_scale"] = jnp.array([1.0, 2.0])
    np.testing.assert_array_equal(network.apply(params, obs)[0][:, 2:], np.full((3, 2), [1.0, 2.0]))


class Deep(nn.Module):
    """A convolution and two layers, that tell in which type they computed."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (2, 2))(x.astype(jnp.float32) / 255))
        x = nn.Dense(8)(x.reshape(*x.shape[:-3], -1))
        self.sow("intermediates", "inside", x)
        return nn.Dense(8)(x)


def test_encoders_may_compute_in_bfloat16_and_keep_their_parameters():
    plain = ActorCritic(2, {"vision": Deep()}, (8,), (8,))
    lower = plain.clone(encoder_dtype=jnp.bfloat16)
    obs = {k: jax.random.uniform(jax.random.key(1), x.shape) for k, x in obs_of((16,)).items()}
    obs["vision"] = (255 * obs["vision"]).astype(jnp.uint8)
    params = plain.init(jax.random.key(0), obs)
    same = jax.tree.map(
        lambda a, b: bool((a == b).all()), params, lower.init(jax.random.key(0), obs)
    )
    assert jax.tree.all(same)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))

    output, seen = lower.apply(params, obs, mutable="intermediates")
    assert jax.tree.leaves(seen)[0].dtype == jnp.bfloat16
    assert all(x.dtype == jnp.float32 for x in output)
    loss = lambda network: lambda p: jnp.square(network.apply(p, obs)[1] - 1).mean()
    expected, found = jax.grad(loss(plain))(params), jax.grad(loss(lower))(params)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert b.dtype == jnp.float32
        assert (a != b).any() or not a.any()
        np.testing.assert_allclose(b, a, atol=0.05 * jnp.abs(a).max())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"policy_leaves": ("sight",)}, r"policy_leaves has \['sight'\].*'proprio', 'vision'"),
        ({"value_leaves": ()}, "value_leaves is empty"),
        ({"distribution": "beta"}, "'beta'"),
        ({"encoders": {}}, "'vision'.*no encoder"),
    ],
)
def test_a_network_that_does_not_suit_the_observations_is_refused(changes, message):
    network = ActorCritic(2, {"vision": Pixels()})
    check_network(SPEC, network)
    with pytest.raises(ValueError, match=message):
        check_network(SPEC, network.clone(**changes))


def test_a_leaf_that_nobody_sees_needs_no_encoder():
    check_network(SPEC, ActorCritic(2, {}, policy_leaves=("proprio",), value_leaves=("proprio",)))


def test_a_network_with_a_core_asks_for_its_memory():
    network = ActorCritic(2, {"vision": Pixels()}, core=GRU(4))
    with pytest.raises(ValueError, match="has a core.*initial_memory"):
        network.init(jax.random.key(0), obs_of())
