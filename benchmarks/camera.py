"""How fast the camera is, and how right, side by side with MuJoCo's own renderer.

    python benchmarks/camera.py [--num-envs 64] [--height 64] [--width 64] [--seconds 5]

Both draw what the ant sees in the same states of one dm_control gap corridor: ours a batch at a
time, MuJoCo's picture by picture, on EGL or OSMesa, whichever works here. They take turns in one
process. Rates are pictures per second of wall-clock time, poses known and compilation excluded.
Agreement is the share of pixels, off the edges of objects and overall, that show the same geom, and
that have the same depth within 1 % (with 1 mm for MuJoCo's facetted balls), for the ant's own and
two outside views. The last line is one JSON object.
"""

import dataclasses
import json
import warnings
from collections.abc import Callable, Sequence

# MuJoCo reads its GL library when it is imported.
from gl import GL

# isort: split
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import tyro
from machine import machine
from turns import rates

import vnl_ppo  # noqa: F401 - sets JAX up for hosts with few cores
from envs import camera, world
from envs.corridor import CorridorConfig, Layout, draw_layout

CAMERAS = ("egocentric", "floating", "sideon")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to measure."""

    num_envs: int = 64
    """Pictures in a batch of ours."""
    height: int = 64
    """Pixels."""
    width: int = 64
    """Pixels."""
    seconds: float = 5.0
    """Time spent on each side."""
    num_states: int = 24
    """Random states in which labels and depths are compared, each from three cameras."""
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Stage:
    """The full arena of one layout, and the platforms' geom ids in it."""

    model: mujoco.MjModel
    layout: Layout
    platforms: np.ndarray
    scene: camera.Scene


def build_stage(seed: int) -> Stage:
    """A corridor with gaps from 0.1 to 0.8 m."""
    config = CorridorConfig(gap_length=(0.1, 0.8))
    layout = draw_layout(jax.random.key(seed), config)
    model = world.arena_model(layout, config, world.PhysicsConfig())
    names = [model.geom(i).name for i in range(model.ngeom)]
    row = [name for name in names if name.startswith(("start_floor", "floor_"))]
    ids = np.array([model.geom(name).id for name in row])
    return Stage(model, layout, ids, camera.Scene.from_model(model, row=row))


def random_states(stage: Stage, number: int, seed: int) -> list[mujoco.MjData]:
    """The ant anywhere in the corridor, turned and bent; every other one just before a gap."""
    rng = np.random.default_rng(seed)
    ends = np.asarray(stage.layout.ends)
    ends = ends[ends < 38][1:]
    states = []
    for i in range(number):
        data = mujoco.MjData(stage.model)
        x = rng.choice(ends) - rng.uniform(0.3, 0.8) if i % 2 else rng.uniform(5, 35)
        data.qpos[:3] = x, rng.uniform(-1, 1), rng.uniform(0, 0.3)
        turn = [1, 0, 0, 0] + rng.normal(size=4) * [0, 0.2, 0.2, 0.3]
        data.qpos[3:7] = turn / np.linalg.norm(turn)
        data.qpos[7:] = rng.uniform(-0.5, 0.5, stage.model.nq - 7)
        mujoco.mj_forward(stage.model, data)
        states.append(data)
    return states


def arguments(stage: Stage, data: mujoco.MjData, name: str) -> tuple[np.ndarray, ...]:
    """What `camera.render` takes after scene and camera, in one state."""
    k, g = stage.model.camera(world.WALKER + name).id, stage.scene.geom_ids
    edges = np.stack([stage.layout.starts, stage.layout.ends], axis=-1)
    poses = (data.geom_xpos[g], data.geom_xmat[g].reshape(-1, 3, 3), stage.model.geom_size[g])
    eye = (data.cam_xpos[k], data.cam_xmat[k].reshape(3, 3))
    return tuple(np.asarray(x, np.float32) for x in (*poses, *eye, edges))


def ours(stage: Stage, name: str, settings: Settings) -> Callable[..., camera.Image]:
    """Draws a batch: takes `arguments` stacked."""
    eye = camera.Camera.from_model(
        stage.model, world.WALKER + name, height=settings.height, width=settings.width
    )
    return jax.vmap(lambda *args: camera.render(stage.scene, eye, *args))


