"""Define dm_control's fruit fly, version 2, on foot: six legs whose claws can stick to things."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import mujoco
from dm_control import composer
from dm_control.locomotion.walkers import fruitfly_v2

from envs.capsules import put_capsules
from envs.interfaces import WALKER, Now, Pose, Walker, check_noise_and_reach
from envs.postures import at_rest, with_free_root
from envs.proprioception import STANDARD, Anatomy, observe

HEIGHT = 0.1278
"""Height of the thorax of a fly that stands, centimetres; dm_control's `_SPAWN_POS`."""
LEGS = tuple(f"{leg}_{side}" for leg in ("T1", "T2", "T3") for side in ("left", "right"))
CLAWS = tuple(f"claw_{leg}" for leg in LEGS)
UNOBSERVED = ("wing", "rostrum", "haustellum", "labrum", "antenna")
"""Parts of the names of joints that have no actuator on foot, and are not observed."""
OBSERVED = (
    *("joints_pos", "joints_vel", "actuator_activation"),
    *("world_zaxis", "world_zaxis_abdomen", "world_zaxis_head"),
    *("body_height", "end_effectors_pos", "appendages_pos"),
    *STANDARD,
)
"""dm_control's observables of its fly: proprioception, orientation, what its other walkers observe
of their limbs, and sensors."""


@dataclasses.dataclass(frozen=True)
class FruitFly(Walker):
    """dm_control's fruit fly with 59 actuators: 45 of joints, 8 of tendons, and 6 that stick claws.

    Its model is in centimetres, grams and seconds, with a gravity of 981 cm/s^2. In an arena with
    it every metre of settings and metrics is a centimetre. Its wings are folded and have no
    actuators, nor have its mouth and antennae. An actuator of a claw pulls it towards what it
    touches; an action of -1 is none. Actions are in the order of the model's actuators.

    `proprio` is float32[305], dm_control's observables in the order of `OBSERVED`: positions and
    velocities of 85 joints (rad, rad/s), 53 activations, the vertical in the frames of thorax,
    abdomen and head, height of the thorax (cm), positions of 6 claws and of these and the head (cm,
    in the thorax's frame), gyro (rad/s), velocimeter (cm/s), accelerometer (cm/s^2), forces in 6
    tarsi (dyn) and 6 claws that touch (0 or 1). `envs.proprioception` says at which time sensors
    are read.
    """

    sees_itself: bool = False
    """Whether its eyes see its own body, as in dm_control, at the cost of drawing 272,550
    triangles."""
    capsules: bool = False
    """Whether capsules take the place of its 16 ellipsoids and 6 cylinders. Masses and inertias
    stay; see docs/animals.md for what changes. MJX still cannot run it with `adhesion`."""
    adhesion: bool = True
    """Whether its claws can stick to things. MJX has no such actuators: without them there are 53
    actions."""
    reset_noise: float = 1e-3
    """Half-width of the uniform noise on positions at a reset, and standard deviation of the normal
    noise on velocities; 0 for none, as in dm_control."""
    reach: float = 0.4
    """Distance from the thorax along x and y within which the fly can touch something during a
    control step, centimetres. Its legs reach 0.31 cm from there."""

    root = "thorax"
    eye = "eye_right"
    film_camera = "track1"
    self_collisions = True
    mjx_contacts = 32
    end_effectors = CLAWS
    feet = tuple(f"tarsal_claw_{leg}_collision" for leg in LEGS)
    sensors = (
        *("accelerometer", "gyro", "velocimeter"),
        *(f"force_tarsus_{leg}" for leg in LEGS),
        *(f"touch_claw_{leg}" for leg in LEGS),
    )

    def __post_init__(self) -> None:
        check_noise_and_reach(self.reset_noise, self.reach, "cm")

    @property
    def hidden_groups(self) -> Sequence[int]:
        """The group of the meshes, unless it sees itself."""
        return () if self.sees_itself else (1,)

    def anatomy(self, model: mujoco.MjModel) -> Anatomy:
        """Return the parts that are observed."""
        names = [model.joint(j).name.removeprefix(WALKER) for j in range(model.njnt)]
        joints = [name for name in names if name and not any(x in name for x in UNOBSERVED)]
        return Anatomy(
            self.root,
            joints=tuple(joints),
            end_effectors=CLAWS,
            appendages=(*CLAWS, "head"),
            sites=True,
            sensors=self.sensors,
        )

    def build(self) -> composer.Entity:
        """Return `dm_control.locomotion.walkers.fruitfly_v2.FruitFly`."""
        body = fruitfly_v2.FruitFly()
        model = body.mjcf_model
        # The world's; and a pose of a fly with a free joint of its own.
        for key in model.keyframe.key:
            key.remove()
        if not self.adhesion:
            for actuator in model.actuator.adhesion:
                actuator.remove()
        if self.capsules:
            put_capsules(model)
        return body

    def colliders(self, model: mujoco.MjModel) -> Sequence[str]:
        """Return the geoms of the claws, the last tarsi, thorax, head and abdomen; MJX lets the
        other parts pass through everything."""
        trunk = ("thorax_collision", "head_collision", "abdomen_3_collision", "abdomen_7_collision")
        tarsi = (f"tarsus4_{leg}_collision" for leg in LEGS)
        return [WALKER + name for name in (*self.feet, *tarsi, *trunk)]

    def reset(
        self, model: mujoco.MjModel, pose: Pose, position_key: jax.Array, velocity_key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the fly at `pose` with its wings folded, as far as their springs fold them, with
        noise: float32[nq] and float32[nv]."""
        qpos, qvel = at_rest(model, self.reset_noise, position_key, velocity_key)
        joints = [j for j in range(model.njnt) if "wing" in model.joint(j).name]
        wings = model.jnt_qposadr[joints]
        folded = jnp.asarray(model.qpos_spring[wings] - model.qpos0[wings], jnp.float32)
        qpos = qpos.at[wings].add(folded).at[2].add(HEIGHT)
        return with_free_root(qpos, pose), qvel

    def proprioception(self, model: mujoco.MjModel, now: Now) -> jax.Array:
        """Return float32[305]; see the class."""
        return observe(model, now, self.anatomy(model), OBSERVED)
