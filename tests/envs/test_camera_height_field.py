"""Height fields against MuJoCo's rays, and tiles of a picture against the whole of it."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.camera import Camera, Scene, render
from envs.camera.ray_tiles import by_tiles

HEIGHT, WIDTH = 33, 50


def terrain(rough, height=0.4):
    """Two height fields, one behind the other."""
    rng = np.random.default_rng(3)
    model = mujoco.MjModel.from_xml_string(f"""<mujoco>
      <asset>
        <hfield name="hills" nrow="31" ncol="47" size="3 2 {height} 0.1"/>
        <hfield name="wall" nrow="2" ncol="3" size="0.2 2 1.5 0.3"/>
      </asset>
      <worldbody>
        <camera name="eye" fovy="60"/>
        <geom type="hfield" hfield="hills" euler="5 -3 20"/>
        <geom type="hfield" hfield="wall" pos="3.5 0 0.4"/>
      </worldbody>
    </mujoco>""")
    smooth = np.abs(np.sin(np.arange(31 * 47) / 7))
    model.hfield_data[: 31 * 47] = rng.uniform(0, 1, 31 * 47) if rough else smooth
    model.hfield_data[31 * 47 :] = rng.uniform(0.2, 1, 6)
    return model


@pytest.mark.parametrize("rough", [True, False])
def test_no_ridge_is_missed_and_no_wall(rough):
    model = terrain(rough)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    scene = Scene.from_model(model)
    camera = Camera.from_model(model, "eye", height=HEIGHT, width=WIDTH)
    rays, hit = camera.rays(), np.zeros(1, np.int32)
    draw = jax.jit(lambda *args: render(scene, camera, *args))
    rng = np.random.default_rng(0)
    depths, expected, labels, found = [], [], [], []
    for _ in range(6):
        turn = rng.uniform(-np.pi, np.pi)
        eye = np.array([5 * np.cos(turn), 5 * np.sin(turn), rng.uniform(0.6, 1.2)])
        back = eye - rng.uniform(-0.3, 0.3, 3)
        back /= np.linalg.norm(back)
        right = np.cross([0, 0, 1], back)
        right /= np.linalg.norm(right)
        frame = np.stack([right, np.cross(back, right), back], axis=1)
        args = data.geom_xpos, data.geom_xmat.reshape(-1, 3, 3), model.geom_size, eye, frame
        image = draw(*(jnp.asarray(x, jnp.float32) for x in args))
        depths.append(image.depth.ravel())
        found.append(image.segmentation.ravel())
        for u, v in zip(rays.u, rays.v, strict=True):
            way = frame @ [u, v, -1]
            length = np.linalg.norm(way)
            reach = mujoco.mj_ray(model, data, eye, way / length, None, 1, -1, hit, None)
            expected.append(reach / length if hit[0] >= 0 else np.inf)
            labels.append(hit[0])
    depths, found = np.concatenate(depths), np.concatenate(found)
    # Rays that graze a crest or the field's rim may go either way, by rounding.
    assert np.mean(found != labels) < 1e-3
    both = (found == labels) & (found >= 0)
    assert set(found[both]) == {0, 1}
    error = np.abs(depths[both] / np.array(expected)[both] - 1)
    assert np.mean(error > 1e-3) < 1e-3 and np.median(error) < 1e-5


@pytest.mark.slow
def test_heights_may_be_any():
    # Those that MJCF reads lie between 0 and 1; data may be changed afterwards.
    pictures = []
    for height, change in ((0.4, lambda x: x), (0.1, lambda x: 4 * x), (0.8, lambda x: x / 2)):
        model = terrain(rough=True, height=height)
        model.hfield_data[:] = change(model.hfield_data)
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        camera = Camera.from_model(model, "eye", height=HEIGHT, width=WIDTH)
        eye, frame = np.array([0, -4, 1]), np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
        args = data.geom_xpos, data.geom_xmat.reshape(-1, 3, 3), model.geom_size, eye, frame
        args = (jnp.asarray(x, jnp.float32) for x in args)
        pictures.append(render(Scene.from_model(model), camera, *args).depth[:, : WIDTH // 2])
    assert np.isfinite(pictures[0]).mean() > 0.1
    for picture in pictures[1:]:
        np.testing.assert_allclose(picture, pictures[0], rtol=1e-4)


def test_flat_ground_is_a_plane():
    model = terrain(rough=True)
    model.hfield_data[:] = 0.5
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = Camera.from_model(model, "eye", height=HEIGHT, width=WIDTH)
    # From above, along the axis of the hills, which are tilted.
    frame = data.geom_xmat[0].reshape(3, 3)
    eye = frame @ [0, 0, 2.2]
    args = data.geom_xpos, data.geom_xmat.reshape(-1, 3, 3), model.geom_size, eye, frame
    image = render(Scene.from_model(model), camera, *(jnp.asarray(x, jnp.float32) for x in args))
    np.testing.assert_allclose(image.depth, 2.0, rtol=1e-5)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 70))
def test_tiles_find_what_the_whole_picture_does(height, width):
    rays = (jnp.arange(3 * height * width) % 97).reshape(3, -1).astype(jnp.float32)
    search = lambda x: x[0] - 2 * x[1] + x[2] ** 2
    np.testing.assert_array_equal(by_tiles(search, width, rays), search(rays))
