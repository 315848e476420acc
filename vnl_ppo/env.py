"""What PPO asks of an environment: two pure functions, two sizes, and a few optional attributes.

The shape is that of Brax and of MuJoCo Playground. There is no batch axis: `jax.vmap` makes it.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
from flax import struct

Observation = Mapping[str, "jax.Array | Observation"]
"""Arrays by name, nested or not. `uint8` leaves are images, float leaves are vectors."""
ObservationSpec = Mapping[str, "jax.ShapeDtypeStruct | ObservationSpec"]
"""Shape and dtype of every leaf of an observation, in the same nesting."""


@struct.dataclass
class State:
    """One environment after a reset or a step.

    Attributes:
        data: what the environment needs to take the next step; a pytree.
        obs: the observation of this state.
        reward: float32[], earned by the step that led here.
        done: float32[], 1 where the episode ended here, else 0.
        metrics: float32[] by name, to be logged.
        info: anything else. `info["truncation"]` (float32[], optional) is 1 where an episode that
            is done was cut short rather than failed, so that its last state still has a value; an
            environment may cut short one episode in an unroll. `info["failed"]` (bool[], optional)
            is true where the simulation broke down: the state is then ignored.
    """

    data: Any
    obs: Observation
    reward: jax.Array
    done: jax.Array
    metrics: dict[str, jax.Array]
    info: dict[str, Any]


class Env(Protocol):
    """A world to act in; any object with these four serves. `reset` and `step` are pure.

    An environment may have these attributes besides:
        metric_reductions: Mapping[str, str], see `metric_reductions`.
        shown: Mapping[str, str], see `shown`.
        renamed_leaves: Mapping[str, str], see `renamed_leaves`.
    """

    @property
    def observation_spec(self) -> ObservationSpec:
        """Shape and dtype of every leaf of an observation."""
        ...

    @property
    def action_size(self) -> int:
        """Number of entries of an action, each in [-1, 1]."""
        ...

    def reset(self, key: jax.Array) -> State:
        """Begin an episode, drawn from a typed PRNG key."""
        ...

    def step(self, state: State, action: jax.Array) -> State:
        """Advance one control step under `action`, float32[action_size]."""
        ...


def metric_reductions(env: Env) -> Mapping[str, str]:
    """Return how each metric is summed up over an episode: "mean" over its steps, "last" or "sum".

    Those that the environment's `metric_reductions` does not name are averaged.
    """
    return getattr(env, "metric_reductions", {})


def shown(env: Env) -> Mapping[str, str]:
    """Return the metrics worth a line on the terminal, with their titles; by default none."""
    return getattr(env, "shown", {})


def renamed_leaves(env: Env) -> Mapping[str, str]:
    """Return leaves of `State.data` that had another name in an earlier release, old name to new.

    Names are paths with dots: {"torso": "root"} reads what a checkpoint calls `torso`, or anything
    inside it, as `root`.
    """
    return getattr(env, "renamed_leaves", {})
