"""Define the memory of a policy: a recurrent core between the encoders and heads of its network.

A network with a core takes its memory and returns the next one; without a core the memory is `()`.
The rollout carries it with each environment and resets it to zeros when an episode ends.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class GRU(nn.Module):
    """A gated recurrent unit (Cho et al. 2014, arXiv:1406.1078).

    Attributes:
        features: width of the memory and of the output.
    """

    features: int = 128

    @nn.nowrap
    def initial_memory(self, *batch: int) -> jax.Array:
        """Return the memory at the start of an episode, zeros float32[*batch, features]."""
        return jnp.zeros((*batch, self.features))

    @nn.compact
    def __call__(
        self, x: jax.Array, memory: jax.Array, end: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Take one step, or all steps of an unroll.

        Args:
            x: float32[..., F] for one step; float32[B, T, F] for T of them.
            memory: float32[..., features], or float32[B, features] before the first of T steps.
            end: bool[B, T] for an unroll, true if the memory is reset after the step, which ended
                its episode; None for one step.

        Returns:
            the output, float32[..., features] or float32[B, T, features]; the memory afterwards.
        """
        cell = nn.GRUCell(self.features)
        if end is None:
            memory, output = cell(memory, x)
            return output, memory

        def step(cell, memory, x_and_end):
            x, end = x_and_end
            memory, output = cell(memory, x)
            return jnp.where(end[..., None], 0, memory), output

        over_time = nn.scan(
            step, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1
        )
        memory, output = over_time(cell, memory, (x, end))
        return output, memory


def initial_memory(network: nn.Module, num_envs: int) -> Any:
    """Return a network's memory at the start of episodes, leaves [num_envs, ...] or `()`."""
    begin = getattr(network, "initial_memory", None)
    return begin(num_envs) if begin else ()


def remembers(memory: Any) -> bool:
    """Return whether a memory has any leaf, so that its policy is recurrent."""
    return bool(jax.tree.leaves(memory))
