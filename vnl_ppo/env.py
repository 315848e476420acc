"""Define the interface of an environment: `reset`, `step`, two properties, optional attributes.

It follows Brax and MuJoCo Playground. There is no batch axis: `jax.vmap` adds it.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
from flax import struct

Observation = Mapping[str, "jax.Array | Observation"]
"""A dictionary of arrays, nested or not. `uint8` leaves are images, float leaves are vectors."""
ObservationSpec = Mapping[str, "jax.ShapeDtypeStruct | ObservationSpec"]
"""Shape and dtype of every leaf of an observation, in the same nesting."""


@struct.dataclass
class State:
    """The state of one environment after a reset or a step.

    Attributes:
        data: what the environment needs to take the next step; a pytree.
        obs: the observation of this state.
        reward: float32[], the reward of the step that led here.
        done: float32[], 1 if the episode ended here, else 0.
        metrics: float32[] by name, to be logged.
        info: anything else. `info["truncation"]` (float32[], optional) is 1 if an episode that is
            done was truncated, not terminated, so that its last state still has a value; of several
            such episodes in one unroll only the last gets its own, which a warning tells.
            `info["failed"]` (bool[], optional) is true if the simulation broke down: the state is
            then ignored.
    """

    data: Any
    obs: Observation
    reward: jax.Array
    done: jax.Array
    metrics: dict[str, jax.Array]
    info: dict[str, Any]


class Env(Protocol):
    """An environment: any object with these four members. `reset` and `step` are pure functions.

    Optional attributes:
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
        """Start an episode; `key` is a typed PRNG key."""
        ...

    def step(self, state: State, action: jax.Array) -> State:
        """Advance one control step under `action`, float32[action_size]."""
        ...


def metric_reductions(env: Env) -> Mapping[str, str]:
    """Return how each metric is reduced over the steps of an episode: "mean", "last" or "sum".

    Metrics that the environment's attribute `metric_reductions` does not name are averaged.
    """
    return getattr(env, "metric_reductions", {})


def shown(env: Env) -> Mapping[str, str]:
    """Return the metrics to print on the terminal, with their titles; by default none."""
    return getattr(env, "shown", {})


def renamed_leaves(env: Env) -> Mapping[str, str]:
    """Return old to new names of leaves of `State.data` that an earlier release named otherwise.

    Names are paths with dots: {"torso": "root"} reads the leaf `torso` of a checkpoint, or any leaf
    inside it, as `root`.
    """
    return getattr(env, "renamed_leaves", {})
