"""Define the task to run along x as far and as fast as possible."""

import dataclasses

import jax
import jax.numpy as jnp

from envs.interfaces import Arena, Now, Outcome, Task, check_least_upright


@dataclasses.dataclass(frozen=True)
class RunThroughCorridor(Task):
    """Reward running along x; the fields are the weights of the terms of the reward.

    Metrics: the terms of the reward (`reward_linvel` and `forward_reward` for `forward`,
    `reward_quadctrl` for `control`, `reward_alive` for `healthy`, `train_reward` for `time`,
    `distance_reward`, and `target_reward` if there is one); the root's position, m; the velocity of
    its subtree's centre of mass, m/s; the distances from the arena's start, m, which is the middle
    of a floor, wherever on it an episode begins; and those of the arena.

    With these settings it is dm_control's task of the same name, but that velocities are means over
    a control step and `only_feet` counts walls: target=1, forward=0, control=0, healthy=0, time=0,
    healthy_height=(-10, 10), end_effector_height=-0.5, only_feet=True. Source: dm_control's
    `locomotion/tasks/corridors.py`.
    """

    forward: float = 5.0
    """Weight of the x-velocity of the centre of mass of the root's subtree, per m/s."""
    control: float = 0.1
    """Weight of the sum of squared actions, which is subtracted."""
    healthy: float = 0.5
    """Constant reward of each step."""
    time: float = 5.0
    """Weight of the duration of a control step, per second; a constant reward too."""
    distance: float = 0.0
    """Weight of the distance from the arena's start along x, per metre; negative behind it."""
    target: float = 0.0
    """Weight of max(0, 1 - |v - v*| / v*), dm_control's reward, where v is the x-velocity of the
    centre of mass and v* the target velocity."""
    target_velocity: float = 3.0
    """v*, m/s: 3 for dm_control's corridors and humanoids, 1 for its rodent in gaps. 0 rewards
    standing: the weight is then of max(0, 1 - |v|), v in m/s."""
    healthy_height: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest height of the root, metres; outside, the episode is terminated."""
    end_effector_height: float | None = None
    """Height of an end effector below which the episode is terminated, metres; dm_control takes
    -0.5, and -0.3 for its rodent. None for any."""
    only_feet: bool = False
    """Whether the episode is terminated when anything but the walker's feet touches something. In
    dm_control the ground and platforms count, and no walls."""
    least_upright: float | None = None
    """Least z component of the z axes of the bodies that the walker names in `upright`, by default
    its root: 1 is upright, -1 upside down; below, the episode is terminated. None for any, as in
    dm_control. Not for the CMU humanoid, whose root's z axis is level when it stands: each step
    then ends an episode, and training warns of it."""

    reductions = dict.fromkeys(
        ("x_position", "y_position", "distance_from_origin", "distance_along_x"), "last"
    )
    shown = {"distance_along_x": "distance along x, m", "x_velocity": "x-velocity, m/s"}

    def check(self) -> None:
        """Raise a ValueError if a setting is invalid."""
        lowest, highest = self.healthy_height
        if not lowest < highest:
            raise ValueError(
                f"task.healthy_height is {lowest} to {highest} m; the first has to be the smaller"
            )
        if not 0 <= self.target_velocity < float("inf"):
            raise ValueError(
                f"task.target_velocity is {self.target_velocity} m/s; it has to be 0 or more"
            )
        check_least_upright(self.least_upright)

    @property
    def contacts(self) -> bool:
        """Whether `Now.fallen` is read."""
        return self.only_feet

    def judge(self, now: Now, action: jax.Array, arena: Arena, dt: float) -> Outcome:
        """Return the reward. The episode is terminated if the root leaves `healthy_height` or
        another rule is broken, is truncated at the end of the arena, and is a success unless it is
        terminated."""
        progress = arena.progress(now.arena, now.root)
        from_start = now.root[:2] - jnp.asarray(arena.start[:2])
        forward = self.forward * now.velocity[0]
        control = -self.control * jnp.square(action).sum()
        healthy = jnp.float32(self.healthy)
        duration = jnp.float32(self.time * dt)
        distance = self.distance * from_start[0]
        lowest, highest = self.healthy_height
        failed = (now.root[2] < lowest) | (now.root[2] > highest)
        if self.end_effector_height is not None:
            if not len(now.end_effectors):
                raise ValueError(
                    "task.end_effector_height is set, but the walker names no end effectors; give "
                    "it `end_effectors`, or leave the setting out"
                )
            failed |= (now.end_effectors[:, 2] < self.end_effector_height).any()
        if self.only_feet:
            failed |= now.fallen
        if self.least_upright is not None:
            failed |= (now.upright < self.least_upright).any()
        own = {}
        if self.target:
            margin = self.target_velocity or 1.0
            away = jnp.abs(now.velocity[0] - self.target_velocity) / margin
            own["target_reward"] = self.target * jnp.maximum(0.0, 1.0 - away)
        metrics = {
            "forward_reward": forward,
            "reward_linvel": forward,
            "reward_quadctrl": control,
            "reward_alive": healthy,
            "train_reward": duration,
            "distance_reward": distance,
            "x_position": now.root[0],
            "y_position": now.root[1],
            "x_velocity": now.velocity[0],
            "y_velocity": now.velocity[1],
            "distance_from_origin": jnp.linalg.norm(from_start),
            "distance_along_x": from_start[0],
            **own,
            **progress.metrics,
        }
        return Outcome(
            reward=forward + control + healthy + duration + distance + sum(own.values()),
            failed=failed,
            truncated=progress.arrived,
            success=1.0 - failed.astype(jnp.float32),
            passed=progress.passed,
            metrics=metrics,
        )
