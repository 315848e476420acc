"""Teach a policy by another one, which may observe more than it does."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn

from vnl_ppo import distributions
from vnl_ppo.observations import flatten
from vnl_ppo.policy import Weights, apply
from vnl_ppo.recurrence import initial_memory, remembers


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained policy that another one learns to act like.

    Attributes:
        network: its network.
        weights: its parameters and the moments of its observations.
        spec: shape and dtype of each leaf that it observes, by name.
    """

    network: nn.Module
    weights: Weights
    spec: Mapping[str, Any]

    def distance(self, obs: Any, logits: jax.Array) -> jax.Array:
        """Return how far a policy is from the teacher, a mean over observations, float32[].

        The distance is KL(teacher || policy), in nats, of the raw actions: squashing changes
        neither. The policy acts and the teacher says what it would have done, as in DAgger.

        Source: Ross, Gordon and Bagnell 2011, arXiv:1011.0686; Rusu et al. 2015, arXiv:1511.06295.

        Args:
            obs: the observations that the policy met, leaves [..., *leaf shape].
            logits: the policy's, float32[..., 2A].
        """
        leaves = flatten(obs)
        taught, _, _ = apply(self.network, self.weights, {k: leaves[k] for k in self.spec})
        target = distributions.normal(jax.lax.stop_gradient(taught))
        return target.kl_divergence(distributions.normal(logits)).mean()


def make_teacher(network: nn.Module, weights: Weights, spec: Any) -> Teacher:
    """Return a teacher that is given the leaves that its network uses.

    Args:
        network: obs -> (logits, value).
        weights: the trained ones.
        spec: shape and dtype of an observation's leaves, in the teacher's environment.
    """
    leaves = flatten(spec)
    heads = [getattr(network, f"{head}_leaves", None) for head in ("policy", "value")]
    used = {k for named in heads for k in (leaves if named is None else named)}
    return Teacher(network, weights, {k: leaves[k] for k in sorted(used)})


def check_teacher(teacher: Teacher, network: nn.Module, observation_spec: Any, name: str) -> None:
    """Raise a ValueError, which names the teacher, unless it can teach a network.

    Args:
        teacher: the teacher.
        network: the network of the policy that learns.
        observation_spec: shape and dtype of an observation's leaves, in its environment.
        name: what the teacher is called in the message.
    """
    if remembers(initial_memory(teacher.network, 1)):
        raise ValueError(f"{name} has a memory, and a teacher may have none; name another")
    theirs, ours = (getattr(x, "action_size", None) for x in (teacher.network, network))
    if theirs != ours:
        raise ValueError(f"{name} has {theirs} actions and this environment {ours}; they differ")
    theirs, ours = (distributions.of(x) for x in (teacher.network, network))
    if theirs is not ours:
        raise ValueError(f"{name} has another --network.distribution; use the same for both")
    leaves = flatten(observation_spec)
    for leaf, spec in teacher.spec.items():
        if leaf not in leaves:
            hint = "; add --ahead" if leaf == "ahead" else ""
            raise ValueError(f"{name} observes {leaf!r}, which is not observed here{hint}")
        if leaves[leaf].shape != spec.shape or leaves[leaf].dtype != spec.dtype:
            raise ValueError(
                f"{name} observes {leaf!r} as {spec.dtype}{list(spec.shape)}; here it is "
                f"{leaves[leaf].dtype}{list(leaves[leaf].shape)}"
            )
