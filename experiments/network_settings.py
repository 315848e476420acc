"""Build the network from its settings on the command line."""

import dataclasses
from typing import Literal

import jax.numpy as jnp

from encoders import make_encoder
from vnl_ppo.env import Env
from vnl_ppo.networks import ActorCritic, check_network
from vnl_ppo.observations import flatten
from vnl_ppo.recurrence import GRU


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The heads on top of the encoders."""

    policy_hidden: tuple[int, ...] = (128, 128)
    """Widths of the policy's hidden layers."""
    value_hidden: tuple[int, ...] = (128, 128)
    """Widths of the value function's hidden layers."""
    share_encoders: bool = True
    """Whether policy and value see the same features, or each its own."""
    memory: int = 0
    """Units of a recurrent core (GRU) between encoders and heads: what has left the field of view
    can be remembered. 0 for none."""
    policy_leaves: tuple[str, ...] | None = None
    """Leaves of the observation that the policy has, such as vision and proprio; by default all but
    `ahead`."""
    value_leaves: tuple[str, ...] | None = None
    """Leaves that the value function has, by default as above: a critic may see what the actor does
    not."""
    state_dependent_std: bool = True
    """Whether the scales of actions depend on the state, or are parameters of their own."""
    distribution: Literal["tanh_normal", "clipped_normal"] = "tanh_normal"
    """Of actions: a normal distribution squashed by tanh, or cut off at -1 and 1."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """In which encoders compute. Parameters are float32 in any case."""

    def __post_init__(self) -> None:
        for name in ("policy_hidden", "value_hidden"):
            if any(width < 1 for width in getattr(self, name)):
                raise ValueError(
                    f"network.{name} is {getattr(self, name)}; widths have to be at least 1"
                )
        if self.memory < 0:
            raise ValueError(f"network.memory is {self.memory}; it has to be 0 or more")


def make_network(
    env: Env, config: NetworkConfig, encoder: str, features: int | None
) -> ActorCritic:
    """A network for an environment, with one encoder for every leaf that is an image.

    Args:
        env: where it acts.
        config: its heads.
        encoder: a registered name or `package.module:Class`.
        features: that an encoder makes of an image; None for its own default.

    Raises:
        ValueError: a setting cannot be; one sentence says which and why.
    """
    if features is not None and features < 1:
        raise ValueError(f"features is {features}; it has to be at least 1")
    width = {} if features is None else {"features": features}
    leaves = flatten(env.observation_spec)
    # What is told, but has to be seen, is nobody's unless it is named.
    for name in (*(config.policy_leaves or ()), *(config.value_leaves or ())):
        if name == "ahead" and name not in leaves:
            raise ValueError(
                "the network is given the leaf ahead, which is not observed; add --ahead"
            )
    usual = getattr(env, "policy_leaves", None)
    usual = None if usual is None or set(usual) == set(leaves) else tuple(usual)
    policy_leaves, value_leaves = (
        usual if named is None else named for named in (config.policy_leaves, config.value_leaves)
    )
    images = [name for name, leaf in leaves.items() if leaf.dtype == jnp.uint8]
    network = ActorCritic(
        env.action_size,
        {name: make_encoder(encoder, **width) for name in images},
        config.policy_hidden,
        config.value_hidden,
        config.share_encoders,
        policy_leaves,
        value_leaves,
        GRU(config.memory) if config.memory else None,
        config.state_dependent_std,
        config.distribution,
        jnp.dtype(config.encoder_dtype),
    )
    check_network(env.observation_spec, network)
    return network
