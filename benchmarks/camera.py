"""Measure how fast the camera draws, compared with MuJoCo's own renderer and rays.

    python benchmarks/camera.py                                       # all worlds, at 64 x 64
    python benchmarks/camera.py --worlds gap_ant --sizes 32 64 128 240x320
    python benchmarks/camera.py --worlds gap_ant --num-envs 64 1024 8192 --devices 1

These are timed in turns: our camera, a batch of states at a time, on one device and on two;
`mujoco.Renderer` with EGL and with OSMesa, one image at a time, without shadows and reflections,
each in its own process; with --mjwarp also MJWarp's renderer, a batch at a time on one thread, in a
virtual environment made from peers/mjwarp.txt; and `mujoco.mj_multiRay` on one thread, which
computes distances only. All use the first camera of a world. Rates are images per second of
wall-clock time, with known poses and without compilation. The last line is one JSON object: for
each world and size, the ratios of our fastest rate over batches and devices to each of the others;
`ours_vs_mujoco_renderer` is that of the gap ant at 64 x 64 to the faster of the two libraries.
"""

import dataclasses
import json
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

# MuJoCo reads its GL library when it is imported, and dm_control's bowl is composed with one.
from gl import GL  # noqa: F401

# isort: split
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import renderers
import tyro
from machine import machine
from scenes import WORLDS, World
from turns import rates

import vnl_ppo  # noqa: F401 - sets JAX up for hosts with few cores
from envs.camera import Camera

TURN = 0.25
"""Seconds that a side works before the next has its turn."""
RAYS = "mj_multiRay"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement."""

    worlds: tuple[str, ...] = tuple(WORLDS)
    """Names of the worlds to render."""
    sizes: tuple[str, ...] = ("64",)
    """Sizes of the images: HEIGHTxWIDTH, or one number for a square."""
    num_envs: tuple[int, ...] = (64,)
    """Pictures in a batch of ours, one after the other."""
    devices: tuple[int, ...] = (1, 2)
    """Among how many devices a batch of ours is shared, one after the other; more than there
    are is left out. A CPU can be several: training shares its environments among them too."""
    gl: tuple[str, ...] = ("egl", "osmesa")
    """Libraries that MuJoCo draws with; one that does not work here is left out."""
    mjwarp: bool = False
    """Whether to measure MJWarp's renderer too, with the first of num_envs."""
    seconds: float = 1.0
    """Time spent on each side."""
    seed: int = 0


def main(settings: Settings) -> None:
    """Measures and prints."""
    jax.config.update("jax_num_cpu_devices", max(settings.devices))
    for number in settings.num_envs:
        for devices in settings.devices:
            if devices < 1 or number % devices:
                raise SystemExit(
                    f"error: --num-envs {number} --devices {devices}; expected a number of devices "
                    "that divides the pictures"
                )
    frames: dict[str, dict[str, float]] = {}
    there = jax.local_device_count()
    missing = {f"{n} devices: there are {there}" for n in settings.devices if n > there}
    for name in settings.worlds:
        world = WORLDS[name]()
        for text in settings.sizes:
            height, width = size_of(text)
            case = f"{name} {height}x{width}"
            frames[case], faults = measure(world, (height, width), settings)
            missing |= faults
            print(case, {side: round(rate, 1) for side, rate in frames[case].items()}, flush=True)
    ratio: dict[str, float] = {}
    for case, rate in frames.items():
        others = {side: x for side, x in rate.items() if not side.startswith("ours")}
        fastest = max(x for side, x in rate.items() if side not in others)
        ratio |= {f"{case} ours_vs_{side}": fastest / x for side, x in others.items()}
        drawn = [x for side, x in others.items() if side in settings.gl]
        if case == "gap_ant 64x64" and drawn:
            ratio["ours_vs_mujoco_renderer"] = fastest / max(drawn)
    report = {
        "benchmark": "camera",
        "ratio": ratio,
        "frames_per_second": frames,
        "settings": dataclasses.asdict(settings),
        "left_out": sorted(missing),
    } | machine()
    print(json.dumps(report))


