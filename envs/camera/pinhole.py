"""Define a pinhole camera: the size of its image and the directions of its rays."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.camera.primitives import FAR, Rays


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera as in MuJoCo.

    Pixel (0, 0) is top left, and rays go through the centres of pixels.

    Attributes:
        height: height of the image, pixels.
        width: width of the image, pixels.
        fovy: vertical field of view, degrees.
        near: distance along the optical axis below which nothing is drawn, metres.
        name: name of the camera in the model; empty if it is not from a model.
        far: distance along the optical axis beyond which nothing is drawn, metres.
        supersample: the colour of a pixel is the mean of supersample x supersample rays.
    """

    height: int = 64
    width: int = 64
    fovy: float = 45.0
    near: float = 0.01
    name: str = ""
    far: float = float(FAR)
    supersample: int = 1

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
        name: str,
        *,
        height: int = 64,
        width: int = 64,
        supersample: int = 1,
    ) -> "Camera":
        """Return a camera with the field of view and the near and far planes of one in `model`.

        Args:
            model: a compiled model.
            name: the camera's name, with the prefix of any attached model.
            height: height of the image, pixels.
            width: width of the image, pixels.
            supersample: rays along each side of a pixel.

        Raises:
            ValueError: there is no such camera, it is orthographic, it sets its own sensor size, or
              a size is below 1.
        """
        camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
        if camera < 0:
            names = ", ".join(repr(model.camera(i).name) for i in range(model.ncam)) or "none"
            raise ValueError(f"the model has no camera named {name!r}; it has: {names}.")
        if model.cam_sensorsize[camera, 0] > 0 or model.cam_projection[camera] != 0:
            raise ValueError(
                f"camera {name!r} is orthographic or sets its own sensor size; only perspective "
                "cameras that give `fovy` can be drawn."
            )
        near, far = (
            float(x * model.stat.extent) for x in (model.vis.map.znear, model.vis.map.zfar)
        )
        fovy = float(model.cam_fovy[camera])
        return cls(height, width, fovy, near, name, min(far, float(FAR)), supersample)

    @property
    def pixel(self) -> float:
        """Width of a ray's share of a pixel at a distance of one metre, metres."""
        return 2 * float(np.tan(np.deg2rad(self.fovy) / 2)) / (self.height * self.supersample)

    @property
    def focal(self) -> float:
        """Focal length, pixels."""
        return 0.5 * self.height / float(np.tan(np.deg2rad(self.fovy) / 2))

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
