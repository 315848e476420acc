"""Lesion a policy: change what it observes, or units of its network, while it acts.

The environment stays as it is, and so do its episodes.

- `--lesion vision=blank` replaces what the policy gets as the leaf `vision`; see `SENSES`.
- `--silence "encoders_vision/Conv_1: 3,7"` sets units of a module to 0 in the forward pass,
  `--clamp "policy/Dense_0: 3 = 1.5"` to a number, `--scale "policy/Dense_0: 3-9 = 0.5"` multiplies
  them. `: *` stands for all units. A unit is an entry of the last axis of the module's output: of
  a convolution, a channel.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.tree_util import Partial

from experiments.names import known_names
from vnl_ppo.env import Observation
from vnl_ppo.evaluation import Actor
from vnl_ppo.loading import Policy
from vnl_ppo.observations import flatten, name_of
from vnl_ppo.rollout import Decision, select


class Lesion(Protocol):
    """A change to a policy."""

    def of(self, actor: Actor, policy: Policy) -> Actor:
        """Return an actor of the policy with the lesion.

        Args:
            actor: of the intact policy.
            policy: the policy.

        Raises:
            ValueError: the policy has nothing of that name.
        """
        ...


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
SENSES: dict[str, Replace | None] = {
    "blank": blank, FROZEN: None, "shuffled": shuffled, "noise": noise, "other": other,
}  # fmt: skip
"""Replacements of an observation, by name."""


@dataclasses.dataclass(frozen=True)
class SenseLesion(Lesion):
    """A leaf of the observation, and the name in `SENSES` of what the policy gets instead."""

    leaf: str
    kind: str

    def __str__(self) -> str:
        return f"{self.leaf}={self.kind}"

    def of(self, actor: Actor, policy: Policy) -> Actor:
        """See `Lesion`; its memory is the actor's, and what the lesion remembers."""
        leaves = flatten(policy.env.observation_spec)
        if self.leaf not in leaves:
            raise ValueError(
                f"--lesion is {str(self)!r}, but there is no leaf {self.leaf!r}; the observation "
                f"has {', '.join(leaves)}"
            )
        replace = SENSES[self.kind]

        def with_leaf(obs: Observation, x: jax.Array) -> Observation:
            here = lambda path, old: x if name_of(path) == self.leaf else old
            return jax.tree_util.tree_map_with_path(here, obs)

        def act(
            actor: Actor, obs: Observation, key: jax.Array, memory: Any
        ) -> tuple[jax.Array, Decision]:
            own, begun, first = memory
            x = flatten(obs)[self.leaf]
            if replace is None:
                x = first = select(begun, first, x)
            else:
                x = replace(x, jax.random.fold_in(key, 1))
            action, decision = actor.act(with_leaf(obs, x), key, own)
            after = (decision.memory, jnp.ones_like(begun), first)
            return action, dataclasses.replace(decision, memory=after)

        def memory(n: int) -> Any:
            spec = leaves[self.leaf]
            kept = jnp.zeros((n, *spec.shape), spec.dtype) if replace is None else ()
            return actor.memory(n), jnp.zeros(n, bool), kept

        return Actor(Partial(act, actor), Partial(memory))


@dataclasses.dataclass(frozen=True)
class UnitLesion(Lesion):
    """Units of a module, whose output x becomes `gain * x + value` there.

    `units` is None for all.
    """

    module: str
    units: tuple[int, ...] | None
    gain: float
    value: float
    text: str

    def __str__(self) -> str:
        return self.text

    def of(self, actor: Actor, policy: Policy) -> Actor:
        """See `Lesion`; its memory is the actor's."""
        known = policy.modules
        if self.module not in known:
            raise ValueError(
                f"{self.text!r} names no module of this policy; {known_names(self.module, known)}"
            )
        width = known[self.module].shape[-1]
        if self.units is not None and max(self.units) >= width:
            raise ValueError(
                f"{self.text!r} names unit {max(self.units)}; {self.module} has 0 to {width - 1}"
            )

        def act(
            actor: Actor, obs: Observation, key: jax.Array, memory: Any
        ) -> tuple[jax.Array, Decision]:
            with nn.intercept_methods(self.intercept):
                return actor.act(obs, key, memory)

        return Actor(Partial(act, actor), actor.memory)

    def intercept(self, function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        """Change the output of the module, as `flax.linen.intercept_methods` calls it."""
        output = function(*args, **kwargs)
        here = "/".join(context.module.path) == self.module
        if not here or context.method_name != "__call__":
            return output
        chosen = slice(None) if self.units is None else jnp.array(self.units)

        def changed(x: jax.Array) -> jax.Array:
            return x.at[..., chosen].set(self.gain * x[..., chosen] + self.value)

        if isinstance(context.module, nn.RNNCellBase):
            # Its units are both what it remembers and what it passes on.
            return jax.tree.map(changed, output)
        # Of several arrays, such as a recurrent core's, the first is what is passed on.
        first, *rest = output if isinstance(output, tuple) else (output,)
        return (changed(first), *rest) if isinstance(output, tuple) else changed(first)


def sense_lesion(text: str) -> SenseLesion:
    """Return the lesion that is written LEAF=KIND.

    Raises:
        ValueError: it is written otherwise, or there is no such kind.
    """
    leaf, _, kind = text.partition("=")
    if not leaf or kind not in SENSES:
        raise ValueError(
            f"--lesion is {text!r}; write LEAF=KIND, such as vision=blank, where the kind is one "
            f"of {', '.join(SENSES)}"
        )
    return SenseLesion(leaf, kind)


def unit_lesion(how: str, text: str) -> UnitLesion:
    """Return the lesion that is written `MODULE: UNITS`, with `= NUMBER` but for silencing.

    Args:
        how: silence, clamp or scale.
        text: of the option.

    Raises:
        ValueError: it is written otherwise.
    """
    number = "" if how == "silence" else r"\s*=\s*(?P<number>[-+.\deE]+)"
    written = re.fullmatch(rf"\s*(?P<module>[^:=\s]+)\s*:(?P<units>[^=]+){number}", text)
    form, example = "MODULE: UNITS", "encoders_vision/Conv_1: 3,7-9"
    if number:
        form, example = f"{form} = NUMBER", f"{example} = 0.5"
    mend = f"--{how} is {text!r}; write {form}, such as {example!r}"
    if written is None:
        raise ValueError(mend)
    try:
        value = float(written["number"]) if number else 0.0
    except ValueError:
        raise ValueError(f"{mend}; {written['number']!r} is no number") from None
    units = None if written["units"].strip() == "*" else _units(written["units"], mend)
    gain, value = (value, 0.0) if how == "scale" else (0.0, value)
    return UnitLesion(written["module"], units, gain, value, f"{how} {text}")


def _units(text: str, mend: str) -> tuple[int, ...]:
    """Return the numbers that are written as 3,7-9."""
    units: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if ends is None:
            raise ValueError(f"{mend}; {part.strip()!r} is no unit")
        units += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    if not units:
        raise ValueError(f"{mend}; no unit is named")
    return tuple(units)


def lesions_of(
    lesion: Sequence[str], silence: Sequence[str], clamp: Sequence[str], scale: Sequence[str]
) -> list[Lesion]:
    """Return the lesions of the options of that name; see their functions for errors."""
    units = {"silence": silence, "clamp": clamp, "scale": scale}
    found: list[Lesion] = [sense_lesion(text) for text in lesion]
    return found + [unit_lesion(how, text) for how, texts in units.items() for text in texts]
