"""Build the policy and value function of a network, its parameters and observation moments."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from vnl_ppo import distributions, normalization
from vnl_ppo.env import Observation
from vnl_ppo.observations import flatten
from vnl_ppo.recurrence import initial_memory, remembers
from vnl_ppo.rollout import Decision


@struct.dataclass
class Weights:
    """The learned part of a policy.

    Attributes:
        params: the network's parameters.
        moments: mean and variance by which float leaves are normalised.
    """

    params: Any
    moments: normalization.Moments


def init_params(network: nn.Module, observation_spec: Any, key: jax.Array) -> Any:
    """Draw the network's initial parameters."""
    zeros = {k: jnp.zeros((1, *s.shape), s.dtype) for k, s in flatten(observation_spec).items()}
    memory = initial_memory(network, 1)
    return network.init(key, zeros, memory) if remembers(memory) else network.init(key, zeros)


def apply(
    network: nn.Module,
    weights: Weights,
    obs: Observation,
    memory: Any = (),
    end: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, Any]:
    """Apply a network to raw observations of any nesting.

    Args:
        network: flat obs -> (logits, value); with memory, (flat obs, memory, end) -> (logits,
            value, memory).
        weights: the network's parameters and the moments of observations.
        obs: leaves [..., *leaf shape].
        memory: leaves [..., *memory shape]; `()` for a network without memory.
        end: bool[B, T], for unrolls of a network with memory (see `recurrence.GRU`).

    Returns:
        logits float32[..., 2A], value float32[...], the memory afterwards.
    """
    obs = normalization.normalize(weights.moments, obs)
    if remembers(memory):
        output: Any = network.apply(weights.params, obs, memory, end)
    else:
        output = (*network.apply(weights.params, obs), memory)
    logits, value, memory = output
    return logits, value, memory


def make_policy(
    network: nn.Module, weights: Weights, deterministic: bool = False
) -> tuple[Callable[..., tuple[jax.Array, Decision]], Callable[..., jax.Array]]:
    """Build the policy and the value function, for observations of any leading axes [...].

    Returns:
        act: (obs, key, memory) -> action float32[..., A] in [-1, 1], `Decision`. There is one PRNG
            key, or one for each entry of the first axis. `deterministic` takes the mode.
        value_fn: (obs, memory) -> value float32[...].
        `memory` may be left out for a network without memory.
    """
    distribution = distributions.of(network)

    def act(obs: Observation, key: jax.Array, memory: Any = ()) -> tuple[jax.Array, Decision]:
        logits, value, memory = apply(network, weights, obs, memory)
        if deterministic:
            raw_action = distributions.normal(logits).mode()
        else:
            raw_action = distributions.sample(logits, key)
        log_prob = distribution.log_prob(logits, raw_action)
        return distribution.squash(raw_action), Decision(raw_action, log_prob, value, memory)

    def value_fn(obs: Observation, memory: Any = ()) -> jax.Array:
        return apply(network, weights, obs, memory)[1]

    return act, value_fn
