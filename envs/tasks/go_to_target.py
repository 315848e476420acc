"""Go to a target and stay there, `dm_control`'s `GoToTarget`."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from dm_control import mjcf
from flax import struct

from envs.interfaces import Arena, Boxes, Now, Outcome, Task, check_range
from envs.layouts import FAR

NUM_TARGETS = 32
"""Places that are drawn for an episode in which the target moves."""
RGBA = (0.9, 0.6, 0.6, 1.0)
"""dm_control's."""


@struct.dataclass
class Targets:
    """The targets of an episode, and which of them is the present one.

    Attributes:
        places: float32[M, 2], x and y, metres. M is 1 where the target stays, else `NUM_TARGETS`.
        moves: int32[], how often the target has moved. It is at `places[moves % M]`: after the last
            place it comes to the first again.
        steps: int32[], steps that the walker has spent at this target.
    """

    places: jax.Array
    moves: jax.Array
    steps: jax.Array

    @property
    def place(self) -> jax.Array:
        """float32[2], where the target is."""
        return self.places[self.moves % len(self.places)]


@dataclasses.dataclass(frozen=True)
class GoToTarget(Task):
    """Give a reward of 1 in each step in which the root is within `distance_tolerance` of a target.

    As in dm_control, an episode goes on after its target was reached; a moving target moves in the
    step after `steps_before_moving_target` rewarded ones, consecutive or not, and that step is
    judged by the new place; and a target may be drawn where the walker happens to be. dm_control
    also ends an episode when any part but a foot touches the ground. This is left out here: an
    episode fails where the root's height leaves `healthy_height`.

    dm_control's target is a site, which cameras do not draw. Here it is a ball that stands on the
    floor at z = 0, and nothing collides with it.

    `ahead` is float32[3], the target's place on the floor in the walker's frame, metres: the vector
    from the root, turned into the axes of the root body, and shortened to 5 m where it is longer.

    Metrics: `target_distance` (m, in x and y) and `targets_reached`, as they stand at the episode's
    end; the terms of the reward, `target_reward`, `approach_reward` and `control_reward`; and what
    the arena reports. An episode is a success once a target was reached.
    """

    distance_tolerance: float = 1.0
    """Metres within which the target counts as reached."""
    target_area: float = 4.0
    """Half the side, metres, of the square around the world's origin in which targets are drawn
    uniformly. dm_control takes half the floor's size: 4 of its 8 m."""
    moving_target: bool = False
    """Whether a target that was reached moves to a new place."""
    steps_before_moving_target: int = 10
    """Rewarded steps at a target after which it moves."""
    approach: float = 0.0
    """Times the metres by which the walker's centre of mass came nearer to the target, in x and y,
    in this step; not in dm_control."""
    control: float = 0.0
    """Times the sum of squared actions; subtracted. Not in dm_control."""
    healthy_height: tuple[float, float] = (-1.0, 10.0)
    """The episode fails when the root's height leaves this range, m."""
    target_radius: float = 0.3
    """Metres, of the ball that cameras see. dm_control's site has 0.1."""

    reductions = {"target_distance": "last", "targets_reached": "last"}
    shown = {"target_distance": "distance to the target, m"}

    def check(self) -> None:
        """See `envs.interfaces.Task`."""
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

    def visible(self, state: Targets) -> Boxes:
        """Return the ball, upon the floor at the target's place."""
        position = jnp.append(state.place, self.target_radius)
        return Boxes(position[None], jnp.array([[self.target_radius, 0.0, 0.0]]))

    def ahead(self, now: Now) -> jax.Array:
        """Return float32[3]; see the class."""
        vector = jnp.append(now.task.place, 0.0) - now.root
        vector = (now.rotation * vector[:, None]).sum(0)
        length = jnp.linalg.norm(vector)
        return vector * jnp.minimum(1.0, FAR / jnp.maximum(length, FAR))

    def judge(self, now: Now, action: jax.Array, arena: Arena, dt: float) -> Outcome:
        """Return whether the walker is at the target; see the class."""
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
        """Return the targets of this step; the target moves where it has had its steps."""
        if not self.moving_target:
            return targets
        over = targets.steps >= self.steps_before_moving_target
        return Targets(targets.places, targets.moves + over, jnp.where(over, 0, targets.steps))
