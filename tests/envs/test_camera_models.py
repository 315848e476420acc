"""Geoms of every kind against MuJoCo's rays; light, glass and smooth edges against arithmetic."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.camera import Camera, Scene, render

SIZE = 32
BUMPS = " ".join(str(x) for x in np.random.default_rng(0).uniform(0, 1, 81).round(3))
MODEL = f"""<mujoco>
  <asset>
    <hfield name="hills" nrow="9" ncol="9" size="3 3 0.6 0.2" elevation="{BUMPS}"/>
    <mesh name="wedge" vertex="0 0 0  1 0 0  0 1 0  0 0 1  1 0 1"/>
  </asset>
  <worldbody>
    <camera name="eye" fovy="70"/>
    <geom type="hfield" hfield="hills" pos="0 0 -1"/>
    <geom type="cylinder" size="0.4 0.5" pos="1 0.5 0.6" euler="40 20 0"/>
    <geom type="ellipsoid" size="0.6 0.3 0.2" pos="-1 0.4 0.6" euler="0 30 50"/>
    <geom type="mesh" mesh="wedge" pos="0 -1 0.5" euler="10 50 0"/>
    <geom type="box" size="0.3 0.2 0.4" pos="-0.8 -1 0.5" euler="0 20 30"/>
    <geom type="capsule" size="0.15 0.4" pos="0 1.2 0.8" euler="70 0 0"/>
    <geom type="sphere" size="0.3" pos="0.2 0 1.3"/>
    <geom type="plane" size="0 0 1" pos="0 0 -1.3"/>
  </worldbody>
