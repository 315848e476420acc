"""Boxes and a ball whose places and sizes are arguments of `render`, against the same ones in the
model, drawn by MuJoCo."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.arenas.gaps import Gaps
from envs.camera import Camera, Image, Scene, render
from tests.envs.renderer import assert_alike, mujoco_draws

PLATFORMS, WALLS = 24, 6
NUMBER = PLATFORMS + WALLS + 1
"""Number of geoms that differ: platforms with dm_control's texture, plain boxes, and a ball."""
LAYOUTS = 4
CAMERAS = {
    "ahead": 'pos="3 0.2 0.7" xyaxes="0 -1 0 0.15 0 1"',
    "above": 'pos="9 -3 4" xyaxes="0.6 -0.8 0 0.4 0.3 0.9"',
    "back": 'pos="16 1 1.2" xyaxes="0 1 0 -0.3 0 1"',
}
SIZE = (64, 64)


def compile_world(position, size, hidden=()):
    """A corridor of dm_control with the geoms at its end; those in `hidden` are not shown."""
    root = Gaps().build()
    # MuJoCo scales near and far by the extent, which depends on where the geoms are.
    root.statistic.extent, root.statistic.center = 30, [15, 0, 0]
    for name, where in CAMERAS.items():
        pos, axes = (text.split('"')[1] for text in where.split("xyaxes"))
        numbers = [[float(x) for x in text.split()] for text in (pos, axes)]
        root.worldbody.add("camera", name=name, pos=numbers[0], xyaxes=numbers[1], fovy=80)
    for i in range(NUMBER):
        look = {"rgba": [0.3, 0.6, 0.2 + 0.1 * (i % 3), 1]}
        if i < PLATFORMS:
            look = {"material": root.find("material", "aesthetic_material")}
        kind = "sphere" if i == NUMBER - 1 else "box"
        place = {"type": kind, "size": size[i], "group": 4 if i in hidden else 0}
        body = root.worldbody.add("body", pos=position[i])
        body.add("geom", name=f"differs_{i}", **place, **look)
    return mujoco.MjModel.from_xml_string(root.to_xml_string(), root.get_assets())


def random_layout(rng):
    """Positions and sizes: stepping stones in a corridor, and walls and a ball on them."""
    x = np.cumsum(rng.uniform(0.8, 1.4, PLATFORMS)) - 1
    half = np.column_stack([rng.uniform(0.2, 0.6, PLATFORMS), rng.uniform(0.3, 2, PLATFORMS)])
    position = np.column_stack([x, rng.uniform(-1, 1, PLATFORMS), np.full(PLATFORMS, -0.16)])
    size = np.column_stack([half, np.full(PLATFORMS, 0.16)])
    tall = rng.uniform(0.2, 0.8, WALLS)
    walls = np.column_stack([rng.uniform(5, 15, WALLS), rng.uniform(-2, 2, WALLS), tall])
    thick = np.column_stack([rng.uniform(0.05, 0.3, WALLS), rng.uniform(0.2, 1, WALLS), tall])
    ball = [rng.uniform(6, 12), rng.uniform(-1, 1), 0.4]
    position = np.concatenate([position, walls, [ball]])
    size = np.concatenate([size, thick, [[rng.uniform(0.2, 0.5), 0, 0]]])
    chosen = rng.permutation(NUMBER - 1)
    position[chosen[:4], 0] = 1e4
    size[chosen[4:8]] = 0
    return position, size


@pytest.fixture(scope="module")
def layouts():
    rng = np.random.default_rng(0)
    return [random_layout(rng) for _ in range(LAYOUTS)]


@pytest.mark.slow
def test_geoms_moved_by_arguments_look_as_in_a_model_of_their_own(layouts, tmp_path):
    unit = np.tile([[5.0, 0, -3]], (NUMBER, 1)), np.full((NUMBER, 3), 0.5)
    model = compile_world(*unit)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    scene = Scene.from_model(model)
    drawn, first = scene.geom_ids, model.ngeom - NUMBER
    frames = jnp.asarray(data.geom_xmat.reshape(-1, 3, 3)[drawn], jnp.float32)

    def draw(camera, eye, position, size):
        every = np.broadcast_to(data.geom_xpos, (LAYOUTS, *data.geom_xpos.shape)).copy()
        sizes = np.broadcast_to(model.geom_size, every.shape).copy()
        every[:, first:], sizes[:, first:] = position, size
        moved = (jnp.asarray(x[:, drawn], jnp.float32) for x in (every, sizes))
        look = lambda where, extent: render(scene, camera, where, frames, extent, *eye)
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(look))(*moved))

    pictures = {}
    for name in CAMERAS:
        camera = Camera.from_model(model, name, height=SIZE[0], width=SIZE[1], supersample=2)
        k = model.camera(name).id
        eye = data.cam_xpos[k], data.cam_xmat[k].reshape(3, 3)
        eye = [jnp.asarray(x, jnp.float32) for x in eye]
        pictures[name] = draw(camera, eye, *(np.stack(x) for x in zip(*layouts, strict=True)))

    static = []
    for position, size in layouts:
        hidden = np.flatnonzero(~size.any(1))
        shown = np.where(size.any(1, keepdims=True), size, 0.5)
        static.append(compile_world(position, shown, hidden))
    expected = mujoco_draws(static, np.zeros((LAYOUTS, 1, 0)), list(CAMERAS), SIZE, tmp_path)
    seen = set()
    for i in range(LAYOUTS):
        for j, name in enumerate(CAMERAS):
            ours = jax.tree.map(lambda x, i=i: x[i], pictures[name])
            theirs = Image(*(x[i, 0, j] for x in vars(expected).values()))
            assert_alike(ours, theirs, f"layout {i}, camera {name}")
            seen |= set(np.unique(ours.segmentation))
    # Nearly all of them are seen from somewhere, but none that is hidden in all layouts.
    assert sum(first + i in seen for i in range(NUMBER)) >= 0.8 * NUMBER
