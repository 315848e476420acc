"""The surface of a walker beside MuJoCo's distances between geoms."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.arenas.floor import Floor
from envs.kinematics import Kinematics
from envs.models import SimulationConfig, visual_model
from envs.surfaces import STEP, Surface, distance, surface_points
from envs.tasks.escape import Escape
from envs.walkers.ant import Ant
from envs.walkers.jumping_ball import JumpingBall

KINDS = ("sphere", "capsule", "ellipsoid", "cylinder", "box")
POINT = 1e-3
"""Radius of a ball that stands for a point, metres."""
XML = """<mujoco><worldbody>
<geom name="geom" type="{kind}" size="{size}"/>
<body mocap="true"><geom name="point" type="sphere" size="{point}"/></body>
</worldbody></mujoco>"""
from_surface = jax.jit(distance, static_argnums=0)
length = st.floats(0.0625, 0.625, width=32)
coordinate = st.floats(-1.5, 1.5, width=32)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(size=st.tuples(length, length, length), point=st.tuples(*[coordinate] * 3))
def test_distances_are_mujocos(kind, size, point):
    text = XML.format(kind=kind, size=" ".join(map(str, size)), point=POINT)
    model = mujoco.MjModel.from_xml_string(text)
    data = mujoco.MjData(model)
    data.mocap_pos[0] = point
    mujoco.mj_kinematics(model, data)
    theirs = mujoco.mj_geomDistance(model, data, 0, 1, 10.0, None) + POINT
    ours = float(from_surface(kind, np.float32(size), np.float32(point)))
    if theirs > 2 * POINT:
        assert ours == pytest.approx(theirs, abs=2e-4)
    else:
        assert ours < 3 * POINT


@pytest.mark.parametrize("kind", KINDS)
def test_points_of_a_surface_are_on_it_and_all_over_it(kind):
    size = np.array([0.3, 0.5, 0.2])
    points = surface_points(kind, size)
    off = distance(kind, size.astype(np.float32), jnp.asarray(points, jnp.float32))
    assert np.abs(off).max() < 1e-3
    # Not inside either: a little farther out is outside.
    outer = distance(kind, size.astype(np.float32), jnp.asarray(1.01 * points, jnp.float32))
    assert np.min(outer) > 1e-4
    extent = {"sphere": [0.3] * 3, "capsule": [0.3, 0.3, 0.8], "cylinder": [0.3, 0.3, 0.5]}
    np.testing.assert_allclose(np.abs(points).max(0), extent.get(kind, size), rtol=0.03)


@pytest.mark.parametrize("walker", [Ant(), JumpingBall()])
def test_balls_are_touched_where_mujoco_finds_contacts(walker):
    model = visual_model(Floor(), walker, Escape(), SimulationConfig(), show_slots=False)
    surface, rng = Surface(model), np.random.default_rng(0)
    data, look = mujoco.MjData(model), Kinematics(model)
    own = [g for g in range(model.ngeom) if model.geom(g).name.startswith("walker/")]
    qpos = rng.uniform(-1, 1, model.nq)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    qpos = data.qpos.copy()
    middle = data.body(f"walker/{walker.root}").xpos
    balls = middle + rng.uniform(-0.8, 0.8, (80, 3))
    radius = rng.uniform(0.05, 0.6, 80)
    poses = look(jnp.asarray(qpos, jnp.float32))
    touched = np.asarray(
        surface.touches(poses, jnp.asarray(balls, jnp.float32), jnp.asarray(radius, jnp.float32))
    )
    theirs = [ball_touches(model, data, own, *ball) for ball in zip(balls, radius, strict=True)]
    np.testing.assert_array_equal(touched, theirs)
    assert 5 < touched.sum() < 75


def ball_touches(model, data, own, middle, radius):
    """Whether a ball meets one of the geoms `own`, by the convex distance to its middle."""
    spec = mujoco.MjSpec()
    body = spec.worldbody
    for g in own:
        kind, quat = mujoco.mjtGeom(int(model.geom_type[g])), np.zeros(4)
        mujoco.mju_mat2Quat(quat, data.geom_xmat[g])
        body.add_geom(type=kind, size=model.geom_size[g], pos=data.geom_xpos[g], quat=quat)
    ball = body.add_body(pos=middle)
    ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[radius, 0, 0])
    ball.add_freejoint()
    small = spec.compile()
    there = mujoco.MjData(small)
    mujoco.mj_forward(small, there)
    return there.ncon > 0


def test_a_walker_is_put_on_the_ground_by_whole_steps():
    model = visual_model(Floor(), Ant(), Escape(), SimulationConfig(), show_slots=False)
    surface, look = Surface(model), Kinematics(model)
    qpos = jnp.asarray(model.qpos0, jnp.float32)
    data = mujoco.MjData(model)
    data.qpos[:] = model.qpos0
    mujoco.mj_forward(model, data)
    lift = jax.jit(lambda q, height: surface.lift(look(q), lambda x: height + 0 * x[:, 0]))
    # Its feet end in balls of 8 cm radius.
    feet = [data.geom(f"walker/{name}") for name in Ant.feet]
    ends = [foot.xpos[2] - abs(foot.xmat[8]) * model.geom(foot.id).size[1] for foot in feet]
    lowest = min(ends) - 0.08
    for depth in (-0.5, 0.031, 0.2, 0.777):
        up = float(lift(qpos, lowest + depth))
        assert up == pytest.approx(STEP * np.ceil(depth / STEP), abs=STEP / 2 + 1e-5)


def test_a_walker_of_planes_has_no_surface():
    sole = "<geom name='walker/sole' type='plane' size='1 1 1'/>"
    text = f"<mujoco><worldbody>{sole}</worldbody></mujoco>"
    with pytest.raises(ValueError, match="geom 'walker/sole' is of type 0; .* one of sphere"):
        Surface(mujoco.MjModel.from_xml_string(text))
