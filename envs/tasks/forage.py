"""Define the task to find all targets of a maze: `dm_control`'s `ManyGoalsMaze`."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from dm_control import mjcf
from flax import struct

from envs.interfaces import Arena, Boxes, Now, Outcome, Places, Task, check_least_upright
from envs.layouts import FAR

RGBA = (0.0, 0.55, 0.0, 1.0)
"""The targets' colour: the mean of the two of dm_control's."""


@struct.dataclass
class Food:
    """The targets of an episode; G is `Forage.max_targets`.

    Attributes:
        position: float32[G, 3], their middles, metres.
        left: bool[G], whether a target is there and was not touched yet.
        found: int32[], number of targets that were touched.
    """

    position: jax.Array
    left: jax.Array
    found: jax.Array


@dataclasses.dataclass(frozen=True)
class Forage(Task):
    """Reward each target once, when any part of the walker touches it; it then disappears.

    As in dm_control, a target is a ball above each of the places that the arena has for them, which
    nothing collides with, and an episode is truncated once all are found. The reward of a step is
    `target_reward` times the number of targets that it found, and `alive`. Source: `ManyGoalsMaze`
    in dm_control's `locomotion/tasks/random_goal_maze.py`, and its `props/target_sphere.py`.

    dm_control looks for touches after each physics step, here they are looked for after each
    control step. Meshes touch where the boxes around them do. dm_control terminates an episode by
    default if a part of the walker other than a foot touches the ground; `only_feet` does it, and
    counts touches of walls too.

    `ahead` is float32[3], the vector from the root to the middle of the nearest target that is
    left, in the axes of the root body, metres. It is shortened to 5 m if it is longer, and 0 once
    all were found.

    Metrics: `targets_found`, at the end of the episode, `targets_reward`, and those of the arena.
    An episode is a success once all targets were found.
    """

    target_reward: float = 1.0
    """Reward of a target; dm_control takes 50 for its humanoid."""
    alive: float = 0.0
    """Reward of each step."""
    target_radius: float = 0.6
    """Radius of the targets, metres."""
    target_height: float = 1.0
    """Height of their middles above the ground, metres."""
    max_targets: int = 12
    """Number of targets that the model has; as many places in the arena get one."""
    least_upright: float | None = None
    """Least z component of the z axes of the bodies that the walker names in `upright`, by default
    its root: 1 is upright, -1 upside down; below, the episode is terminated. 0 is what dm_control
    does with its ant (an aliveness_threshold of -0.5), None with its other walkers. Not for the CMU
    humanoid, whose root's z axis is level when it stands."""
    only_feet: bool = False
    """Whether the episode is terminated when anything but the walker's feet touches something."""

    reductions = {"targets_found": "last"}
    shown = {"targets_found": "targets found"}
    touches = True

    def check(self) -> None:
        """Raise a ValueError if a setting is invalid."""
        if not 0 < self.target_radius < math.inf:
            raise ValueError(
                f"task.target_radius is {self.target_radius} m; it has to be positive and finite"
            )
        for name in ("target_reward", "alive", "target_height"):
            if not math.isfinite(value := getattr(self, name)):
                raise ValueError(f"task.{name} is {value}; it has to be finite")
        check_least_upright(self.least_upright)
        if self.max_targets < 1:
            raise ValueError(f"task.max_targets is {self.max_targets}; it has to be 1 or more")

    @property
    def contacts(self) -> bool:
        """Whether `Now.fallen` is read."""
        return self.only_feet

    def visible_geoms(self, root: mjcf.RootElement) -> Sequence[Mapping[str, Any]]:
        """Return G balls."""
        size = [self.target_radius]
        ball = {"type": "sphere", "pos": [0, 0, self.target_height], "size": size, "rgba": RGBA}
        return [ball] * self.max_targets

    def draw(self, key: jax.Array) -> Food:
        """Return targets that have no place yet."""
        number = self.max_targets
        nowhere = jnp.zeros((number, 3))
        return Food(nowhere, jnp.zeros(number, bool), jnp.zeros((), jnp.int32))

    def place(self, state: Food, places: Places | None, key: jax.Array) -> Food:
        """Put a target above each of the arena's places; see `Task.place`."""
        if places is None:
            raise ValueError(
                "task forage puts targets at places of the arena, but this arena has none; use a "
                "maze, or go_to_target"
            )
        missing = self.max_targets - len(places.there)
        if missing < 0:
            raise ValueError(
                f"task.max_targets is {self.max_targets}, but the arena has up to "
                f"{len(places.there)} places for targets; set it to that or more"
            )
        position = places.position + jnp.array([0.0, 0.0, self.target_height])
        position = jnp.pad(position, [(0, missing), (0, 0)])
        return Food(position, jnp.pad(places.there, (0, missing)), state.found)

    def visible(self, state: Food) -> Boxes:
        """Return the balls that are left; others have size 0."""
        radius = jnp.where(state.left, self.target_radius, 0.0)
        return Boxes(state.position, jnp.pad(radius[:, None], [(0, 0), (0, 2)]))

    @property
    def ahead_names(self) -> Sequence[str]:
        """Names of the entries of `ahead`."""
        return [f"nearest target {axis}" for axis in "xyz"]

    def ahead(self, now: Now) -> jax.Array:
        """Return float32[3]; see the class."""
        food, away = now.task, now.task.position - now.root
        distance = jnp.where(food.left, jnp.linalg.norm(away, axis=-1), jnp.inf)
        nearest = distance.argmin()
        vector = (now.rotation * away[nearest][:, None]).sum(0)
        vector *= jnp.minimum(1.0, FAR / jnp.maximum(distance[nearest], FAR))
        return jnp.where(food.left.any(), vector, 0.0)

    def judge(self, now: Now, action: jax.Array, arena: Arena, dt: float) -> Outcome:
        """Return the reward for targets that are touched for the first time; see the class."""
        food = now.task
        new = food.left & now.touched
        left, found = food.left & ~new, food.found + new.sum(dtype=jnp.int32)
        over = ~left.any()
        reward = self.target_reward * new.sum(dtype=jnp.float32)
        progress = arena.progress(now.arena, now.root)
        failed = jnp.zeros((), bool)
        if self.least_upright is not None:
            failed |= (now.upright < self.least_upright).any()
        if self.only_feet:
            failed |= now.fallen
        number = found.astype(jnp.float32)
        return Outcome(
            reward=reward + self.alive,
            failed=failed,
            truncated=over | progress.arrived,
            success=over.astype(jnp.float32),
            passed=number,
            metrics={"targets_reward": reward, "targets_found": number, **progress.metrics},
            task=Food(food.position, left, found),
        )