</mujoco>"""


class Zoo:
    """All kinds of geoms, drawn from anywhere by one compiled function."""

    def __init__(self):
        self.model = mujoco.MjModel.from_xml_string(MODEL)
        self.data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, self.data)
        self.scene = Scene.from_model(self.model)
        self.camera = Camera.from_model(self.model, "eye", height=SIZE, width=SIZE)
        self.draw = jax.jit(lambda *args: render(self.scene, self.camera, *args))
        self.frames = self.data.geom_xmat.reshape(-1, 3, 3)

    def look(self, position, frame, centres=None, frames=None, sizes=None):
        given = (centres, frames, sizes)
        own = (self.data.geom_xpos, self.frames, self.model.geom_size)
        geoms = [b if a is None else a for a, b in zip(given, own, strict=True)]
        args = [jnp.asarray(x, jnp.float32) for x in (*geoms, position, frame)]
        return jax.tree.map(np.asarray, self.draw(*args))

    def views(self, number, seed):
        """Cameras around the zoo that look at its middle."""
        rng = np.random.default_rng(seed)
        for _ in range(number):
            turn, height = rng.uniform(-np.pi, np.pi), rng.uniform(0.5, 3)
            position = np.array([3 * np.cos(turn), 3 * np.sin(turn), height])
            yield position, towards(position, rng.uniform(-0.4, 0.4, 3))


def towards(position, target):
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back], axis=1)


@pytest.fixture(scope="module")
def zoo():
    return Zoo()


def test_depth_and_labels_are_what_mj_ray_measures(zoo):
    rays, hit = zoo.camera.rays(), np.zeros(1, np.int32)
    seen, wrong, errors = set(), [], []
    for position, frame in zoo.views(6, seed=0):
        image = zoo.look(position, frame)
        for i in range(0, SIZE * SIZE, 3):
            direction = frame @ [rays.u[i], rays.v[i], -1]
            length = np.linalg.norm(direction)
            reach = mujoco.mj_ray(
                zoo.model, zoo.data, position, direction / length, None, 1, -1, hit, None
            )
            label, depth = image.segmentation.ravel()[i], image.depth.ravel()[i]
            wrong.append(label != hit[0])
            if label == hit[0] >= 0:
                seen.add(int(label))
                errors.append(abs(depth * length / reach - 1))
    assert seen == set(range(zoo.model.ngeom))
    # Only rays that graze an edge may meet another geom.
    assert np.mean(wrong) < 0.005
    assert np.mean(np.array(errors) < 0.005) > 0.995 and np.median(errors) < 1e-5


def test_turning_the_world_and_the_camera_together_changes_nothing(zoo):
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, np.array([0.5, 0.1, -0.7, 0.5]) / 1.0)
    turn, shift = turn.reshape(3, 3), np.array([4.0, -2.0, 7.0])
    for position, frame in zoo.views(3, seed=1):
        before = zoo.look(position, frame)
        after = zoo.look(
            turn @ position + shift,
            turn @ frame,
            zoo.data.geom_xpos @ turn.T + shift,
            turn @ zoo.frames,
        )
        same = before.segmentation == after.segmentation
        assert same.mean() > 0.995
        hits = same & (before.segmentation >= 0)
        np.testing.assert_allclose(before.depth[hits], after.depth[hits], rtol=2e-3)
        assert np.abs(before.rgb[same].astype(int) - after.rgb[same]).max() <= 3


def test_geoms_of_no_size_behind_or_around_the_camera_neither_show_nor_break(zoo):
    position, frame = next(zoo.views(1, seed=2))
    plane, hills, mesh = (zoo.scene.kinds.index(kind) for kind in (0, 1, 7))
    every = range(zoo.model.ngeom)
    sized = [g for g in every if g not in (plane, hills, mesh)]
    sizes = zoo.model.geom_size.copy()
    sizes[sized] = 0
    none = zoo.look(position, frame, sizes=sizes)
    assert not np.isin(none.segmentation, sized).any()
    behind = zoo.look(position, frame, zoo.data.geom_xpos + 20 * frame[:, 2])
    # The plane has no end.
    assert np.isin(behind.segmentation, [-1, plane]).all()
    # In the middle of the hills is rock; on the plane, the camera looks along it.
    inside = [zoo.look(zoo.data.geom_xpos[g], frame) for g in every]
    for g in [*sized, mesh]:
        assert not (inside[g].segmentation == g).any()
    for image in (none, behind, *inside):
        assert not np.isnan(image.depth).any() and (image.depth > 0).all()


def eye_sees(world, visual="", assets="", **camera):
    """Return what a camera at the origin sees that looks down the negative z axis."""
    model = mujoco.MjModel.from_xml_string(
        f"<mujoco><visual>{visual}</visual><asset>{assets}</asset><worldbody>"
        f"<camera name='eye' fovy='60'/>{world}</worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    scene = Scene.from_model(model)
    g, lights = scene.geom_ids, scene.light_ids
    arrays = (
        data.geom_xpos[g],
        data.geom_xmat[g].reshape(-1, 3, 3),
        model.geom_size[g],
        data.cam_xpos[0],
        data.cam_xmat[0].reshape(3, 3),
    )
    args = [jnp.asarray(x, jnp.float32) for x in arrays]
    lit = [jnp.asarray(x[lights], jnp.float32) for x in (data.light_xpos, data.light_xdir)]
    eye = Camera.from_model(model, "eye", **camera)
    draw = jax.jit(lambda *a: render(scene, eye, *a[:5], light_pos=a[5], light_dir=a[6]))
    return jax.tree.map(np.asarray, draw(*args, *lit)), scene


DARK = '<headlight ambient="0 0 0" diffuse="0 0 0" specular="0 0 0"/>'
WALL = '<geom type="box" size="9 9 1" pos="0 0 -3" rgba="0.8 0.8 0.8 1"/>'


def test_a_directional_light_shines_with_the_cosine():
    light = '<light type="directional" dir="0 0.6 -0.8" diffuse="0.5 0.5 0.5"/>'
    image, _ = eye_sees(light + WALL, DARK, height=8, width=8)
    assert np.unique(image.rgb).size == 1
    assert abs(int(image.rgb[0, 0, 0]) - 255 * 0.8 * 0.5 * 0.8) <= 1


def test_a_spot_light_fades_to_the_edge_of_its_cone():
    light = '<light pos="0 0 0" dir="0 0 -1" cutoff="20" exponent="10" diffuse="1 1 1"/>'
    image, _ = eye_sees(light + WALL, DARK, height=33, width=33)
    brightness = image.rgb[16, :, 0].astype(float)
    assert abs(brightness[16] - 255 * 0.8) <= 1
    tangent = np.abs(np.arange(33) - 16) / 16.5 * np.tan(np.deg2rad(30))
    cosine = 1 / np.sqrt(1 + tangent**2)
    expected = np.where(tangent < np.tan(np.deg2rad(20)), 255 * 0.8 * cosine**11, 0)
    clear = np.abs(tangent - np.tan(np.deg2rad(20))) > 0.02
    np.testing.assert_allclose(brightness[clear], expected[clear], atol=1.5)


def test_glass_lets_through_what_is_behind_it_and_has_no_depth():
    glass = '<geom type="box" size="9 9 0.5" pos="0 0 -1.5" rgba="1 0 0 0.5"/>'
    bright = '<headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/>'
    image, _ = eye_sees(glass + WALL, bright, height=8, width=8)
    # Blended twice, as MuJoCo does: a quarter of the wall is left.
    assert np.all(np.abs(image.rgb.astype(int) - [0.75 * 255 + 51, 51, 51]) <= 1)
    np.testing.assert_allclose(image.depth, 2.0, atol=1e-4)
    assert np.all(image.segmentation == 0)


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("kind", ["box", "plane", "endless plane"])
def test_a_texture_begins_at_the_corner_of_what_ends(kind, uniform):
    half, repeats = np.array([0.5, 0.45]), np.array([1.4, 1.6])
    size = "0 0 1" if kind == "endless plane" else f"{half[0]} {half[1]} 1"
    assets = (
        '<texture name="board" type="2d" builtin="checker" width="4" height="4" '
        'rgb1="1 0 0" rgb2="0 0 1"/>'
        f'<material name="board" texture="board" texrepeat="{repeats[0]} {repeats[1]}" '
        f'texuniform="{str(uniform).lower()}"/>'
    )
    # Of so few texels that half of one, which compilers are tempted to round away, is seen.
    bright = '<headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/>'
    depth = 2.0 if kind == "box" else 1.0
    geom = f'<geom type="{kind.split()[-1]}" size="{size}" pos="0 0 -{depth}" material="board"/>'
    image, _ = eye_sees(geom, bright, assets, height=40, width=40)
    x, y = np.meshgrid(*2 * [(np.arange(40) - 19.5) / 20 * np.tan(np.deg2rad(30))])
    if kind == "endless plane":
        s, t = 0.5 * repeats[0] * x - 0.5, 0.5 * repeats[1] * y - 0.5
    else:
        # From the left and from the top; MuJoCo lets a uniform texture repeat per two metres.
        per_metre = repeats / 2 if uniform else repeats / (2 * half)
        s, t = per_metre[0] * (x + half[0]), per_metre[1] * (y + half[1])
    inside = (image.segmentation == 0) & (np.abs(x) < half[0]) & (np.abs(y) < half[1])
    edge = np.minimum(np.abs(2 * s - np.round(2 * s)), np.abs(2 * t - np.round(2 * t)))
    clear = inside & (edge > 0.15)
    assert clear.sum() > 200
    red = (np.floor(2 * s) + np.floor(2 * t)) % 2 == 0
    np.testing.assert_array_equal(image.rgb[clear, 0] > image.rgb[clear, 2], red[clear])


def test_a_scene_with_lights_asks_for_their_poses():
    _, scene = eye_sees('<light dir="0 0 -1"/>' + WALL, height=4, width=4)
    assert len(scene.light_ids) == 1
    args = [jnp.zeros((1, 3)), jnp.eye(3)[None], jnp.ones((1, 3)), jnp.zeros(3), jnp.eye(3)]
    with pytest.raises(ValueError, match="1 lights besides the headlight; pass light_pos"):
        render(scene, Camera(), *args)


def test_supersampling_is_the_mean_of_a_finer_picture():
    ball = '<geom type="sphere" size="0.6" pos="0.1 0.2 -2" rgba="0.9 0.4 0.2 1"/>'
    smooth, _ = eye_sees(ball, height=12, width=16, supersample=3)
    fine, _ = eye_sees(ball, height=36, width=48)
    mean = fine.rgb.reshape(12, 3, 16, 3, 3).mean((1, 3))
    assert np.abs(smooth.rgb - mean).max() <= 0.5
    assert smooth.depth.shape == smooth.segmentation.shape == (12, 16)
    gray = smooth.rgb @ [0.299, 0.587, 0.114]
    assert np.abs(smooth.gray - gray).max() <= 0.51


@pytest.mark.slow
def test_dm_controls_worlds_look_as_mujoco_draws_them():
    root = Path(__file__).parents[2]
    command = [sys.executable, "benchmarks/camera_agreement.py", "--num-states", "4"]
    env = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    if "needs EGL or OSMesa" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    worlds = json.loads(done.stdout.splitlines()[-1])["agreement"]
    assert len(worlds) == 6
    for name, world in worlds.items():
        assert world["segmentation_worst"] >= 0.99, name
        assert world["segmentation_overall_worst"] >= 0.97, name
        assert world["depth"] >= 0.99, name
        # A texture that lies elsewhere costs 3 dB and more.
        assert world["psnr"] >= 30, name
        assert world["psnr_worst"] >= 27, name