def stacked(stage: Stage, states: Sequence[mujoco.MjData], name: str) -> tuple[jax.Array, ...]:
    """`arguments` of all states, with a leading axis."""
    each = [arguments(stage, data, name) for data in states]
    return tuple(jnp.asarray(np.stack(x)) for x in zip(*each, strict=True))


def off_edge(labels: np.ndarray) -> np.ndarray:
    """bool[H, W]: the eight neighbours show the same geom."""
    height, width = labels.shape
    padded = np.pad(labels, 1, mode="edge")
    shifts = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.all([shift == labels for shift in shifts], axis=0)


def agreement(
    stage: Stage,
    renderer: mujoco.Renderer,
    states: Sequence[mujoco.MjData],
    settings: Settings,
) -> dict[str, float]:
    """Shares of equal labels and depths, means over pictures and their worst."""
    option = mujoco.MjvOption()
    option.sitegroup[:] = 0
    shares: dict[str, list[float]] = {"segmentation": [], "segmentation_overall": [], "depth": []}
    for name in CAMERAS:
        images = jax.jit(ours(stage, name, settings))(*stacked(stage, states, name))
        labels = np.asarray(images.segmentation)
        row = labels >= stage.scene.num_geoms
        labels = np.where(
            row, stage.platforms[np.where(row, labels - stage.model.ngeom, 0)], labels
        )
        for data, label, depth in zip(states, labels, np.asarray(images.depth), strict=True):
            renderer.update_scene(data, world.WALKER + name, option)
            renderer.enable_depth_rendering()
            true_depth = renderer.render().copy()
            renderer.disable_depth_rendering()
            renderer.enable_segmentation_rendering()
            truth = renderer.render()[..., 0].copy()
            renderer.disable_segmentation_rendering()
            inner, same = off_edge(truth), label == truth
            seen = inner & same & (truth >= 0)
            error = np.abs(depth[seen] - true_depth[seen])
            shares["segmentation"].append(same[inner].mean())
            shares["segmentation_overall"].append(same.mean())
            shares["depth"].append((error < 0.01 * true_depth[seen] + 1e-3).mean())
    means = {key: float(np.mean(value)) for key, value in shares.items()}
    return means | {f"{key}_worst": float(np.min(value)) for key, value in shares.items()}


def speed(stage: Stage, renderer: mujoco.Renderer, settings: Settings) -> dict[str, float]:
    """Pictures per second: ours in colour, ours in depth, MuJoCo's in colour."""
    states = random_states(stage, settings.num_envs, settings.seed + 1)
    batch = stacked(stage, states, "egocentric")
    view = ours(stage, "egocentric", settings)
    colour, depth = jax.jit(lambda *a: view(*a).rgb), jax.jit(lambda *a: view(*a).depth)

    def mujoco_picture() -> int:
        renderer.update_scene(states[0], world.EGOCENTRIC)
        renderer.render()
        return 1

    def batch_of(draw: Callable[..., jax.Array]) -> Callable[[], int]:
        def run() -> int:
            draw(*batch).block_until_ready()
            return settings.num_envs

        return run

    sides = {"ours": batch_of(colour), "ours_depth": batch_of(depth), "mujoco": mujoco_picture}
    return rates(sides, settings.seconds, turn=0.25)


def main(settings: Settings) -> None:
    """Measures and prints."""
    stage = build_stage(settings.seed)
    # The arena's buffer is 640 x 480 unless asked for more.
    stage.model.vis.global_.offheight = max(480, settings.height)
    stage.model.vis.global_.offwidth = max(640, settings.width)
    with mujoco.Renderer(stage.model, settings.height, settings.width) as renderer:
        states = random_states(stage, settings.num_states, settings.seed)
        agreed = agreement(stage, renderer, states, settings)
        frames = speed(stage, renderer, settings)
    report = {
        "benchmark": "camera",
        "ratio": {"ours_vs_mujoco_renderer": frames["ours"] / frames["mujoco"]},
        "agreement": agreed,
        "frames_per_second": frames,
        "settings": dataclasses.asdict(settings),
        "gl": GL,
    } | machine()
    print(json.dumps(report))


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(tyro.cli(Settings, description=__doc__))
