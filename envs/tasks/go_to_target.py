"""Define the task to go to a target and stay there: `dm_control`'s `GoToTarget`."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from dm_control import mjcf
from flax import struct

from envs.interfaces import Arena, Boxes, Now, Outcome, Places, Task, check_range
from envs.layouts import FAR

NUM_TARGETS = 32
"""Number of positions that are drawn for an episode in which the target moves."""
RGBA = (0.9, 0.6, 0.6, 1.0)
"""The target's colour, as in dm_control."""


@struct.dataclass
class Targets:
    """The target positions of an episode, and which of them is the current one.

    Attributes:
        places: float32[M, 2], x and y, metres. M is `NUM_TARGETS` if the target moves, else 1.
        moves: int32[], how often the target has moved; it is at `places[moves % M]`.
        steps: int32[], steps that the walker has spent at the current target.
    """

    places: jax.Array
    moves: jax.Array
    steps: jax.Array

    @property
    def place(self) -> jax.Array:
        """Current position of the target, float32[2], x and y, metres."""
        return self.places[self.moves % len(self.places)]


@dataclasses.dataclass(frozen=True)
class GoToTarget(Task):
    """Give a reward of 1 in each step in which the root is within `distance_tolerance` of a target.

    As in dm_control, an episode goes on after its target was reached; a moving target moves in the
    step after `steps_before_moving_target` rewarded ones, consecutive or not, and the reward of
    that step is for the new position; and a target may be drawn at the walker's position.
    dm_control also ends an episode if any part but a foot touches the ground. Here it is instead
    terminated if the root's height leaves `healthy_height`.

    dm_control's target is a site, which cameras do not draw. Here it is a ball that stands on the
    floor at z = 0, and nothing collides with it.

    `ahead` is float32[3], the vector from the root to the target's position on the floor, in the
    axes of the root body, metres. It is shortened to 5 m if it is longer.

    Metrics: `target_distance` (m, in x and y) and `targets_reached`, both at the end of the
    episode; the terms of the reward, `target_reward`, `approach_reward` and `control_reward`; and
    those of the arena. An episode is a success once a target was reached.
    """

    distance_tolerance: float = 1.0
    """Distance from the root, in x and y, within which the target counts as reached, metres."""
    target_area: float = 4.0
    """Half the side of the square around the world's origin in which targets are drawn uniformly,
    metres. dm_control takes half the floor's size: 4 of its 8 m. In an arena that has places for
    targets, such as a maze, they are drawn among those instead."""
    moving_target: bool = False
    """Whether a target that was reached moves to a new position."""
    steps_before_moving_target: int = 10
    """Rewarded steps at a target after which it moves."""
    approach: float = 0.0
    """Weight of the distance by which the walker's centre of mass came nearer to the target, in x
    and y, in this step, per metre; 0 as in dm_control."""
    control: float = 0.0
    """Weight of the sum of squared actions, which is subtracted; 0 as in dm_control."""
    healthy_height: tuple[float, float] = (-1.0, 10.0)
    """Lowest and highest height of the root, metres; outside, the episode is terminated."""
    target_radius: float = 0.3
    """Radius of the ball that cameras see, metres. dm_control's site has 0.1."""

    reductions = {"target_distance": "last", "targets_reached": "last"}
    shown = {"target_distance": "distance to the target, m"}

    def check(self) -> None:
        """Raise a ValueError if a setting is invalid."""
        for name in ("distance_tolerance", "target_area", "target_radius"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"task.{name} is {value} m; it has to be positive and finite")
        for name in ("approach", "control"):
            if not math.isfinite(value := getattr(self, name)):
                raise ValueError(f"task.{name} is {value}; it has to be finite")
        if self.steps_before_moving_target < 1:
            raise ValueError(
                f"task.steps_before_moving_target is {self.steps_before_moving_target}; it has to "
                "be 1 or more"
            )
        check_range("task.healthy_height", self.healthy_height)

    def visible_geoms(self, root: mjcf.RootElement) -> Sequence[Mapping[str, Any]]:
        """Return a ball."""
        size = [self.target_radius]
        return [{"type": "sphere", "pos": [0, 0, *size], "size": size, "rgba": RGBA}]

    def draw(self, key: jax.Array) -> Targets:
        """Draw the targets of an episode."""
        shape = (NUM_TARGETS if self.moving_target else 1, 2)
        area = self.target_area
        places = jax.random.uniform(key, shape, jnp.float32, -area, area)
        return Targets(places, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def place(self, state: Targets, places: Places | None, key: jax.Array) -> Targets:
        """Draw the targets among the arena's places for them, if it has any; see `Task.place`."""
        if places is None:
            return state
        shares = places.there / places.there.sum()
        chosen = jax.random.choice(key, len(shares), (len(state.places),), p=shares)
        return Targets(places.position[chosen, :2], state.moves, state.steps)

    def visible(self, state: Targets) -> Boxes:
        """Return the ball, which stands on the floor at the target's position."""
        position = jnp.append(state.place, self.target_radius)
        return Boxes(position[None], jnp.array([[self.target_radius, 0.0, 0.0]]))

    @property
    def ahead_names(self) -> Sequence[str]:
        """Names of the entries of `ahead`."""
        return [f"target {axis}" for axis in "xyz"]

    def ahead(self, now: Now) -> jax.Array:
        """Return float32[3]; see the class."""
        vector = jnp.append(now.task.place, 0.0) - now.root
        vector = (now.rotation * vector[:, None]).sum(0)
        length = jnp.linalg.norm(vector)
        return vector * jnp.minimum(1.0, FAR / jnp.maximum(length, FAR))

    def judge(self, now: Now, action: jax.Array, arena: Arena, dt: float) -> Outcome:
        """Return the reward for being at the target; see the class."""
        targets = self._moved(now.task)
        distance = jnp.linalg.norm(targets.place - now.root[:2])
        near = distance < self.distance_tolerance
        targets = Targets(targets.places, targets.moves, targets.steps + near)
        passed = (targets.moves + (targets.steps > 0)).astype(jnp.float32)

        # Where the centre of mass was a step ago, also in an episode's first step.
        before = now.com - now.velocity * dt
        from_target = lambda point: jnp.linalg.norm(targets.place - point[:2])
        terms = {
            "target_reward": near.astype(jnp.float32),
            "approach_reward": self.approach * (from_target(before) - from_target(now.com)),
            "control_reward": -self.control * jnp.square(action).sum(),
        }
        lowest, highest = self.healthy_height
        progress = arena.progress(now.arena, now.root)
        return Outcome(
            reward=sum(terms.values(), start=jnp.zeros(())),
            failed=(now.root[2] < lowest) | (now.root[2] > highest),
            truncated=progress.arrived,
            success=(passed > 0).astype(jnp.float32),
            passed=passed,
            metrics={
                **terms,
                "target_distance": distance,
                "targets_reached": passed,
                **progress.metrics,
            },
            task=targets,
        )

    def _moved(self, targets: Targets) -> Targets:
        """Return the targets of this step; the target moves if its rewarded steps are used up."""
        if not self.moving_target:
            return targets
        over = targets.steps >= self.steps_before_moving_target
        return Targets(targets.places, targets.moves + over, jnp.where(over, 0, targets.steps))
