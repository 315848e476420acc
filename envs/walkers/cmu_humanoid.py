"""Define dm_control's CMU humanoid of 2019, whose 56 actuators control positions."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import mujoco
from dm_control import composer
from dm_control.locomotion.walkers import cmu_humanoid

from envs.capsules import put_capsules
from envs.interfaces import WALKER, Now, Pose, Walker, check_noise_and_reach
from envs.postures import at_rest, multiply, with_free_root
from envs.proprioception import STANDARD, Anatomy, observe

HEIGHT, TURN = 0.94, (0.859, 1.0, 1.0, 0.859)
"""Height of the root of a humanoid that stands, metres, and its quaternion (w, x, y, z) before it
is normalised; dm_control's `_UPRIGHT_POS` and `_UPRIGHT_QUAT`."""
FEET = tuple(
    f"{side}{part}"
    for side in "lr"
    for part in ("foot", "foot_ch", *map("toes{}".format, range(3)))
)
LIMBS = tuple(f"{side}{part}" for side in "lr" for part in ("hand", "radius", "femur", "tibia"))
TOUCHED = ("hand", "fingers", "thumb")
OBSERVED = (
    *("joints_pos", "joints_vel", "actuator_activation", "body_height"),
    *("end_effectors_pos", "appendages_pos", "world_zaxis"),
    *STANDARD,
)
"""dm_control's observables of its humanoid in corridors, in dm_control's order."""


@dataclasses.dataclass(frozen=True)
class CmuHumanoid(Walker):
    """dm_control's humanoid for motions of CMU's data base, of 2019, with 56 position actuators.

    `proprio` is float32[168], dm_control's observables in the order of `OBSERVED`: positions and
    velocities of 56 joints (rad, rad/s), height of the root (m), positions of 4 end effectors and
    of these and the head (m, in the root's frame), the vertical in the root's frame, gyro (rad/s),
    velocimeter (m/s), accelerometer (m/s^2), torques at both shoulders (squashed to [-1, 1]) and
    10 places that touch (0 or 1). `envs.proprioception` says at which time sensors are read.
    """

    capsules: bool = False
    """Whether capsules take the place of its hands' 2 ellipsoids, which MJX cannot collide with
    boxes. Masses and inertias stay; see docs/animals.md for what changes."""
    reset_noise: float = 1e-2
    """Half-width of the uniform noise on positions at a reset, and standard deviation of the normal
    noise on velocities; 0 for none, as in dm_control."""
    reach: float = 1.2
    """Distance from the root along x and y within which the humanoid can touch something during a
    control step, metres. Its feet reach 1.04 m from there."""

    root = "root"
    eye = "egocentric"
    film_camera = "side"
    self_collisions = True
    mjx_contacts = 48
    # Its root's x axis points to its left, and y up.
    forward = 0.0, 0.0, 1.0
    end_effectors = ("rradius", "lradius", "rfoot", "lfoot")
    feet = FEET
    sensors = (
        *("sensor_root_veloc", "sensor_root_gyro", "sensor_root_accel"),
        *(f"sensor_touch_{side}{part}" for side in "lr" for part in TOUCHED),
        *("sensor_touch_ltoes", "sensor_touch_rtoes", "sensor_touch_rfoot", "sensor_touch_lfoot"),
        *("sensor_torque_lhumerus", "sensor_torque_rhumerus"),
    )
    # That which dm_control hides from its egocentric camera; this version has no geom in it.
    hidden_groups = (1,)

    def __post_init__(self) -> None:
        check_noise_and_reach(self.reset_noise, self.reach)

    @property
    def anatomy(self) -> Anatomy:
        """The parts that are observed."""
        ends = self.end_effectors
        return Anatomy(
            self.root,
            end_effectors=ends,
            appendages=(*ends, "head"),
            sensors=self.sensors,
            squashed_torque=True,
        )

    def build(self) -> composer.Entity:
        """Return `dm_control.locomotion.walkers.CMUHumanoidPositionControlled`."""
        body = cmu_humanoid.CMUHumanoidPositionControlled()
        if self.capsules:
            put_capsules(body.mjcf_model)
        return body

    def colliders(self, model: mujoco.MjModel) -> Sequence[str]:
        """Return the geoms of feet, limbs, pelvis and head; MJX lets the trunk and the fingers pass
        through everything."""
        return [WALKER + name for name in (*FEET, *LIMBS, "root_geom", "head")]

    def reset(
        self, model: mujoco.MjModel, pose: Pose, position_key: jax.Array, velocity_key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the humanoid upright at `pose`, facing along x before its yaw, with noise:
        float32[nq] and float32[nv]."""
        qpos, qvel = at_rest(model, self.reset_noise, position_key, velocity_key)
        upright = multiply(jnp.array(TURN) / jnp.linalg.norm(jnp.array(TURN)), qpos[3:7])
        qpos = qpos.at[2].add(HEIGHT).at[3:7].set(upright)
        return with_free_root(qpos, pose), qvel

    def proprioception(self, model: mujoco.MjModel, now: Now) -> jax.Array:
        """Return float32[168]; see the class."""
        return observe(model, now, self.anatomy, OBSERVED)
