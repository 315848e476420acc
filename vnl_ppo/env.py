"""What PPO asks of an environment: two pure functions and two sizes.

The shape is that of Brax and of MuJoCo Playground, whose environments serve as they are. There is
no batch axis: `jax.vmap` makes the batch.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
from flax import struct

Observation = Mapping[str, jax.Array]
"""One array per sense. `uint8` leaves are images, float leaves are vectors."""


@struct.dataclass
class State:
    """One environment after a reset or a step.

    Attributes:
        data: whatever the environment needs to go on; a pytree.
        obs: the observation of this state.
        reward: float32[], earned by the step that led here.
        done: float32[], 1 where the episode ended here, else 0.
        metrics: float32[] by name, to be logged.
        info: anything else. `info["truncation"]` (float32[], optional) is 1 where an episode that
            is done was cut short rather than failed, so that its last state still has a value.
            Each environment may do so at most once in an unroll. `info["failed"]` (bool[],
            optional) is true where the simulation broke down, so that the state is none.
    """

    data: Any
    obs: Observation
    reward: jax.Array
    done: jax.Array
    metrics: dict[str, jax.Array]
    info: dict[str, Any]


class Env(Protocol):
    """A world to act in. Both functions are pure and can be jitted and vmapped."""

    @property
    def observation_spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of every leaf of an observation."""
        ...

    @property
    def action_size(self) -> int:
        """Number of entries of an action, each in [-1, 1]."""
        ...

    def reset(self, key: jax.Array) -> Any:
        """Begin an episode, drawn from a PRNG key. Returns a `State`."""
        ...

    def step(self, state: Any, action: jax.Array) -> Any:
        """Advance one control step under `action`, float32[action_size]. Returns a `State`."""
        ...


def metric_reductions(env: Env) -> Mapping[str, str]:
    """How each metric of an episode is summed up: "mean" over its steps, "last" or "sum".

    An environment may say so in `metric_reductions`; a metric that it does not name is averaged.
    """
    return getattr(env, "metric_reductions", {})
