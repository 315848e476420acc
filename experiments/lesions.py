"""Take a sense away from a policy: replace what it observes by what tells nothing.

`vision=blank` is a lesion of the leaf `vision`; see `KINDS` for the others. The environment stays
as it is, and so do its episodes: only what the policy gets is changed, before it acts.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vnl_ppo.env import Env, Observation
from vnl_ppo.evaluation import Actor
from vnl_ppo.observations import flatten, name_of
from vnl_ppo.rollout import Decision, select

Replace = Callable[[jax.Array, jax.Array], jax.Array]
"""(leaf [N, ...] of N episodes, key) -> what replaces it."""


def blank(x: jax.Array, key: jax.Array) -> jax.Array:
    """Return zeros: a black image."""
    return jnp.zeros_like(x)


def noise(x: jax.Array, key: jax.Array) -> jax.Array:
    """Draw uniform bytes, or standard normal numbers, anew at each step."""
    if x.dtype == jnp.uint8:
        return jax.random.bits(key, x.shape, jnp.uint8)
    return jax.random.normal(key, x.shape, x.dtype)


def shuffled(x: jax.Array, key: jax.Array) -> jax.Array:
    """Permute pixels, or entries of a vector, anew at each step and in each episode."""
    n = len(x)
    entries = x.reshape(n, -1, x.shape[-1]) if x.ndim > 2 else x.reshape(n, -1)
    permuted = jax.vmap(jax.random.permutation)(jax.random.split(key, n), entries)
    return permuted.reshape(x.shape)


def other(x: jax.Array, key: jax.Array) -> jax.Array:
    """Return what the animal of the next episode observes at that moment.

    Raises:
        ValueError: there is only one episode.
    """
    if len(x) < 2:
        raise ValueError("the lesion `other` needs at least two episodes at once; there is one")
    return jnp.roll(x, 1, axis=0)


FROZEN = "frozen"
"""The lesion that keeps the first observation of each episode."""
KINDS: dict[str, Replace | None] = {
    "blank": blank, FROZEN: None, "shuffled": shuffled, "noise": noise, "other": other,
}  # fmt: skip
"""What can be observed instead, by name."""


@dataclasses.dataclass(frozen=True)
class Lesion:
    """A leaf of the observation, and what the policy gets instead of it."""

    leaf: str
    kind: str

    def __str__(self) -> str:
        return f"{self.leaf}={self.kind}"


def from_text(text: str) -> Lesion:
    """Return the lesion that is written LEAF=KIND.

    Raises:
        ValueError: it is written otherwise, or there is no such kind.
    """
    leaf, _, kind = text.partition("=")
    if not leaf or kind not in KINDS:
        raise ValueError(
            f"--lesion is {text!r}; write LEAF=KIND, such as vision=blank, where the kind is one "
            f"of {', '.join(KINDS)}"
        )
    return Lesion(leaf, kind)


def lesioned(actor: Actor, lesion: Lesion, env: Env) -> Actor:
    """Return an actor that gets something else instead of a leaf of the observation.

    Raises:
        ValueError: the observation has no such leaf.
    """
    leaves = flatten(env.observation_spec)
    if lesion.leaf not in leaves:
        raise ValueError(
            f"--lesion is {str(lesion)!r}, but there is no leaf {lesion.leaf!r}; the observation "
            f"has {', '.join(leaves)}"
        )
    replace = KINDS[lesion.kind]

    def with_leaf(obs: Observation, x: jax.Array) -> Observation:
        here = lambda path, old: x if name_of(path) == lesion.leaf else old
        return jax.tree_util.tree_map_with_path(here, obs)

    def act(obs: Observation, key: jax.Array, memory: Any) -> tuple[jax.Array, Decision]:
        own, begun, first = memory
        x = flatten(obs)[lesion.leaf]
        if replace is None:
            x = first = select(begun, first, x)
        else:
            x = replace(x, jax.random.fold_in(key, 1))
        action, decision = actor.act(with_leaf(obs, x), key, own)
        after = (decision.memory, jnp.ones_like(begun), first)
        return action, dataclasses.replace(decision, memory=after)

    def memory(n: int) -> Any:
        spec = leaves[lesion.leaf]
        kept = jnp.zeros((n, *spec.shape), spec.dtype) if replace is None else ()
        return actor.memory(n), jnp.zeros(n, bool), kept

    return Actor(act, memory)
