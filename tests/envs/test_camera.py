"""The camera against geometry known by hand, MuJoCo's ray casting and MuJoCo's renderer."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import models
from envs.arenas.gaps import PARKED, Gaps, Layout
from envs.camera import FREE, Camera, Scene, free_pose, render
from envs.camera.depth_keys import PAYLOAD, DepthKeys
from envs.interfaces import WALKER
from envs.models import SimulationConfig
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.walkers.ant import Ant
from tests.envs.renderer import mujoco_draws, off_edge

CORRIDOR = Gaps(gap_length=(0.1, 0.8))
EGOCENTRIC = WALKER + "egocentric"
CAMERAS = ("egocentric", "floating", "sideon")


def compile_mjcf(geoms, camera='pos="0 0 0" fovy="90"', assets=""):
    return mujoco.MjModel.from_xml_string(
        f"<mujoco><asset>{assets}</asset><worldbody><camera name='eye' {camera}/>{geoms}"
        "</worldbody></mujoco>"
    )


def look(model, size=(33, 33), **kwargs):
    """Return what camera `eye` of a static model sees, as NumPy arrays."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    scene = Scene.from_model(model, **kwargs)
    camera = Camera.from_model(model, "eye", height=size[0], width=size[1])
    image = jax.jit(lambda *args: render(scene, camera, *args))(*pose(scene, model, data, "eye"))
    return jax.tree.map(np.asarray, image)


def pose(scene, model, data, camera):
    k, g = model.camera(camera).id, scene.geom_ids
    arrays = (
        data.geom_xpos[g],
        data.geom_xmat[g].reshape(-1, 3, 3),
        model.geom_size[g],
        data.cam_xpos[k],
        data.cam_xmat[k].reshape(3, 3),
    )
    return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


def platforms(layout):
    return jnp.stack([layout.starts, layout.ends], axis=-1)


def random_states(model, layout, number, seed=0):
    """Poses of the ant anywhere in the corridor, the first half of them just before a gap."""
    rng = np.random.default_rng(seed)
    ends = np.asarray(layout.ends)
    ends = ends[ends < 38][1:]
    states = np.tile(model.qpos0, (number, 1))
    for i, qpos in enumerate(states):
        x = rng.uniform(5, 35) if i >= number // 2 else rng.choice(ends) - rng.uniform(0.3, 0.8)
        qpos[:3] = x, rng.uniform(-1, 1), rng.uniform(0.0, 0.3)
        tilt = [1, 0, 0, 0] + rng.normal(size=4) * [0, 0.2, 0.2, 0.3]
        qpos[3:7] = tilt / np.linalg.norm(tilt)
        qpos[7:] = rng.uniform(-0.5, 0.5, len(qpos) - 7)
    return states


@pytest.fixture(scope="module")
def layout():
    return CORRIDOR.draw(jax.random.key(3))


@pytest.fixture(scope="module")
def arena(layout):
    parts = CORRIDOR, Ant(), RunThroughCorridor(), SimulationConfig()
    return models.whole_model(*parts, layout, ())


@pytest.fixture(scope="module")
def row(arena):
    """Names of the platforms in the arena, in order."""
    names = [arena.geom(i).name for i in range(arena.ngeom)]
    return [name for name in names if name == "start_floor" or name.startswith("floor_")]


@pytest.fixture(scope="module")
def scene(arena, row):
    return Scene.from_model(arena, row=row)


class Drawer:
    """Draws states of the arena; platform labels become the arena's geom ids."""

    def __init__(self, arena, scene, row, size=(64, 64)):
        self.arena, self.scene, self.data = arena, scene, mujoco.MjData(arena)
        self.ids = np.array([arena.geom(name).id for name in row])
        self.cameras = {
            name: Camera.from_model(arena, WALKER + name, height=size[0], width=size[1])
            for name in CAMERAS
        }
        self.render = jax.jit(
            lambda camera, *args: render(self.scene, camera, *args), static_argnums=0
        )

    def forward(self, qpos):
        self.data.qpos[:] = qpos
        mujoco.mj_forward(self.arena, self.data)

    def __call__(self, layout, qpos, camera="egocentric"):
        self.forward(qpos)
        args = pose(self.scene, self.arena, self.data, WALKER + camera)
        image = self.render(self.cameras[camera], *args, platforms(layout))
        image = jax.tree.map(np.asarray, image)
        labels, first = image.segmentation, self.scene.num_geoms
        ids = self.ids[np.clip(labels - first, 0, len(self.ids) - 1)]
        return image.replace(segmentation=np.where(labels >= first, ids, labels))


