"""Measure how well the camera agrees with MuJoCo's own renderer, on random states of six worlds.

    python benchmarks/camera_agreement.py [--num-states 40] [--worlds ant_in_gaps arm]
    python benchmarks/camera_agreement.py --num-states 1 --sheet docs/camera

Every state is drawn from two cameras and compared pixel by pixel: the share of pixels that show the
same geom, away from the edges of geoms and overall; the share, of those away from edges, whose
depth is within 0.5 %; and the peak signal-to-noise ratio of the colours. MuJoCo draws without
shadows, reflections, haze, sites, tendons and skins, and its balls have 128 slices instead of 28,
since ours are round. The last line is one JSON object: for each world the worst image and the
mean. `--sheet` also writes images: ours, MuJoCo's, and three times their difference.
"""

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path

# MuJoCo reads its GL library when it is imported.
from gl import GL

# isort: split
import imageio.v2 as imageio
import jax
import mujoco
import numpy as np
import tyro
from machine import machine
from scenes import WORLDS, World

import vnl_ppo  # noqa: F401 - sets JAX up for hosts with few cores
from envs.camera import Camera, Image


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the comparison."""

    num_states: int = 40
    """Random states of each world, each from two cameras."""
    worlds: tuple[str, ...] = tuple(WORLDS)
    """Names of the worlds to render."""
    height: int = 64
    """Pixels."""
    width: int = 64
    """Pixels."""
    supersample: int = 2
    """Rays along each side of a pixel of ours."""
    samples: int = 4
    """Samples of each pixel of MuJoCo's, its own default."""
    seed: int = 0
    sheet: Path | None = None
    """A folder for pictures."""


def looker(world: World, name: str, settings: Settings) -> Callable[[mujoco.MjData], Image]:
    """Our picture of a state, as NumPy arrays."""
    camera = Camera.from_model(
        world.model,
        name,
        height=settings.height,
        width=settings.width,
        supersample=settings.supersample,
    )
    scene, draw = world.scene(), jax.jit(world.looker(camera))
    return lambda data: jax.tree.map(np.asarray, draw(*world.arguments(scene, name, data)))


def reference(renderer: mujoco.Renderer, data: mujoco.MjData, camera: str) -> Image:
    """MuJoCo's picture of a state."""
    option = mujoco.MjvOption()
    option.sitegroup[:] = 0
    option.tendongroup[:] = 0
    option.flags[mujoco.mjtVisFlag.mjVIS_SKIN] = 0
    renderer.update_scene(data, camera, option)
    for flag in ("SHADOW", "REFLECTION", "HAZE"):
        renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
    rgb = renderer.render().copy()
    renderer.enable_depth_rendering()
    depth = renderer.render().copy()
    renderer.disable_depth_rendering()
    renderer.enable_segmentation_rendering()
    labels = renderer.render().copy()
    renderer.disable_segmentation_rendering()
    return Image(
        rgb, depth, np.where(labels[..., 1] == mujoco.mjtObj.mjOBJ_GEOM, labels[..., 0], -1)
    )


def off_edge(labels: np.ndarray) -> np.ndarray:
    """bool[H, W]: the eight neighbours show the same geom."""
    height, width = labels.shape
    padded = np.pad(labels, 1, mode="edge")
    shifts = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.all([shift == labels for shift in shifts], axis=0)


def compare(ours: Image, theirs: Image) -> dict[str, float]:
    """Agreement of one picture; see above."""
    same, inner = ours.segmentation == theirs.segmentation, off_edge(theirs.segmentation)
    seen = same & inner & (theirs.segmentation >= 0)
    error = np.abs(ours.depth[seen] / theirs.depth[seen] - 1)
    square = np.square(ours.rgb.astype(float) - theirs.rgb).mean()
    return {
        "segmentation": float(same[inner].mean()),
        "segmentation_overall": float(same.mean()),
        "depth": float((error < 0.005).mean()) if seen.any() else 1.0,
        "psnr": float(10 * np.log10(255**2 / max(square, 1e-6))),
    }


def measure(name: str, settings: Settings) -> dict[str, float]:
    """Agreement in one world: means, and the worst of all pictures."""
    world = WORLDS[name]()
    quality = world.model.vis.quality
    quality.offsamples, quality.numslices, quality.numstacks = settings.samples, 128, 64
    results, rows = [], []
    with mujoco.Renderer(world.model, settings.height, settings.width) as renderer:
        for camera in world.cameras:
            look = looker(world, camera, settings)
            for data in world.states(settings.num_states, settings.seed):
                ours, theirs = look(data), reference(renderer, data, camera)
                results.append(compare(ours, theirs))
                rows.append(row_of(ours, theirs))
    if settings.sheet:
        settings.sheet.mkdir(parents=True, exist_ok=True)
        imageio.imwrite(settings.sheet / f"{name}.png", np.concatenate(rows))
    values = {key: np.array([result[key] for result in results]) for key in results[0]}
    worst = {f"{key}_worst": float(value.min()) for key, value in values.items()}
    return {key: float(value.mean()) for key, value in values.items()} | worst


def row_of(ours: Image, theirs: Image) -> np.ndarray:
    """uint8[H, 3 W, 3]: ours, MuJoCo's, and three times the difference."""
    difference = np.abs(ours.rgb.astype(int) - theirs.rgb) * 3
    return np.concatenate([ours.rgb, theirs.rgb, np.minimum(difference, 255).astype(np.uint8)], 1)


def main(settings: Settings) -> None:
    """Measures and prints."""
    agreement = {name: measure(name, settings) for name in settings.worlds}
    report = {
        "benchmark": "camera_agreement",
        "agreement": agreement,
        "settings": dataclasses.asdict(settings) | {"sheet": str(settings.sheet)},
        "gl": GL,
    } | machine()
    print(json.dumps(report))


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(tyro.cli(Settings, description=__doc__))
