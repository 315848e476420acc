"""Define dm_control's rodent: a rat with 38 actuators, 8 of which pull tendons of its spine."""

import dataclasses
from collections.abc import Sequence

import jax
import mujoco
from dm_control import composer
from dm_control.locomotion.walkers import rodent

from envs.capsules import put_capsules
from envs.interfaces import WALKER, Now, Pose, Walker, check_noise_and_reach
from envs.postures import at_rest, with_free_root
from envs.proprioception import STANDARD, Anatomy, observe

PARTS = ("foot_L", "toe_L", "foot_R", "toe_R", "hand_L", "finger_L", "hand_R", "finger_R")
DIGITS = ("toe", "finger")
PAWS = tuple(
    f"{part}{digit}_collision"
    for part in PARTS
    for digit in ("012" if part.startswith(DIGITS) else [""])
)
TAIL = tuple(f"vertebra_C{i}_collision" for i in range(30, 0, -1))
TRUNK = ("collision_torso", "collision_pelvis_gut", "skull_0_collision", "jaw_back_collision")
OBSERVED = (
    *("joints_pos", "joints_vel", "tendons_pos", "tendons_vel", "actuator_activation"),
    *("body_height", "end_effectors_pos", "appendages_pos", "world_zaxis"),
    *STANDARD,
)
"""dm_control's observables of its rodent in corridors, in dm_control's order."""


@dataclasses.dataclass(frozen=True)
class Rodent(Walker):
    """dm_control's rat with 38 position actuators, 30 of joints and 8 of tendons.

    Its skin is drawn by the viewer alone. Its eye does not see its own body, as in dm_control.

    `proprio` is float32[158], dm_control's observables in the order of `OBSERVED`: positions and
    velocities of 30 joints (rad, rad/s) and 8 tendons, 38 activations, height of the torso (m),
    positions of 4 end effectors and of these and the skull (m, in the torso's frame), the vertical
    in the torso's frame, gyro (rad/s), velocimeter (m/s), accelerometer (m/s^2) and 4 paws that
    touch (0 or 1). `envs.proprioception` says at which time sensors are read.
    """

    foot_mods: bool = True
    """Whether ankles and toes bend further, as in dm_control's `foot_mods`."""
    capsules: bool = False
    """Whether capsules take the place of its 22 ellipsoids, which MJX cannot collide with boxes.
    Masses and inertias stay; see docs/animals.md for what changes."""
    reset_noise: float = 1e-3
    """Half-width of the uniform noise on positions at a reset, and standard deviation of the normal
    noise on velocities; 0 for none, as in dm_control."""
    reach: float = 0.4
    """Distance from the torso along x and y within which the rodent can touch something during a
    control step, metres. Its tail reaches 0.27 m from there."""

    root = "torso"
    head = "skull"
    upright = ("torso", "pelvis")
    eye = "egocentric"
    film_camera = "side"
    self_collisions = True
    mjx_contacts = 64
    end_effectors = ("lower_arm_R", "lower_arm_L", "foot_R", "foot_L")
    feet = (*PAWS, *TAIL)
    sensors = (
        *("accelerometer", "velocimeter", "gyro"),
        *("palm_L", "palm_R", "sole_L", "sole_R"),
    )
    # Those that dm_control hides from its egocentric camera.
    hidden_groups = (1, 2)

    def __post_init__(self) -> None:
        check_noise_and_reach(self.reset_noise, self.reach)

    @property
    def anatomy(self) -> Anatomy:
        """The parts that are observed."""
        ends = self.end_effectors
        return Anatomy(
            self.root,
            end_effectors=ends,
            appendages=(*ends, "skull"),
            sensors=self.sensors,
            squashed_torque=True,
        )

    def build(self) -> composer.Entity:
        """Return `dm_control.locomotion.walkers.Rat`."""
        body = rodent.Rat(foot_mods=self.foot_mods)
        if self.capsules:
            put_capsules(body.mjcf_model)
        return body

    def colliders(self, model: mujoco.MjModel) -> Sequence[str]:
        """Return the geoms of paws and trunk, the skull and the jaw; MJX lets the tail, the other
        limbs and the rest of the head pass through everything."""
        return [WALKER + name for name in (*PAWS, *TRUNK)]

    def reset(
        self, model: mujoco.MjModel, pose: Pose, position_key: jax.Array, velocity_key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the rodent standing at `pose`, with noise: float32[nq] and float32[nv]."""
        qpos, qvel = at_rest(model, self.reset_noise, position_key, velocity_key)
        return with_free_root(qpos, pose), qvel

    def proprioception(self, model: mujoco.MjModel, now: Now) -> jax.Array:
        """Return float32[158]; see the class."""
        return observe(model, now, self.anatomy, OBSERVED)
