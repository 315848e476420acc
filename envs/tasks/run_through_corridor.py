"""Run along x as far and as fast as one can."""

import dataclasses

import jax
import jax.numpy as jnp

from envs.interfaces import Arena, Now, Outcome, Task


@dataclasses.dataclass(frozen=True)
class RunThroughCorridor(Task):
    """Run along x; the fields weigh the terms of the reward.

    Metrics: the terms of the reward (`reward_linvel` is `forward_reward`, `reward_quadctrl` the
    control cost, `reward_alive` the healthy reward, `train_reward` the time's), the root's
    position, the velocity of its subtree's centre of mass, the distances from the start, and what
    the arena reports of progress.
    """

    forward: float = 5.0
    """Times the x-velocity of the centre of mass of the root's subtree, m/s."""
    control: float = 0.1
    """Times the sum of squared actions; subtracted."""
    healthy: float = 0.5
    """Each step."""
    time: float = 5.0
    """Times the duration of a control step, s."""
    distance: float = 0.0
    """Times the distance from the start along x, m; negative behind it."""
    healthy_height: tuple[float, float] = (0.0, 1.0)
    """The episode fails when the root's height leaves this range, m."""

    reductions = dict.fromkeys(
        ("x_position", "y_position", "distance_from_origin", "distance_along_x"), "last"
    )
    shown = {"distance_along_x": "distance along x, m", "x_velocity": "x-velocity, m/s"}

    def check(self) -> None:
        """See `envs.interfaces.Task`."""
        lowest, highest = self.healthy_height
        if not lowest < highest:
            raise ValueError(
                f"task.healthy_height is {lowest} to {highest} m; the first has to be the smaller"
            )

    def judge(self, now: Now, action: jax.Array, arena: Arena, dt: float) -> Outcome:
        """Return the reward for speed; the episode fails where the root is too low or too high, is
        cut short where the arena ends, and succeeds unless it fails."""
        progress = arena.progress(now.arena, now.root)
        from_start = now.root[:2] - jnp.asarray(arena.start[:2])
        forward = self.forward * now.velocity[0]
        control = -self.control * jnp.square(action).sum()
        healthy = jnp.float32(self.healthy)
        duration = jnp.float32(self.time * dt)
        distance = self.distance * from_start[0]
        lowest, highest = self.healthy_height
        failed = (now.root[2] < lowest) | (now.root[2] > highest)
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
            **progress.metrics,
        }
        return Outcome(
            reward=forward + control + healthy + duration + distance,
            failed=failed,
            truncated=progress.arrived,
            success=1.0 - failed.astype(jnp.float32),
            passed=progress.passed,
            metrics=metrics,
        )