@pytest.fixture(scope="module")
def draw(arena, scene, row):
    return Drawer(arena, scene, row)


# Geometry known by hand.


def test_ball_ahead_is_a_disc_of_known_size_and_depth():
    image = look(compile_mjcf('<geom type="sphere" size="0.5" pos="0 0 -2" rgba="1 0 0 1"/>'))
    ball = image.segmentation == 0
    # Tangents from the origin touch the ball at an angle of asin(0.5 / 2); fovy 90 has a focal
    # length of half the height.
    radius = np.tan(np.arcsin(0.25)) * 16.5
    distance = np.hypot(*np.meshgrid(np.arange(33) - 16, np.arange(33) - 16))
    np.testing.assert_array_equal(ball, distance < radius)
    assert image.depth[16, 16] == pytest.approx(1.5, abs=1e-5)
    assert np.all(np.isinf(image.depth[~ball])) and np.all(image.segmentation[~ball] == -1)
    # Where MuJoCo's headlight falls straight on it gives 0.1 (ambient) and 0.4 (diffuse).
    assert image.rgb[16, 16].tolist() == [128, 0, 0]
    assert np.all(np.diff(image.rgb[16, 16:21, 0].astype(int)) < 0)


@pytest.mark.parametrize(
    "geom",
    [
        '<geom type="box" size="9 9 1" pos="0 0 -3"/>',
        '<geom type="plane" size="9 9 1" pos="0 0 -2"/>',
        '<geom type="plane" size="0 0 1" pos="0 0 -2"/>',
        '<geom type="box" size="9 1 9" euler="90 0 0" pos="0 0 -3"/>',
    ],
)
def test_flat_wall_has_one_depth_along_the_optical_axis(geom):
    image = look(compile_mjcf(geom))
    np.testing.assert_allclose(image.depth, 2.0, atol=1e-5)
    assert np.all(image.segmentation == 0)


def test_pixels_run_right_and_down():
    geoms = '<geom type="sphere" size="0.3" pos="1 1 -2"/><geom type="sphere" size="0.3" {}/>'
    image = look(compile_mjcf(geoms.format('pos="-1 -1 -2"')))
    rows, columns = np.nonzero(image.segmentation == 0)
    assert rows.max() < 16 and columns.min() > 16
    rows, columns = np.nonzero(image.segmentation == 1)
    assert rows.min() > 16 and columns.max() < 16


def test_finite_plane_ends_and_shows_one_side():
    model = compile_mjcf('<geom type="plane" size="1 0.5 1" pos="0 0 -2"/>')
    image = look(model)
    # |x| < 1 at depth 2 is |u| < 0.5: half of the 33 pixels, and |y| < 0.5 a quarter.
    assert (image.segmentation[16] == 0).sum() == 17
    assert (image.segmentation[:, 16] == 0).sum() == 9
    turned = compile_mjcf('<geom type="plane" size="1 1 1" pos="0 0 -2" euler="180 0 0"/>')
    assert np.all(look(turned).segmentation == -1)


def test_the_nearest_of_many_kinds_wins():
    model = compile_mjcf(
        '<geom type="plane" size="0 0 1" pos="0 0 -9"/>'
        '<geom type="box" size="2 2 0.5" pos="0 0 -5"/>'
        '<geom type="capsule" size="0.4 1" pos="0 0 -3" euler="0 90 0"/>'
        '<geom type="sphere" size="0.2" pos="0 0 -2"/>'
    )
    image = look(model)
    assert image.segmentation[16, 16] == 3 and image.segmentation[0, 0] == 0
    # Pixel 20 of row 16 looks along u = 4 / 16.5, beside the ball: at the capsule's upper edge.
    assert image.segmentation[16, 20] == 2
    assert image.depth[16, 20] == pytest.approx(2.6, abs=1e-5)
    assert image.segmentation[22, 16] == 1 and image.depth[22, 16] == pytest.approx(4.5, abs=1e-5)


