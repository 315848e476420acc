"""Define dm_control's ant: a torso on four legs of two joints each."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import mujoco
from dm_control import composer
from dm_control.locomotion import walkers

from envs.interfaces import WALKER, Now, Pose, Walker
from envs.postures import at_rest, with_free_root

ENDS, SIDES = ("front", "back"), ("left", "right")


@dataclasses.dataclass(frozen=True)
class Ant(Walker):
    """dm_control's ant with 8 motors.

    `proprio` is float32[27]: qpos without x and y, then qvel.
    """

    reset_noise: float = 1e-2
    """Half-width of the uniform noise on positions at a reset, and standard deviation of the normal
    noise on velocities; 0 for none."""
    reach: float = 1.4
    """Distance from the torso along x within which the ant can touch something during a control
    step, metres. Its limbs reach 1.17 m from there."""

    root = "torso"
    eye = "egocentric"
    film_camera = "floating"
    end_effectors = tuple(f"{end}_{side}_foot" for end in ENDS for side in SIDES)
    feet = tuple(f"{end}_{side}_ankle_geom" for end in ENDS for side in SIDES)
    # Its geoms never meet each other within its joints' limits.
    self_collisions = False
    # 2 points of each of 4 feet with 2 slots and a wall, all at once, of the 45 that it looks for.
    # Solving for 45 costs a third more (16 environments).
    mjx_contacts = 24

    def __post_init__(self) -> None:
        if not 0 <= self.reset_noise < float("inf"):
            raise ValueError(f"walker.reset_noise is {self.reset_noise}; it has to be 0 or more")
        if not 0 < self.reach < float("inf"):
            raise ValueError(f"walker.reach is {self.reach} m; it has to be positive and finite")

    def build(self) -> composer.Entity:
        """Return `dm_control.locomotion.walkers.Ant`."""
        return walkers.Ant()

    def colliders(self, model: mujoco.MjModel) -> Sequence[str]:
        """Return the geoms of feet and torso; the legs pass through platforms."""
        names = [model.geom(g).name for g in range(model.ngeom)]
        return [n for n in names if n.startswith(WALKER) and ("ankle" in n or "torso" in n)]

    def reset(
        self, model: mujoco.MjModel, pose: Pose, position_key: jax.Array, velocity_key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the ant's own posture at `pose`, with noise: float32[nq] and float32[nv]."""
        qpos, qvel = at_rest(model, self.reset_noise, position_key, velocity_key)
        return with_free_root(qpos, pose), qvel

    def proprioception(self, model: mujoco.MjModel, now: Now) -> jax.Array:
        """Return float32[27]; see the class."""
        return jnp.concatenate([now.physics.qpos[2:], now.physics.qvel])
