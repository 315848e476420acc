"""Turn the images of the walker's cameras into observations."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera import Camera, Image, Scene

MAX_PIXELS = 1024


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Settings of the walker's eyes, the cameras that the policy sees through."""

    camera: str = ""
    """Name of a camera of the walker; several names with commas between them give several eyes.
    Empty for the walker's default eye."""
    height: int = 64
    """Height of the image, pixels."""
    width: int = 64
    """Width of the image, pixels."""
    modality: Literal["rgb", "gray", "depth", "segmentation"] = "rgb"
    """Contents of a pixel, in bytes. rgb: three colours; gray: brightness; depth: along the optical
    axis, 255 for max_depth and beyond; segmentation: a gray level for each geom, 0 for the sky."""
    max_depth: float = 10.0
    """Depth that is shown as 255, metres; greater depths are 255 too."""
    supersample: int = 1
    """Rays along each side of a pixel, whose colour is the mean of supersample^2 rays: smoother
    edges for supersample^2 times the cost."""

    @property
    def channels(self) -> int:
        """Number of channels of a pixel, one byte each."""
        return 3 if self.modality == "rgb" else 1

    def cameras(self, eye: str) -> dict[str, str]:
        """Return the camera's name by leaf: `vision`, or several `vision_CAMERA`; default `eye`."""
        names = [name.strip() for name in (self.camera or eye).split(",")]
        if len(names) == 1:
            return {"vision": names[0]}
        return {f"vision_{name}": name for name in names}

    def check(self) -> None:
        """Raise a ValueError that names the first invalid setting."""
        modalities = get_args(VisionConfig.__annotations__["modality"])
        if self.modality not in modalities:
            known = ", ".join(modalities)
            raise ValueError(f"vision.modality is {self.modality!r}; it has to be one of {known}")
        if not self.max_depth > 0:
            raise ValueError(f"vision.max_depth is {self.max_depth} m; it has to be above 0")
        for name in ("height", "width"):
            if (pixels := getattr(self, name)) > MAX_PIXELS:
                raise ValueError(
                    f"vision.{name} is {pixels}; it has to be at most {MAX_PIXELS} pixels"
                )
        names = [name.strip() for name in self.camera.split(",")]
        if len(set(names)) < len(names):
            raise ValueError(f"vision.camera is {self.camera!r}; it names a camera twice")


def make_eye(config: VisionConfig, camera: Camera) -> Camera:
    """Return `camera` with the supersampling of `config`."""
    return dataclasses.replace(camera, supersample=config.supersample)


def see(config: VisionConfig, scene: Scene, image: Image) -> jax.Array:
    """Return an image as uint8[H, W, C], in the modality of `config`."""
    if config.modality == "rgb":
        return image.rgb
    if config.modality == "gray":
        return image.gray[..., None]
    if config.modality == "depth":
        near = jnp.minimum(image.depth * (1 / config.max_depth), 1)
        return jnp.round(near * 255).astype(jnp.uint8)[..., None]
    # Entry 0 is the sky, whose label is -1; boxes of a row come after all geoms.
    grays = _grays(scene.geom_ids, scene.num_geoms)
    return jnp.asarray(grays)[jnp.minimum(image.segmentation + 1, len(grays) - 1)][..., None]


def _grays(drawn: Sequence[int] | np.ndarray, num_geoms: int) -> np.ndarray:
    drawn = np.asarray(drawn)
    grays = np.zeros(num_geoms + 2, np.uint8)
    grays[drawn + 1] = np.round(255 * np.arange(1, len(drawn) + 1) / (len(drawn) + 1))
    grays[-1] = 255
    return grays
