"""Turn what the walker's cameras see into observations."""

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
    """The walker's eyes."""

    camera: str = ""
    """A camera of the walker, by name; several with commas between them, for an eye each. By
    default the walker's own eye."""
    height: int = 64
    """Pixels."""
    width: int = 64
    """Pixels."""
    modality: Literal["rgb", "gray", "depth", "segmentation"] = "rgb"
    """What a pixel holds, as bytes: three colours; brightness; depth along the optical axis, 255 at
    `max_depth` and beyond; or which geom is seen, an even spread of grays from 0 for the sky to
    255."""
    max_depth: float = 10.0
    """Metres; depths from there on are all 255."""
    supersample: int = 1
    """Every colour is the mean of so many times so many rays: smooth edges at their cost."""

    @property
    def channels(self) -> int:
        """Bytes of a pixel."""
        return 3 if self.modality == "rgb" else 1

    def cameras(self, eye: str) -> dict[str, str]:
        """Return the camera of each leaf of the observation: `vision`, or `vision_CAMERA` each."""
        names = [name.strip() for name in (self.camera or eye).split(",")]
        if len(names) == 1:
            return {"vision": names[0]}
        return {f"vision_{name}": name for name in names}

    def check(self) -> None:
        """Raise a ValueError that names the first setting that is impossible."""
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
    """Return `camera` as an eye takes it."""
    return dataclasses.replace(camera, supersample=config.supersample)


def see(config: VisionConfig, scene: Scene, image: Image) -> jax.Array:
    """Return uint8[H, W, C], an image in the eye's modality."""
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