def size_of(text: str) -> tuple[int, int]:
    """Height and width in pixels.

    Raises:
        SystemExit: it is neither a number nor two with an x between them.
    """
    numbers = text.split("x")
    if len(numbers) not in (1, 2) or not all(n.isdecimal() and int(n) for n in numbers):
        raise SystemExit(
            f"error: --sizes has {text!r}; expected a side or HEIGHTxWIDTH, as 240x320"
        )
    return int(numbers[0]), int(numbers[-1])


def measure(
    world: World, size: tuple[int, int], settings: Settings
) -> tuple[dict[str, float], set[str]]:
    """Rates in one world at one size, and why libraries were left out."""
    # The buffer is 640 x 480 unless asked for more.
    buffer = world.model.vis.global_
    buffer.offheight, buffer.offwidth = max(480, size[0]), max(640, size[1])
    camera = Camera.from_model(world.model, world.cameras[0], height=size[0], width=size[1])
    sides = {
        f"ours_{n}" + (f"_on_{d}" if d > 1 else ""): ours(world, camera, n, d, settings.seed)
        for n in settings.num_envs
        for d in settings.devices
        if d <= jax.local_device_count()
    }
    sides[RAYS] = distances(world, camera, settings.seed)
    drawing: list[renderers.Renderer] = []
    faults = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.mjb"
        mujoco.mj_saveModel(world.model, str(path))
        number = settings.num_envs[0] if settings.mjwarp else 1
        qpos = [data.qpos.tolist() for data in world.states(number, settings.seed)]
        others = {gl: (partial(renderers.opengl, gl), qpos[0]) for gl in settings.gl}
        if settings.mjwarp:
            others["mjwarp"] = partial(renderers.mjwarp, number=number), qpos
        for name, (start, states) in others.items():
            try:
                renderer = start(path, camera.name, size)
            except RuntimeError as error:
                faults.add(str(error))
                continue
            drawing.append(renderer)
            sides[name] = partial(renderer.draw, states, TURN)
        found = rates(sides, settings.seconds, turn=TURN)
    for renderer in drawing:
        renderer.close()
    return found, faults


def ours(world: World, camera: Camera, number: int, devices: int, seed: int) -> Callable[[], int]:
    """Draws a batch of states in colour, shared among devices; returns how many."""
    scene = world.scene()
    each = [world.arguments(scene, camera.name, data) for data in world.states(number, seed)]
    batch = [jnp.stack(x) for x in zip(*each, strict=True)]
    look = world.looker(camera)
    draw = jax.vmap(lambda *state: look(*state).rgb)
    if devices == 1:
        draw = jax.jit(draw)
    else:
        on = jax.local_devices()[:devices]
        draw = jax.pmap(draw, devices=on)
        batch = [x.reshape(devices, number // devices, *x.shape[1:]) for x in batch]
        batch = jax.pmap(lambda *x: x, devices=on)(*batch)

    def run() -> int:
        draw(*batch).block_until_ready()
        return number

    return run


def distances(world: World, camera: Camera, seed: int) -> Callable[[], int]:
    """MuJoCo's rays through every pixel."""
    model, data = world.model, next(world.states(1, seed))
    rays, k = camera.rays(), camera.number
    directions = np.stack([rays.u, rays.v, -np.ones_like(rays.u)], 1).astype(np.float64)
    directions = directions @ data.cam_xmat[k].reshape(3, 3).T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    number = len(directions)
    hits, reach = np.zeros(number, np.int32), np.zeros(number)

    def run() -> int:
        at, towards = data.cam_xpos[k], directions.ravel()
        mujoco.mj_multiRay(
            model, data, at, towards, None, 1, -1, hits, reach, None, number, mujoco.mjMAXVAL
        )
        return 1

    return run


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(tyro.cli(Settings, description=__doc__))
