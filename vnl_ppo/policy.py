"""What acts: a network under its parameters and statistics."""

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
    """All that acting needs.

    Attributes:
        params: the network's parameters.
        moments: the statistics by which float leaves are normalised.
    """

    params: Any
    moments: normalization.Moments


def init_params(network: nn.Module, observation_spec: Any, key: jax.Array) -> Any:
    """The network's initial parameters, drawn from `key`."""
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
    """Run a network on raw observations, of any nesting.

    Args:
        network: flat obs -> (logits, value); or, if it remembers, (flat obs, memory, end) ->
            (logits, value, memory).
        weights: its parameters, and the statistics of observations.
        obs: leaves [..., *leaf shape].
        memory: leaves [..., *memory shape]; `()` for a network without.
        end: bool[B, T], for the unrolls of a network with memory (see `recurrence.GRU`).

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


def make_policy(network: nn.Module, weights: Weights, deterministic: bool = False):
    """The two things a policy does with observations of any leading axes [...].

    Both take the memory so far as their last argument; a network without one needs none. A key is
    one for all, or one for each entry of the first axis.

    Returns:
        act: (obs, key, memory) -> action float32[..., A] in [-1, 1], `Decision`.
        judge: (obs, memory) -> value float32[...].
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

    def judge(obs: Observation, memory: Any = ()) -> jax.Array:
        return apply(network, weights, obs, memory)[1]

    return act, judge
