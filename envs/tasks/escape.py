"""Define the task to get out of the middle of an arena upright: `dm_control`'s `Escape`."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from envs.interfaces import Arena, Now, Outcome, Task
from envs.layouts import FAR


@dataclasses.dataclass(frozen=True)
class Escape(Task):
    """Reward a walker's distance from the middle of the arena while it is upright.

    The reward of a step is min(1, d / radius) * min(1, 1 - (c - u) / (1 + c)), where d is the
    distance of the walker's head from the middle of the arena, c the cosine of `upright_angle`, and
    u the least of the z components of the z axes of the bodies that have to be upright: 1 for a
    walker that stands, -1 upside down. Which body counts as head and which have to be upright is
    told by the walker (`Walker.head` and `Walker.upright`), by default the root. dm_control takes
    the root of its humanoid, and the head, torso and pelvis of its rodent. Source: dm_control's
    `locomotion/tasks/escape.py`.

    No state ends an episode, as in dm_control. An episode is a success while the head is
    `radius` or more from the middle.

    `ahead` is float32[3], the vector from the root to the middle of the arena in the axes of the
    root body, metres, dm_control's observable `origin`. It is shortened to 5 m if it is longer.

    Metrics: `escape_reward` and `upright_reward`, the two factors, and `distance`, of the head from
    the middle at the end of the episode, m.
    """

    radius: float = 6.0
    """Distance from the middle at which the reward is the highest, metres; half the side of
    dm_control's bowl."""
    upright_angle: float = 30.0
    """Angle to the vertical within which a body counts as upright, degrees."""
    control: float = 0.0
    """Weight of the sum of squared actions, which is subtracted; 0 as in dm_control."""

    reductions = {"distance": "last"}
    shown = {"distance": "distance from the middle, m"}

    def check(self) -> None:
        """Raise a ValueError if a setting is invalid."""
        if not 0 < self.radius < math.inf:
            raise ValueError(f"task.radius is {self.radius} m; it has to be positive and finite")
        if not 0 <= self.upright_angle < 180:
            raise ValueError(
                f"task.upright_angle is {self.upright_angle} degrees; it has to be from 0 to 180"
            )
        if not math.isfinite(self.control):
            raise ValueError(f"task.control is {self.control}; it has to be finite")

    @property
    def ahead_names(self) -> Sequence[str]:
        """Names of the entries of `ahead`."""
        return [f"middle {axis}" for axis in "xyz"]

    def ahead(self, now: Now) -> jax.Array:
        """Return float32[3]; see the class."""
        vector = (now.rotation * (now.centre - now.root)[:, None]).sum(0)
        length = jnp.linalg.norm(vector)
        return vector * jnp.minimum(1.0, FAR / jnp.maximum(length, FAR))

    def judge(self, now: Now, action: jax.Array, arena: Arena, dt: float) -> Outcome:
        """Return the reward; see the class."""
        distance = jnp.linalg.norm(now.head - now.centre)
        escape = jnp.minimum(1.0, distance / self.radius)
        cosine = math.cos(math.radians(self.upright_angle))
        upright = jnp.minimum(1.0, 1 - (cosine - now.upright.min()) / (1 + cosine))
        control = -self.control * jnp.square(action).sum()
        progress = arena.progress(now.arena, now.root)
        return Outcome(
            reward=escape * upright + control,
            truncated=progress.arrived,
            success=(distance >= self.radius).astype(jnp.float32),
            passed=progress.passed,
            metrics={
                "escape_reward": escape,
                "upright_reward": upright,
                "distance": distance,
                **progress.metrics,
            },
        )