@pytest.mark.parametrize("kind", ["sphere", "capsule", "box"])
def test_degenerate_geoms_neither_show_nor_break(kind):
    model = compile_mjcf(f'<geom type="{kind}" size="0.5 0.5 0.5" pos="0 0 -2"/>')
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    scene, camera = Scene.from_model(model), Camera.from_model(model, "eye", height=33, width=33)
    draw = jax.jit(lambda *args: render(scene, camera, *args))
    position, frame, size, *eye = pose(scene, model, data, "eye")
    assert np.any(draw(position, frame, size, *eye).segmentation == 0)
    around, behind, nothing = position.at[0, 2].set(0.1), -position, 0 * size
    for place, extent in ((around, size), (behind, size), (position, nothing)):
        image = jax.tree.map(np.asarray, draw(place, frame, extent, *eye))
        assert np.all(image.segmentation == -1)
        assert np.all(np.isposinf(image.depth))
        assert not image.rgb.any()


def test_capsule_seen_along_its_axis():
    image = look(compile_mjcf('<geom type="capsule" size="0.4 0.5" pos="0 0 -3"/>'))
    assert np.isfinite(image.depth[16, 16])
    assert image.depth[16, 16] == pytest.approx(2.1, abs=1e-5)


@pytest.mark.parametrize(("distance", "thickness"), [(5, 0.001), (10, 0.002)])
def test_thin_slab_hides_the_floor_that_comes_before_it(distance, thickness):
    floor = '<geom type="plane" size="0 0 1"/>'
    slab = f'<geom type="box" size="20 20 {thickness / 2}" pos="0 0 {thickness / 2}"/>'
    camera = f'pos="0 0 {distance}" fovy="60"'
    assert np.all(look(compile_mjcf(floor + slab, camera)).segmentation == 1)


@settings(deadline=None)
@given(
    near=st.floats(2**-20, 0.5, width=32),
    depth=st.floats(1, 2**20, width=32),
    payload=st.integers(0, PAYLOAD),
)
def test_nearer_of_two_depths_has_the_lesser_key(near, depth, payload):
    keys = DepthKeys(near)
    two = jnp.float32([depth, depth * (1 + 2.0**-13)])
    packed = keys.pack(two, jnp.int32([payload, 0]))
    assert 0 < packed[0] < packed[1] < keys.bound(1e9)
    assert packed[0] & PAYLOAD == payload
    assert depth * (1 - 2.0**-13) <= keys.packed_depth(packed)[0] <= depth
    assert keys.depth(keys.of(two))[0] == np.float32(depth)


def test_model_is_seen_by_number_and_from_the_free_camera(tmp_path):
    ball = '<geom type="sphere" size=".3" pos="1 .2 .1"/><geom type="box" size=".2 .1 .4"/>'
    xml = f"<mujoco><worldbody>{ball}<camera pos='1 0 3'/></worldbody></mujoco>"
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    scene = Scene.from_model(model)
    position, frame, size, *_ = pose(scene, model, data, 0)
    eyes = {0: (data.cam_xpos[0], data.cam_xmat[0].reshape(3, 3)), FREE: free_pose(model)}
    drawn = mujoco_draws([model], np.zeros((1, 1, 0)), list(eyes), (48, 48), tmp_path)
    for (number, eye), theirs in zip(eyes.items(), drawn.segmentation[0, 0], strict=True):
        camera = Camera.from_model(model, number, height=48, width=48)
        ours = render(scene, camera, position, frame, size, *map(jnp.asarray, eye))
        assert set(np.unique(theirs)) == {-1, 0, 1}
        assert np.mean(np.asarray(ours.segmentation) == theirs) > 0.98
    with pytest.raises(ValueError, match="no camera 1; it has: 0. -1 is MuJoCo's free camera"):
        Camera.from_model(model, 1)


# What is drawn.


def test_hidden_and_transparent_geoms_are_left_out(scene, arena):
    names = [arena.geom(int(g)).name for g in scene.geom_ids]
    assert len(names) == 13 and all(name.startswith(WALKER) for name in names)


def test_geom_that_cannot_be_drawn_is_named():
    model = compile_mjcf('<geom name="egg" type="ellipsoid" size="1 2 3"/>')
    # A signed distance field needs a plugin of its own to be compiled.
    model.geom_type[0] = mujoco.mjtGeom.mjGEOM_SDF
    with pytest.raises(ValueError, match=r"'egg' is a sdf"):
        Scene.from_model(model)
    Scene.from_model(model, geoms=[])


