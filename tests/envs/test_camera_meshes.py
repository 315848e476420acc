"""Meshes whose picture is known by hand: shared edges, the near plane, triangles of no area."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.camera import Camera, Scene, render

SIZE = 32


def drawer(vertices, faces):
    """Draws one mesh from the origin of the world, looking along -z; the mesh is moved instead."""
    text = lambda rows: "  ".join(" ".join(map(str, row)) for row in rows)
    model = mujoco.MjModel.from_xml_string(
        f"""<mujoco><asset><mesh name="m" inertia="shell" vertex="{text(vertices)}"
        face="{text(faces)}"/></asset><worldbody><camera name="eye" fovy="90"/>
        <body><geom type="mesh" mesh="m" mass="1"/></body></worldbody></mujoco>"""
    )
    scene = Scene.from_model(model)
    camera = Camera.from_model(model, "eye", height=SIZE, width=SIZE)
    size = jnp.asarray(model.geom_size, jnp.float32)
    # MuJoCo moves a mesh to its centre of mass and main axes.
    turn, middle = np.zeros(9), model.mesh_pos[0]
    mujoco.mju_quat2Mat(turn, model.mesh_quat[0])
    draw = jax.jit(lambda *args: render(scene, camera, *args))

    def look(position=(0, 0, 0), frame=None):
        frame = np.eye(3) if frame is None else frame
        centre = np.asarray(position) + frame @ middle
        axes = frame @ turn.reshape(3, 3)
        args = [jnp.asarray(x, jnp.float32) for x in (centre[None], axes[None])]
        return jax.tree.map(np.asarray, draw(*args, size, jnp.zeros(3), jnp.eye(3)))

    return look


def grid(number):
    """A square of half length 1, cut into triangles, whose front looks along +z."""
    place = np.linspace(-1, 1, number + 1)
    vertices = [(x, y, 0) for y in place for x in place]
    # No face has this one: MuJoCo refuses a mesh whose vertices lie in one plane.
    vertices.append((0, 0, -0.5))
    faces = []
    for i in range(number):
        for j in range(number):
            a = i * (number + 1) + j
            b = a + number + 1
            faces += [(a, a + 1, b + 1), (a, b + 1, b)]
    return vertices, faces


@pytest.fixture(scope="module")
def wall():
    return drawer(*grid(9))


def test_a_wall_of_triangles_has_one_depth_and_no_cracks(wall):
    image = wall((0.013, -0.007, -0.9))
    np.testing.assert_allclose(image.depth, 0.9, rtol=1e-5)
    assert np.all(image.segmentation == 0)


def test_a_wall_that_is_turned_away_or_edge_on_or_behind_is_not_seen(wall):
    away, edge = np.diag([1.0, -1, -1]), np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    for image in (wall((0, 0, -1), away), wall((0, 0, -1), edge), wall((0, 0, 1))):
        assert np.all(image.segmentation == -1) and np.all(np.isposinf(image.depth))


def test_a_floor_goes_on_below_the_camera_to_the_edge_of_the_picture(wall):
    # The floor lies 0.1 m below, and reaches from 1 m behind the eye to 1 m ahead.
    image = wall((0, -0.1, 0), np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]))
    below = (np.arange(SIZE) - SIZE / 2 + 0.5) / (SIZE / 2)
    depth = np.where(below > 0.1, 0.1 / np.maximum(below, 1e-3), np.inf)
    np.testing.assert_allclose(image.depth, np.repeat(depth[:, None], SIZE, 1), rtol=1e-4)


def test_triangles_of_no_area_and_a_camera_in_a_closed_mesh_show_nothing():
    corners = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    closed = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
    # Once more with corners that lie on a line, so that the faces between them have no area.
    line = [(3, 3, 0), (3, 3, 0.5), (3, 3, 1)]
    flat = [(4, 5, 6), (4, 4, 5)]
    look = drawer(corners + line, closed + flat)
    inside = look((-0.2, -0.2, -0.2))
    assert np.all(inside.segmentation == -1) and np.all(np.isposinf(inside.depth))
    outside = look((-0.3, -0.3, -3))
    assert 0 < (outside.segmentation == 0).sum() < SIZE * SIZE / 4
    seen = outside.segmentation == 0
    assert outside.depth[seen].min() > 2 - 1e-3 and outside.depth[seen].max() < 3 + 1e-3
    assert np.all(outside.rgb[seen] > 0)
