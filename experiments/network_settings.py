"""Define the settings of the network, and build it from them."""

import dataclasses
from typing import Literal

import jax.numpy as jnp

from encoders import make_encoders
from vnl_ppo.env import Env
from vnl_ppo.networks import ActorCritic, check_network
from vnl_ppo.observations import flatten
from vnl_ppo.recurrence import GRU


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Settings of the network besides its encoders."""

    policy_hidden: tuple[int, ...] = (128, 128)
    """Widths of the policy's hidden layers."""
    value_hidden: tuple[int, ...] = (128, 128)
    """Widths of the value function's hidden layers."""
    share_encoders: bool = True
    """Whether policy and value function share their encoders; else each has its own."""
    memory: int = 0
    """Units of a recurrent core (GRU) between encoders and heads, by which the policy can remember
    what has left the field of view; 0 for none."""
    policy_leaves: tuple[str, ...] | None = None
    """Leaves of the observation that the policy gets, such as vision and proprio; None for all but
    ahead."""
    value_leaves: tuple[str, ...] | None = None
    """Leaves that the value function gets, which may differ from the policy's; None for all but
    ahead."""
    predict_leaves: tuple[str, ...] = ()
    """Leaves, such as ahead, that the policy's features have to predict; empty for none. The policy
    may not get them, unless predict_horizon is set."""
    predict_weight: float = 0.5
    """Weight of the prediction's mean squared error in the loss; leaves are normalised."""
    predict_horizon: int = 0
    """Number of steps by which predict_leaves are predicted in advance, at most unroll_length."""
    freeze: tuple[str, ...] = ()
    """Leaves whose encoders are not trained, such as vision; empty for none."""
    state_dependent_std: bool = True
    """Whether the scales of actions depend on the observation; else they are free parameters."""
    distribution: Literal["tanh_normal", "clipped_normal"] = "tanh_normal"
    """Distribution of actions: a normal distribution squashed by tanh, or clipped to -1 and 1."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype in which encoders compute; their parameters are float32 in any case."""

    def __post_init__(self) -> None:
        for name in ("policy_hidden", "value_hidden"):
            if any(width < 1 for width in getattr(self, name)):
                raise ValueError(
                    f"network.{name} is {getattr(self, name)}; widths have to be at least 1"
                )
        for name in ("memory", "predict_weight", "predict_horizon"):
            if getattr(self, name) < 0:
                raise ValueError(f"network.{name} is {getattr(self, name)}; it has to be 0 or more")


def make_network(
    env: Env, config: NetworkConfig, encoder: str, features: int | None, frames: int = 1
) -> ActorCritic:
    """Build a network for an environment, with an encoder for every leaf that is an image.

    Args:
        env: the environment.
        config: settings of the network besides its encoders.
        encoder: a spec, see `encoders.specification`; for an environment without images the name of
            an encoder, or none, has no effect.
        features: width of the encoders' output; None for their own defaults.
        frames: number of frames that are stacked along the channels of images.

    Raises:
        ValueError: a setting is invalid; one sentence says which and why.
    """
    if features is not None and features < 1:
        raise ValueError(f"features is {features}; it has to be at least 1")
    width = {} if features is None else {"features": features}
    leaves = flatten(env.observation_spec)
    named = (config.policy_leaves or (), config.value_leaves or (), config.predict_leaves)
    if "ahead" in {name for group in named for name in group} - set(leaves):
        raise ValueError("the network's leaves name ahead, which is not observed; add --ahead")
    # By default neither policy nor value function gets `ahead`.
    usual = getattr(env, "policy_leaves", None)
    usual = None if usual is None or set(usual) == set(leaves) else tuple(usual)
    policy_leaves, value_leaves = (
        usual if own is None else own for own in (config.policy_leaves, config.value_leaves)
    )
    network = ActorCritic(
        env.action_size,
        make_encoders(encoder, leaves, frames, **width),
        config.policy_hidden,
        config.value_hidden,
        config.share_encoders,
        policy_leaves,
        value_leaves,
        GRU(config.memory) if config.memory else None,
        config.state_dependent_std,
        config.distribution,
        jnp.dtype(config.encoder_dtype),
        config.predict_leaves,
        config.predict_weight,
        config.predict_horizon,
        config.freeze,
    )
    check_network(env.observation_spec, network)
    return network