def test_bad_arguments_are_named(arena, scene, row, layout):
    with pytest.raises(ValueError, match="no camera named 'nose'"):
        Camera.from_model(arena, "nose")
    with pytest.raises(ValueError, match="height is 0"):
        Camera.from_model(arena, EGOCENTRIC, height=0)
    with pytest.raises(ValueError, match="near is 0"):
        Camera(height=8, width=8, fovy=45.0, near=0)
    with pytest.raises(ValueError, match="no geom named 'roof'"):
        Scene.from_model(arena, row=["roof"])
    with pytest.raises(ValueError, match="torso_geom' is a sphere"):
        Scene.from_model(arena, row=[*row, "walker/torso_geom"])
    camera = Camera.from_model(arena, EGOCENTRIC)
    args = pose(scene, arena, mujoco.MjData(arena), EGOCENTRIC)
    with pytest.raises(ValueError, match="geom_pos has shape"):
        render(scene, camera, args[0][None], *args[1:])
    with pytest.raises(ValueError, match="scene without a row"):
        render(Scene.from_model(arena), camera, *full_pose(arena), platforms(layout))


def full_pose(arena):
    data = mujoco.MjData(arena)
    mujoco.mj_forward(arena, data)
    return pose(Scene.from_model(arena), arena, data, EGOCENTRIC)


# The picture follows the state.


def test_moving_the_ant_changes_the_picture(draw, layout, arena):
    qpos = arena.qpos0.copy()
    before = draw(layout, qpos).rgb.astype(int)
    assert np.array_equal(draw(layout, qpos).rgb, before)
    # 5 cm along a platform, the least motion of a control step at 2 m/s: its grass has to show it.
    qpos[0] += 0.05
    ground = draw(layout, qpos).segmentation == arena.geom("start_floor").id
    changed = np.abs(draw(layout, qpos).rgb - before).max(-1) > 0
    assert changed[ground].mean() > 0.3


def test_a_gap_ahead_is_visible(draw, arena):
    edge = 6.0
    closed = Layout(jnp.array([0.0, edge, 9.0]), jnp.array([edge, 9.0, 12.0]))
    open_ = Layout(jnp.array([0.0, edge + 0.8, 9.0]), jnp.array([edge, 9.0, 12.0]))
    qpos = arena.qpos0.copy()
    qpos[0] = 5.2
    with_gap, without = draw(open_, qpos), draw(closed, qpos)
    differs = np.abs(with_gap.rgb.astype(int) - without.rgb).max(-1) > 20
    assert differs.sum() > 40
    assert (with_gap.segmentation != without.segmentation).sum() > 40


def test_one_batch_shows_different_corridors(arena, scene):
    camera = Camera.from_model(arena, EGOCENTRIC)
    data = mujoco.MjData(arena)
    mujoco.mj_forward(arena, data)
    args = pose(scene, arena, data, EGOCENTRIC)
    layouts = jax.vmap(CORRIDOR.draw)(jax.random.split(jax.random.key(0), 4))
    traces = []

    @jax.jit
    def pictures(layouts):
        traces.append(None)
        return jax.vmap(lambda layout: render(scene, camera, *args, platforms(layout)).rgb)(layouts)

    drawn = np.asarray(pictures(layouts))
    for i in range(1, 4):
        assert (drawn[i] != drawn[0]).any(-1).mean() > 0.02
    # Others, and what a batch shows does not depend on its other members: the same pictures again.
    again = np.asarray(pictures(jax.tree.map(lambda x: x[::-1], layouts)))
    np.testing.assert_array_equal(again[::-1], drawn)
    assert len(traces) == 1


def test_an_environment_takes_the_memory_of_its_image_however_many_there_are(arena, scene):
    """Compare with XLA's plan: the colours that come out, and what a block of pictures needs."""
    camera = Camera.from_model(arena, EGOCENTRIC)
    data = mujoco.MjData(arena)
    mujoco.mj_forward(arena, data)
    args = pose(scene, arena, data, EGOCENTRIC)
    pictures = jax.jit(jax.vmap(lambda boxes: render(scene, camera, *args, boxes).rgb))
    image = 64 * 64 * 3

    def taken(number):
        boxes = jax.ShapeDtypeStruct((number, 24, 2), jnp.float32)
        plan = pictures.lower(boxes).compile().memory_analysis()
        assert plan.output_size_in_bytes == number * image
        return plan.temp_size_in_bytes

    some, many = taken(256), taken(1024)
    each = (many - some) / (1024 - 256)
    # Poses.
    assert each < 0.1 * image
    # Of 128 pictures at a time, three numbers of 32 bits for each pixel, and little more.
    assert some - 256 * each < 128 * 64 * 64 * 3 * 4 * 1.1


