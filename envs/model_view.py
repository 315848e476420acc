"""Draw the states of any environment that has a MuJoCo model, for videos and viewers."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.camera import FREE, Camera, free_pose
from envs.kinematics import Kinematics, Poses
from envs.pictures import Pictures

FREE_CAMERA = "free"
"""Name of a camera that every model has here: MuJoCo's free camera as it first looks at a model,
but following the first body that moves."""


class ModelView:
    """Draws states of a MuJoCo model for videos; see `envs.film.Filmed`.

    Args:
        model: the environment's model.
        dt: duration of a control step, seconds.
        joints: maps `State.data` to `qpos`, `qvel` and `mocap_pos`, float32[..., nq], [..., nv] and
            [..., nmocap, 3].
    """

    eyes: Mapping[str, Camera] = {}

    def __init__(
        self,
        model: mujoco.MjModel,
        dt: float,
        joints: Callable[[Any], tuple[jax.Array, jax.Array, jax.Array]],
    ) -> None:
        self.model, self.dt = model, float(dt)
        self._joints = joints
        self._pictures = Pictures(model)
        self._kinematics = Kinematics(model)
        # Cameras without a name are called by their numbers.
        names = {model.camera(i).name or str(i): i for i in range(model.ncam)}
        self._numbers = {**names, FREE_CAMERA: FREE}
        self.cameras = tuple(self._numbers)
        self.film_camera = self.cameras[0]
        position, rotation = free_pose(model)
        self._rotation = jnp.asarray(rotation)
        self._back = jnp.asarray(position - model.stat.center, jnp.float32)
        self._body = int(np.argmax(model.body_dofnum > 0))

    def camera(self, name: str, height: int, width: int) -> Camera:
        """Return one of `cameras`.

        Raises:
            ValueError: there is no such camera, or the image would be empty.
        """
        if name not in self.cameras:
            raise ValueError(f"there is no camera {name!r}; there are {', '.join(self.cameras)}")
        return self._pictures.camera(self._numbers[name], height, width)

    def draw(self, data: Any, camera: Camera) -> jax.Array:
        """Draw the image uint8[H, W, 3] that `camera` takes of one state."""
        qpos, _, mocap = self._joints(data)
        poses = self._kinematics(qpos, mocap if self.model.nmocap else None)
        pose = self._free_pose(poses) if camera.number == FREE else None
        return self._pictures.draw(camera, poses, pose=pose).rgb

    def whole(self, data: Any) -> mujoco.MjModel:
        """Return the model."""
        return self.model

    def tracked(self, model: mujoco.MjModel) -> int:
        """Return the id of the first body that moves."""
        return self._body

    def joints(self, data: Any) -> tuple[jax.Array, jax.Array]:
        """Return `qpos` float32[..., nq] and `qvel` float32[..., nv] of states."""
        return self._joints(data)[:2]

    def _free_pose(self, poses: Poses) -> tuple[jax.Array, jax.Array]:
        return poses.subtree_com[self._body] + self._back, self._rotation
