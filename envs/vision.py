"""Turn the images of the walker's cameras into observations."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from envs.camera import Camera, Image, Scene

MAX_PIXELS = 1024
_LEVELS = 254
"""Number of gray levels between that of the sky and that of boxes in a row."""


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
    binocular: bool = False
    """Whether each eye is two cameras, to the left and to the right of the one in the model."""
    baseline: float = 0.0
    """Distance between the two cameras of a binocular eye, metres."""
    vergence: float = 0.0
    """Angle between the optical axes of the two cameras, degrees: above 0 they cross in front of
    the eye, below 0 each looks to its own side."""
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
        """Return the camera's name by leaf: `vision`, or several `vision_CAMERA`; default `eye`.

        A binocular eye has two leaves, with `_left` and `_right` added to its name.
        """
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
        if not 0 <= self.baseline < math.inf:
            raise ValueError(f"vision.baseline is {self.baseline} m; it has to be 0 or more")
        if not abs(self.vergence) < 180:
            raise ValueError(
                f"vision.vergence is {self.vergence} degrees; it has to lie between -180 and 180"
            )
        if self.binocular != bool(self.baseline or self.vergence):
            raise ValueError(
                f"vision.binocular is {self.binocular}, vision.baseline {self.baseline} m and "
                f"vision.vergence {self.vergence} degrees; binocular eyes need at least one of the "
                "two, and other eyes have neither"
            )
        names = [name.strip() for name in self.camera.split(",")]
        if len(set(names)) < len(names):
            raise ValueError(f"vision.camera is {self.camera!r}; it names a camera twice")


def make_eyes(config: VisionConfig, leaf: str, camera: Camera) -> dict[str, Camera]:
    """Return the cameras of one eye by leaf, with the supersampling of `config`: `camera` itself,
    or one on each side of it."""
    camera = dataclasses.replace(camera, supersample=config.supersample)
    if not config.binocular:
        return {leaf: camera}
    half, turn = config.baseline / 2, math.radians(config.vergence) / 2
    # Where the axes cross ahead, the left camera is turned to the right.
    return {
        f"{leaf}_left": dataclasses.replace(camera, shift=-half, turn=-turn),
        f"{leaf}_right": dataclasses.replace(camera, shift=half, turn=turn),
    }


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
    if len(drawn) > _LEVELS:
        raise ValueError(
            f"vision.modality is segmentation, which has gray levels for {_LEVELS} things, but "
            f"this world has {len(drawn)}; use a shorter arena, or another modality"
        )
    grays = np.zeros(num_geoms + 2, np.uint8)
    grays[drawn + 1] = np.round(255 * np.arange(1, len(drawn) + 1) / (len(drawn) + 1))
    grays[-1] = 255
    return grays
