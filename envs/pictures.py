"""Draw what the cameras of a model see."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import mujoco

from envs.camera import Camera, Image, Scene, render
from envs.camera.scene import VISIBLE_GROUPS
from envs.interfaces import Boxes, Visible
from envs.kinematics import Poses


class Pictures:
    """A model with textures, and the images that its cameras take.

    Args:
        model: a model with textures. Its last geoms may be those that `Visible.geoms` moves.
        row: names of geoms that the boxes of `Visible.row` look like.
        hidden: geom groups that are left out besides those that MuJoCo's renderer leaves out.
    """

    def __init__(
        self, model: mujoco.MjModel, row: Sequence[str] = (), hidden: Sequence[int] = ()
    ) -> None:
        self.model = model
        groups = [group for group in VISIBLE_GROUPS if group not in hidden]
        self.scene = Scene.from_model(model, row=row, groups=groups)

    def camera(self, name: str | int, height: int, width: int) -> Camera:
        """Return a camera of the model by its full name or number; see `Camera.from_model`."""
        return Camera.from_model(self.model, name, height=height, width=width)

    def draw(
        self,
        camera: Camera,
        poses: Poses,
        visible: Visible | None = None,
        pose: tuple[jax.Array, jax.Array] | None = None,
    ) -> Image:
        """Draw the image that `camera` takes.

        Args:
            camera: a camera from `camera`, or any other if `pose` is given.
            poses: poses of the model's bodies, geoms, cameras and lights, without the geoms that
                `visible` moves.
            visible: the geoms that differ between episodes; None for none.
            pose: float32[3] and float32[3, 3], the camera's position, metres, and its axes as
                columns; None for its pose in `poses`, moved and turned as `Camera.placed` does.
        """
        scene, visible = self.scene, visible or Visible()
        drawn, lights = scene.geom_ids, scene.light_ids
        if pose is None:
            pose = camera.placed(poses.cam_xpos[camera.number], poses.cam_xmat[camera.number])
        position, rotation = poses.geom_xpos, poses.geom_xmat
        size = jnp.asarray(scene.sizes)
        if visible.geoms is not None:
            position, rotation, size = self._placed(poses, visible.geoms)
        return render(
            scene,
            camera,
            position[drawn],
            rotation[drawn],
            size,
            *pose,
            visible.row,
            *((poses.light_xpos[lights], poses.light_xdir[lights]) if len(lights) else ()),
        )

    def _placed(self, poses: Poses, geoms: Boxes) -> tuple[jax.Array, jax.Array, jax.Array]:
        upright = jnp.broadcast_to(jnp.eye(3), (len(geoms.position), 3, 3))
        position = jnp.concatenate([poses.geom_xpos, geoms.position])
        rotation = jnp.concatenate([poses.geom_xmat, upright])
        own = jnp.asarray(self.model.geom_size[: len(poses.geom_xpos)], jnp.float32)
        return position, rotation, jnp.concatenate([own, geoms.size])[self.scene.geom_ids]
