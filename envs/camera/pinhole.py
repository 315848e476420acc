"""Define a pinhole camera: the size of its image and the directions of its rays."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.camera.primitives import FAR, Rays

FREE = -1
"""Number of MuJoCo's free camera, which every model has; see `free_pose`."""


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera as in MuJoCo.

    Pixel (0, 0) is top left, and rays go through the centres of pixels.

    Attributes:
        height: height of the image, pixels.
        width: width of the image, pixels.
        fovy: vertical field of view, degrees.
        near: distance along the optical axis below which nothing is drawn, metres.
        name: name of the camera in the model; empty if it has none, or is not from a model.
        far: distance along the optical axis beyond which nothing is drawn, metres.
        supersample: the colour of a pixel is the mean of supersample x supersample rays.
        number: number of the camera in the model; `FREE` if it is none of the model's.
        shift: distance along its own x axis, to its right, from the camera in the model, metres.
        turn: angle about its own y axis, to its left, from the camera in the model, radians.
    """

    height: int = 64
    width: int = 64
    fovy: float = 45.0
    near: float = 0.01
    name: str = ""
    far: float = float(FAR)
    supersample: int = 1
    number: int = FREE
    shift: float = 0.0
    turn: float = 0.0

    def __post_init__(self) -> None:
        """Raise a ValueError that names the first invalid value."""
        for field, what in (("height", "pixel"), ("width", "pixel"), ("supersample", "ray")):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field} is {getattr(self, field)}; it must be 1 {what} or more.")
        if not 0 < self.near < self.far:
            raise ValueError(
                f"near is {self.near}; it must lie between 0 and far, {self.far} metres."
            )
        if not 0 < self.fovy < 180:
            raise ValueError(f"fovy is {self.fovy}; it must lie between 0 and 180 degrees.")

    @classmethod
    def from_model(
        cls,
        model: mujoco.MjModel,
        camera: str | int,
        *,
        height: int = 64,
        width: int = 64,
        supersample: int = 1,
    ) -> "Camera":
        """Return a camera with the field of view and the near and far planes of one in `model`.

        Args:
            model: a compiled model.
            camera: the camera's name, with the prefix of any attached model, or its number; -1 for
              MuJoCo's free camera.
            height: height of the image, pixels.
            width: width of the image, pixels.
            supersample: rays along each side of a pixel.

        Raises:
            ValueError: there is no such camera, it is orthographic, it sets its own sensor size, or
              a size is below 1.
        """
        named = isinstance(camera, str)
        kind = mujoco.mjtObj.mjOBJ_CAMERA
        number = mujoco.mj_name2id(model, kind, camera) if named else int(camera)
        if not (0 if named else FREE) <= number < model.ncam:
            names = ", ".join(repr(model.camera(i).name or i) for i in range(model.ncam)) or "none"
            raise ValueError(
                f"the model has no camera {'named ' * named}{camera!r}; it has: {names}. "
                f"{FREE} is MuJoCo's free camera."
            )
        looks = model.vis.global_
        if number == FREE:
            name, fovy, flat = "", looks.fovy, looks.orthographic != 0
        else:
            name, fovy = model.camera(number).name, model.cam_fovy[number]
            flat = model.cam_sensorsize[number, 0] > 0 or model.cam_projection[number] != 0
        if flat:
            raise ValueError(
                f"camera {camera!r} is orthographic or sets its own sensor size; only perspective "
                "cameras that give `fovy` can be drawn."
            )
        near, far = (
            float(x * model.stat.extent) for x in (model.vis.map.znear, model.vis.map.zfar)
        )
        far = min(far, float(FAR))
        return cls(height, width, float(fovy), near, name, far, supersample, number)

    @property
    def pixel(self) -> float:
        """Width of a ray's share of a pixel at a distance of one metre, metres."""
        return 2 * float(np.tan(np.deg2rad(self.fovy) / 2)) / (self.height * self.supersample)

    @property
    def focal(self) -> float:
        """Focal length, pixels."""
        return 0.5 * self.height / float(np.tan(np.deg2rad(self.fovy) / 2))

    def placed(self, position: jax.Array, rotation: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the pose of this camera, given that of the camera in the model.

        Args:
            position: float32[3], metres.
            rotation: float32[3, 3], axes as columns.
        """
        if self.shift:
            position = position + self.shift * rotation[:, 0]
        if self.turn:
            right, up, back = rotation.T
            cos, sin = float(np.cos(self.turn)), float(np.sin(self.turn))
            rotation = jnp.stack([cos * right - sin * back, up, cos * back + sin * right], axis=-1)
        return position, rotation

    def rays(self) -> Rays:
        """Return one ray per pixel, row by row from the top left; R = height * width."""
        u = (np.arange(self.width) + 0.5 - self.width / 2) / self.focal
        v = (self.height / 2 - np.arange(self.height) - 0.5) / self.focal
        u, v = (x.astype(np.float32).ravel() for x in np.meshgrid(u, v))
        return Rays(u, v, 1 + u * u + v * v, self.near)

    def rays_at(self, column: jax.Array, row: jax.Array) -> Rays:
        """Return the rays of n pixels, given by their columns int32[n] and rows int32[n]."""
        scale = np.float32(1 / self.focal)
        u = (column.astype(jnp.float32) + np.float32(0.5 - self.width / 2)) * scale
        v = (np.float32(self.height / 2 - 0.5) - row.astype(jnp.float32)) * scale
        return Rays(u, v, 1 + u * u + v * v, self.near)

    def finer(self) -> "Camera":
        """Return the same view with one pixel for each of the supersample x supersample rays."""
        height, width = self.height * self.supersample, self.width * self.supersample
        return dataclasses.replace(self, height=height, width=width, supersample=1)


def free_pose(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Return where MuJoCo's free camera is when it first looks at a model.

    Source: MuJoCo's `mjv_defaultFreeCamera`.

    Returns:
        float32[3], its position, metres, and float32[3, 3], its axes as columns.
    """
    looks = model.vis.global_
    azimuth, elevation = np.deg2rad([looks.azimuth, looks.elevation])
    ahead = np.array([np.cos(azimuth), np.sin(azimuth)])
    forward = np.append(np.cos(elevation) * ahead, np.sin(elevation))
    right = np.array([ahead[1], -ahead[0], 0.0])
    axes = np.stack([right, np.cross(right, forward), -forward], axis=-1)
    position = model.stat.center - 1.5 * model.stat.extent * forward
    return position.astype(np.float32), axes.astype(np.float32)
