"""Blocks of environments against all of them at once."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.batching import over_environments
from envs.camera import Camera, Scene, render
from envs.camera.batching import in_blocks


def running(x, tree):
    """Work whose result for an environment is its own: sums along rows, and a maximum."""
    return {"sum": jnp.cumsum(x, axis=1), "max": (x.max(1) + tree["y"]).astype(jnp.int32)}


@settings(max_examples=10, deadline=None)
@given(number=st.integers(1, 23), block=st.integers(1, 9))
def test_blocks_find_what_all_at_once_do(number, block):
    x = np.random.default_rng(number).integers(0, 99, (number, 5)).astype(np.float32)
    args = jnp.asarray(x), {"y": jnp.arange(number, dtype=jnp.float32), "none": None}
    found, expected = in_blocks(block, running, *args), running(*args)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_a_block_has_no_more_environments_than_it_may():
    sizes = []

    def draw(x):
        sizes.append(len(x))
        return x

    assert in_blocks(4, draw, jnp.arange(10)).tolist() == list(range(10))
    assert set(sizes) == {4}


def test_a_search_may_be_called_for_one_vmapped_and_vmapped_twice():
    search = over_environments(running)
    x = jnp.arange(30.0).reshape(2, 3, 5)
    y = jnp.arange(3.0)
    one = search(x[0, 1], {"y": y[1]})
    assert one["sum"].tolist() == [5, 11, 18, 26, 35] and one["max"] == 10
    # What all have in common is given to each.
    nested = jax.vmap(lambda x: jax.vmap(search)(x, {"y": y}))(x)
    np.testing.assert_array_equal(nested["sum"], np.cumsum(np.asarray(x), -1))
    np.testing.assert_array_equal(nested["max"], np.asarray(x).max(-1) + np.arange(3))


def test_pictures_drawn_in_blocks_are_those_drawn_alone():
    """At this size 8 are drawn together, so that 11 are two blocks that overlap."""
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><camera name="eye" pos="0 0 1"/>
        <geom type="sphere" size="0.2" rgba="1 0 0 1"/>
        <geom type="box" size="0.3 0.1 0.2" rgba="0 1 0 1"/>
        <geom type="plane" size="0 0 1" pos="0 0 -1"/></worldbody></mujoco>"""
    )
    scene, camera = Scene.from_model(model), Camera.from_model(model, "eye", height=256, width=256)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    shifts = np.random.default_rng(0).uniform(-0.5, 0.5, (11, 3, 3)).astype(np.float32)
    args = (
        jnp.asarray(data.geom_xmat.reshape(-1, 3, 3), jnp.float32),
        jnp.asarray(model.geom_size, jnp.float32),
        jnp.asarray(data.cam_xpos[0], jnp.float32),
        jnp.asarray(data.cam_xmat[0].reshape(3, 3), jnp.float32),
    )
    draw = jax.jit(lambda pos: render(scene, camera, pos, *args))
    centres = jnp.asarray(data.geom_xpos + shifts, jnp.float32)
    together = jax.jit(jax.vmap(lambda pos: render(scene, camera, pos, *args)))(centres)
    for i in (0, 2, 3, 10):
        alone = draw(centres[i])
        assert len(np.unique(alone.segmentation)) >= 2
        np.testing.assert_array_equal(together.segmentation[i], alone.segmentation)
        np.testing.assert_allclose(together.depth[i], alone.depth, rtol=1e-4)
        apart = np.abs(together.rgb[i].astype(int) - alone.rgb)
        assert apart.max() <= 1
