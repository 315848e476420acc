import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from vnl_ppo.networks import ActorCritic, check_encoders

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


def test_a_leaf_that_cannot_reach_the_heads_is_named():
    with pytest.raises(ValueError, match="'vision'.*uint8.*no encoder"):
        check_encoders(SPEC, {})
    with pytest.raises(ValueError, match=r"\['smell'\].*\['proprio', 'vision'\]"):
        check_encoders(SPEC, {"vision": Pixels(), "smell": Pixels()})
    check_encoders(SPEC, {"vision": Pixels()})
