"""Define dm_control's ant: a torso on four legs of two joints each."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import mujoco
from dm_control import composer
from dm_control.locomotion import walkers

from envs.interfaces import WALKER, Now, Pose, Walker, check_noise_and_reach
from envs.postures import at_rest, with_free_root
from envs.proprioception import STANDARD, Anatomy, observe

ENDS, SIDES = ("front", "back"), ("left", "right")
LEGS = ("front_left", "front_right", "back_right", "back_left")
"""In dm_control's order."""
# In the order of the model.
TOUCHED = ("front_left", "back_left", "back_right", "front_right")
Proprio = Literal["notebook", "full"]
OBSERVED = (
    *("joints_pos", "joints_vel", "body_height", "end_effectors_pos", "appendages_pos"),
    *("world_zaxis", "bodies_quats", "bodies_pos"),
    *STANDARD,
)
"""dm_control's observables of its ant in corridors, in dm_control's order."""


@dataclasses.dataclass(frozen=True)
class Ant(Walker):
    """dm_control's ant with 8 motors.

    `proprio` is float32[27], qpos without x and y, then qvel. With `proprio=full` it is
    float32[153], dm_control's observables in the order of `OBSERVED`: positions and velocities of 8
    joints (rad, rad/s), height of the torso (m), positions of the 4 feet, twice (m, in the torso's
    frame), the vertical in the torso's frame, quaternions and positions of 13 bodies in the torso's
    frame, gyro (rad/s), velocimeter (m/s), accelerometer (m/s^2) and 9 places that touch (0 or 1).
    """

    proprio: Proprio = "notebook"
    """Contents of `proprio`: notebook (qpos and qvel) or full (dm_control's observables)."""
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
        if self.proprio not in get_args(Proprio):
            known = " or ".join(get_args(Proprio))
            raise ValueError(f"walker.proprio is {self.proprio!r}; it has to be {known}")
        check_noise_and_reach(self.reset_noise, self.reach)

    @property
    def sensors(self) -> Sequence[str]:
        """The sensors that the full proprioception reads."""
        if self.proprio == "notebook":
            return ()
        parts = [f"{leg}_{part}" for leg in TOUCHED for part in ("leg", "ankle")]
        touch = [f"{part}_touch" for part in ("torso", *parts)]
        return (*touch, "torso_vel", "torso_gyro", "torso_accel")

    @property
    def anatomy(self) -> Anatomy:
        """The parts that the full proprioception is about."""
        feet = tuple(f"{leg}_foot" for leg in LEGS)
        parts = [f"{leg}_{part}" for leg in LEGS for part in ("leg", "aux", "foot")]
        return Anatomy(
            self.root,
            end_effectors=feet,
            appendages=feet,
            bodies=("torso", *parts),
            sensors=tuple(self.sensors),
        )

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
        """Return float32[27] or float32[153]; see the class."""
        if self.proprio == "full":
            return observe(model, now, self.anatomy, OBSERVED)
        return jnp.concatenate([now.physics.qpos[2:], now.physics.qvel])
