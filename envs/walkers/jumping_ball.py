"""Define dm_control's jumping ball: a ball that rolls, steers and jumps, with a head above it."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from dm_control import composer
from dm_control.locomotion import walkers

from envs.interfaces import WALKER, Now, Pose, Walker, check_noise_and_reach
from envs.postures import at_rest

JOINTS = ("root_x/", "root_y/", "root_z/", "steer", "kick", "roll")
"""Names of the joints: three slides, two hinges (steer and roll) and the slide that kicks."""


@dataclasses.dataclass(frozen=True)
class JumpingBall(Walker):
    """dm_control's ball with a head, and 3 motors: roll, steer and kick. It never tilts.

    As in dm_control, a positive roll drives backwards and a positive steer turns clockwise: a roll
    of -1 is full speed ahead, 4.9 m/s after 2 s. A kick of 1 throws the ball up by a metre. Cameras
    draw the ball in the mean colour of its texture.

    `proprio` is float32[10]: the height of its root (m), cosine and sine of its heading
    (anticlockwise from x), how far the kick is out (m); then velocities: forwards, to the left and
    up (m/s), of the heading (rad/s, anticlockwise), of the kick (m/s) and of the roll (rad/s,
    positive ahead). The root body's own axes are right, forwards and up.
    """

    camera_height: float = 0.9
    """Height of the eye above the root, which is 0.6 m above the floor, metres. 0 is the head's own
    height, below the top of most walls."""
    reset_noise: float = 1e-2
    """Half-width of the uniform noise on positions at a reset, and standard deviation of the normal
    noise on velocities; 0 for none."""
    reach: float = 0.4
    """Distance from the root along x and y within which the ball can touch something during a
    control step, metres: its radius, 0.2 m, and 0.125 m that it rolls in 25 ms at 5 m/s, with room
    to spare."""

    root = "head_body"
    eye = "egocentric"
    film_camera = "tracking"
    forward = 0.0, 1.0, 0.0
    # Head and shell are of bodies one of which carries the other, which never meet.
    self_collisions = False
    # One of each slot and plane.
    mjx_contacts = None

    def __post_init__(self) -> None:
        check_noise_and_reach(self.reset_noise, self.reach)
        if not abs(self.camera_height) < float("inf"):
            raise ValueError(f"walker.camera_height is {self.camera_height} m; it has to be finite")

    def build(self) -> composer.Entity:
        """Return `dm_control.locomotion.walkers.JumpingBallWithHead`."""
        return walkers.JumpingBallWithHead(camera_height=self.camera_height)

    def colliders(self, model: mujoco.MjModel) -> Sequence[str]:
        """Return the ball's geom. The head is a cylinder, which MJX cannot collide with boxes; the
        ball below it is twice as wide and meets everything on the floor first."""
        return (WALKER + "shell",)

    def reset(
        self, model: mujoco.MjModel, pose: Pose, position_key: jax.Array, velocity_key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the ball at rest at `pose`, with noise that never puts it into the floor:
        float32[nq] and float32[nv]."""
        qpos, qvel = at_rest(model, self.reset_noise, position_key, velocity_key)
        x, y, z, steer, kick, _ = _addresses(model, model.jnt_qposadr)
        qpos = qpos.at[jnp.array([x, y, z])].add(pose.position)
        # It looks along x where steer is 0, and steers clockwise.
        qpos = qpos.at[steer].add(-pose.yaw)
        # The kick pushes the ball down, from 0 on.
        out = jnp.abs(qpos[kick])
        height = jnp.abs(qpos[z] - pose.position[2])
        return qpos.at[kick].set(out).at[z].set(pose.position[2] + height + out), qvel

    def proprioception(self, model: mujoco.MjModel, now: Now) -> jax.Array:
        """Return float32[10]; see the class."""
        cos, sin, _ = now.rotation[:, 1]
        kick = now.physics.qpos[_addresses(model, model.jnt_qposadr)[4]]
        vx, vy, up, steer, kicking, roll = now.physics.qvel[_addresses(model, model.jnt_dofadr)]
        forwards, left = cos * vx + sin * vy, cos * vy - sin * vx
        return jnp.stack([now.root[2], cos, sin, kick, forwards, left, up, -steer, kicking, roll])


def _addresses(model: mujoco.MjModel, of_joints: np.ndarray) -> np.ndarray:
    return of_joints[[model.joint(WALKER + name).id for name in JOINTS]]
