"""Draw the states of any environment that has a MuJoCo model, for videos and viewers."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.camera import Camera
from envs.kinematics import Kinematics, Poses
from envs.pictures import Pictures

FREE = "free"
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
        named = [model.camera(i).name for i in range(model.ncam)]
        self.cameras = (*filter(None, named), FREE)
        self.film_camera = self.cameras[0]
        self._back, self._rotation = _free_camera(model)
        self._body = int(np.argmax(model.body_dofnum > 0))

    def camera(self, name: str, height: int, width: int) -> Camera:
        """Return one of `cameras`.

        Raises:
            ValueError: there is no such camera, or the image would be empty.
        """
        if name not in self.cameras:
            raise ValueError(f"there is no camera {name!r}; there are {', '.join(self.cameras)}")
        if name != FREE:
            return self._pictures.camera(name, height, width)
        limits, extent = self.model.vis.map, float(self.model.stat.extent)
        fovy = float(self.model.vis.global_.fovy)
        near, far = float(limits.znear) * extent, float(limits.zfar) * extent
        return Camera(height, width, fovy, near, FREE, far)

    def draw(self, data: Any, camera: Camera) -> jax.Array:
        """Draw the image uint8[H, W, 3] that `camera` takes of one state."""
        qpos, _, mocap = self._joints(data)
        poses = self._kinematics(qpos, mocap if self.model.nmocap else None)
        pose = self._free_pose(poses) if camera.name == FREE else None
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


def _free_camera(model: mujoco.MjModel) -> tuple[jax.Array, jax.Array]:
    """Return the free camera's position relative to the body it looks at, float32[3], and its axes
    as columns, float32[3, 3] (`mjv_defaultFreeCamera`)."""
    azimuth, elevation = np.deg2rad([model.vis.global_.azimuth, model.vis.global_.elevation])
    forward = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
    right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    axes = np.stack([right, np.cross(right, forward), -forward], axis=-1)
    back = -1.5 * model.stat.extent * forward
    return jnp.asarray(back, jnp.float32), jnp.asarray(axes, jnp.float32)