def test_the_row_equals_its_boxes_drawn_one_by_one(arena, scene, layout, draw):
    """The special case against the general one, where the camera is outside all of them."""
    boxes = Scene.from_model(arena)
    general = jax.jit(lambda camera, *args: render(boxes, camera, *args), static_argnums=0)
    for qpos in random_states(arena, layout, 6):
        special = draw(layout, qpos, "floating")
        args = pose(boxes, arena, draw.data, WALKER + "floating")
        image = jax.tree.map(np.asarray, general(draw.cameras["floating"], *args))
        same = special.segmentation == image.segmentation
        assert same.mean() > 0.999
        np.testing.assert_allclose(special.depth[same], image.depth[same], rtol=1e-4)


def test_unused_platforms_are_not_drawn(draw, layout, arena):
    assert np.any(np.asarray(layout.starts) == PARKED)
    more = Layout(
        jnp.concatenate([jnp.array([7.0]), layout.starts]),
        jnp.concatenate([jnp.array([7.0]), layout.ends]),
    )
    a, b = draw(layout, arena.qpos0), draw(more, arena.qpos0)
    np.testing.assert_array_equal(a.rgb, b.rgb)


# MuJoCo's ray casting and renderer.


def test_depth_is_what_mj_ray_measures(arena, layout, draw):
    """1,200 rays; where they graze an edge either of two geoms may win."""
    rng = np.random.default_rng(1)
    errors, groups, hit = [], np.array([1, 1, 1, 0, 0, 0], np.uint8), np.zeros(1, np.int32)
    for qpos in random_states(arena, layout, 6, seed=1):
        for name in ("egocentric", "floating"):
            image = draw(layout, qpos, name)
            camera = draw.cameras[name]
            rays, k = camera.rays(), arena.camera(camera.name).id
            origin, frame = draw.data.cam_xpos[k], draw.data.cam_xmat[k].reshape(3, 3)
            for i in rng.integers(0, 64 * 64, 100):
                direction = frame @ [rays.u[i], rays.v[i], -1]
                norm = np.linalg.norm(direction)
                depth = mujoco.mj_ray(
                    arena, draw.data, origin, direction / norm, groups, 1, -1, hit, None
                )
                expected = depth / norm if depth >= 0 else np.inf
                ours = image.depth.ravel()[i]
                same = ours == expected if np.isinf(expected) else np.isclose(ours, expected, 1e-3)
                errors.append(not same or image.segmentation.ravel()[i] != hit[0])
    assert len(errors) == 1200
    assert np.mean(errors) < 0.01


def test_depth_and_labels_agree_with_mujocos_renderer(arena, layout, draw, tmp_path):
    states = random_states(arena, layout, 12, seed=2)
    names = [WALKER + name for name in CAMERAS]
    expected = mujoco_draws([arena], states[None], names, (64, 64), tmp_path)
    images = [draw(layout, qpos, camera) for qpos in states for camera in CAMERAS]
    every = zip(*(x.reshape(-1, *x.shape[3:]) for x in vars(expected).values()), strict=True)
    labels, depths, greys = [], [], []
    for image, (rgb, depth, ids) in zip(images, every, strict=True):
        inner = off_edge(ids)
        same = image.segmentation == ids
        labels.append(same[inner].mean())
        seen = inner & same & (ids >= 0)
        error = np.abs(image.depth[seen] - depth[seen])
        depths.append((error < 0.01 * depth[seen] + 1e-3).mean())
        greys.append(np.abs(image.rgb.astype(float) - rgb)[inner].mean())
    assert np.mean(labels) >= 0.98 and np.min(labels) >= 0.98
    assert np.mean(depths) >= 0.98 and np.min(depths) >= 0.98
    # Colours are alike, not equal: MuJoCo draws highlights and haze, and filters textures.
    assert np.mean(greys) < 4 and np.max(greys) < 6
