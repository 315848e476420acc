"""How fast the camera draws five models of dm_control, side by side with MuJoCo.

    python benchmarks/camera_worlds.py [--num-envs 32] [--height 64] [--width 64] [--seconds 2]

Three sides take turns in one process: ours, a batch of states at a time; `mujoco.Renderer`, on EGL
or OSMesa, without shadows and reflections; and `mujoco.mj_multiRay`, one thread, which tells
distances only. Each looks through the first camera of a world. Rates are pictures per second of
wall-clock time, poses known and compilation excluded. The last line is one JSON object.
"""

import dataclasses
import json
import warnings
from collections.abc import Callable

# MuJoCo reads its GL library when it is imported.
from gl import GL

# isort: split
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import tyro
from machine import machine
from scenes import WORLDS, World
from turns import rates

import vnl_ppo  # noqa: F401 - sets JAX up for hosts with few cores
from envs.camera import Camera, Scene, render


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to measure."""

    num_envs: int = 32
    """Pictures in a batch of ours."""
    height: int = 64
    """Pixels."""
    width: int = 64
    """Pixels."""
    seconds: float = 2.0
    """Time spent on each side in each world."""
    worlds: tuple[str, ...] = tuple(WORLDS)
    """Which of them."""
    seed: int = 0


def ours(world: World, camera: Camera, settings: Settings) -> Callable[[], int]:
    """Draws a batch of states in colour; returns how many."""
    model, scene = world.model, Scene.from_model(world.model)
    k, g, lights = model.camera(camera.name).id, scene.geom_ids, scene.light_ids
    each = [
        (
            data.geom_xpos[g],
            data.geom_xmat[g].reshape(-1, 3, 3),
            model.geom_size[g],
            data.cam_xpos[k],
            data.cam_xmat[k].reshape(3, 3),
            data.light_xpos[lights],
            data.light_xdir[lights],
        )
        for data in world.states(settings.num_envs, settings.seed)
    ]
    batch = [jnp.asarray(np.stack(x), jnp.float32) for x in zip(*each, strict=True)]
    draw = jax.jit(
        jax.vmap(lambda *a: render(scene, camera, *a[:5], light_pos=a[5], light_dir=a[6]).rgb)
    )

    def run() -> int:
        draw(*batch).block_until_ready()
        return settings.num_envs

    return run


def renderers(
    world: World, camera: Camera, renderer: mujoco.Renderer, seed: int
) -> dict[str, Callable[[], int]]:
    """MuJoCo's renderer and MuJoCo's rays, a picture at a time."""
    model, data = world.model, next(world.states(1, seed))
    rays, k = camera.rays(), model.camera(camera.name).id
    directions = np.stack([rays.u, rays.v, -np.ones_like(rays.u)], 1).astype(np.float64)
    directions = directions @ data.cam_xmat[k].reshape(3, 3).T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    number = len(directions)
    hits, reach = np.zeros(number, np.int32), np.zeros(number)

    def picture() -> int:
        renderer.update_scene(data, camera.name)
        for flag in ("SHADOW", "REFLECTION"):
            renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
        renderer.render()
        return 1

    def distances() -> int:
        mujoco.mj_multiRay(
            model,
            data,
            data.cam_xpos[k],
            directions.ravel(),
            None,
            1,
            -1,
            hits,
            reach,
            None,
            number,
            mujoco.mjMAXVAL,
        )
        return 1

    return {"mujoco_renderer": picture, "mj_multiRay": distances}


def measure(name: str, settings: Settings) -> dict[str, float]:
    """Rates in one world."""
    world = WORLDS[name]()
    size = {"height": settings.height, "width": settings.width}
    camera = Camera.from_model(world.model, world.cameras[0], **size)
    with mujoco.Renderer(world.model, **size) as renderer:
        sides = renderers(world, camera, renderer, settings.seed)
        return rates({"ours": ours(world, camera, settings), **sides}, settings.seconds, turn=0.25)


def main(settings: Settings) -> None:
    """Measures and prints."""
    frames = {name: measure(name, settings) for name in settings.worlds}
    ratios = {name: rate["ours"] / rate["mujoco_renderer"] for name, rate in frames.items()}
    report = {
        "benchmark": "camera_worlds",
        "ratio": {f"{name}_vs_mujoco_renderer": ratio for name, ratio in ratios.items()},
        "frames_per_second": frames,
        "settings": dataclasses.asdict(settings),
        "gl": GL,
    } | machine()
    print(json.dumps(report))


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(tyro.cli(Settings, description=__doc__))
