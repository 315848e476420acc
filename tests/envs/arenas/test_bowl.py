"""The arena `bowl`: its terrains, where walkers start, and dm_control's own Bowl beside it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from dm_control import mjcf
from dm_control.locomotion import arenas, walkers
from dm_control.locomotion.tasks import escape
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from envs import models, physics
from envs.arenas.bowl import CELL, HALF, POINTS, Bowl, Layout, centres, terrains
from envs.interfaces import Pose
from envs.locomotion import Locomotion
from envs.tasks.escape import Escape
from envs.walkers.ant import Ant
from envs.walkers.jumping_ball import JumpingBall
from tests.extras import WARP

BOWL = Bowl()
ANY = Bowl(terrains=3, margin=0.0, spawn_rotation="any")
STILL = Ant(reset_noise=0.0)
REACH = 1.4


def at(terrain):
    return Layout(jnp.int32(terrain))


@functools.cache
def compiled(arena):
    root = arena.build()
    return mujoco.MjModel.from_xml_string(root.to_xml_string(), root.get_assets())


class Theirs:
    """dm_control's bowl with an ant, in which terrains are regenerated as its episodes begin."""

    def __init__(self, walker=None):
        self.arena = arenas.bowl.Bowl(aesthetic="outdoor_natural")
        # An ant in the ground has hundreds of contacts; what forces they would make is not asked.
        self.arena.mjcf_model.size.memory = "256M"
        self.arena.mjcf_model.option.set_attributes(solver="CG", iterations=1, noslip_iterations=0)
        self.walker = walker
        if walker is not None:
            walker.create_root_joints(self.arena.attach(walker))
        self.physics = mjcf.Physics.from_mjcf_model(self.arena.mjcf_model)

    def regenerate(self, random_state):
        """Return heights float64[201, 201], metres."""
        # Without OpenGL there is nothing that would have to be shown the terrain.
        physics = type("Blind", (), {"bind": self.physics.bind, "contexts": None})()
        physics.model = self.physics.model
        self.arena.regenerate(random_state)
        self.arena.initialize_episode(physics, random_state)
        return self.physics.model.hfield_data.reshape(POINTS, POINTS) * 0.5

    def put(self, orientation):
        """Return the height of the walker's free joint that dm_control finds."""
        escape._find_non_contacting_height(self.physics, self.walker, orientation)
        return self.physics.bind(mjcf.get_frame_freejoint(self.walker.mjcf_model)).qpos[2]


# The terrains.


def test_terrains_are_those_that_dm_control_draws():
    theirs, random_state = Theirs(), np.random.RandomState(BOWL.seed)
    model, n = compiled(BOWL), POINTS // 2
    rows, columns = int(model.hfield_nrow[0]), int(model.hfield_ncol[0])
    ours = model.hfield_data.reshape(rows, columns) * model.hfield_size[0, 2]
    np.testing.assert_allclose(model.hfield_size[0, :2] * 2 / [columns - 1, rows - 1], CELL)
    for x, y, _ in centres(BOWL):
        row, column = round(y / CELL + (rows - 1) / 2), round(x / CELL + (columns - 1) / 2)
        tile = np.s_[row - n : row + n + 1, column - n : column + n + 1]
        np.testing.assert_allclose(ours[tile], theirs.regenerate(random_state), atol=1e-6)
        ours[tile] = 0
    # Flat between them.
    assert not ours.any()


def test_the_rest_of_the_world_is_dm_controls():
    ours, theirs = compiled(BOWL), Theirs().physics.model.ptr
    assert [ours.geom(g).name for g in range(2)] == ["terrain", "groundplane"]
    for name in ("type", "pos", "quat", "rgba", "friction", "solref", "contype", "conaffinity"):
        np.testing.assert_array_equal(
            getattr(ours, f"geom_{name}"), getattr(theirs, f"geom_{name}")
        )
    np.testing.assert_array_equal(ours.tex_data, theirs.tex_data)
    np.testing.assert_array_equal(ours.mat_texrepeat, theirs.mat_texrepeat)
    for name in ("ambient", "diffuse", "specular"):
        np.testing.assert_array_equal(
            getattr(ours.vis.headlight, name), getattr(theirs.vis.headlight, name)
        )


many = st.builds(
    Bowl,
    terrains=st.integers(1, 7),
    seed=st.integers(0, 9),
    margin=st.floats(0, 3),
)


@settings(max_examples=8, deadline=None)
@given(many, st.integers(0, 2**31 - 1))
def test_terrains_are_apart_and_each_is_drawn(arena, seed):
    arena.check(REACH)
    middles, heights = centres(arena), terrains(arena)
    assert middles.shape == (arena.terrains, 3)
    apart = np.abs(middles[:, None] - middles)[..., :2].max(-1) + 99 * np.eye(arena.terrains)
    assert apart.min() >= 2 * HALF + arena.margin - 1e-4 or arena.terrains == 1
    keys = jax.random.split(jax.random.key(seed), 200)
    drawn = np.asarray(jax.vmap(arena.draw)(keys).terrain)
    assert set(drawn) == set(range(arena.terrains))
    # None equals another, and all of the ground's bumps are in one.
    half = 0.5 * (np.array(heights.shape[::-1]) - 1) * CELL
    assert np.all(np.abs(middles[:, :2]) + HALF <= half + 1e-4)
    corners = np.round((middles[:, :2] + half - HALF) / CELL).astype(int)
    tiles = [heights[y : y + POINTS, x : x + POINTS] for x, y in corners]
    assert len({tile.tobytes() for tile in tiles}) == arena.terrains
    assert np.count_nonzero(heights) == sum(map(np.count_nonzero, tiles))


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_ground_is_where_rays_from_above_meet_it(seed):
    rng, model = np.random.default_rng(seed), compiled(ANY)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    points = rng.uniform(-1, 1, (400, 2)) * (model.hfield_size[0, :2] + 1)
    ours = ANY.ground(at(0), jnp.asarray(points, jnp.float32))
    below, geom = np.array([0.0, 0, -1]), np.zeros(1, np.int32)
    ray = lambda x, y: mujoco.mj_ray(model, data, [x, y, 5.0], below, None, 1, -1, geom)
    theirs = 5.0 - np.array([ray(*point) for point in points])
    # Within a cell theirs has two triangles, ours bends between its corners.
    assert np.abs(ours - theirs).max() < 0.02
    assert np.abs(ours - theirs).mean() < 5e-4


def test_ahead_by_hand():
    tell = lambda arena, x, y: np.asarray(arena.ahead(at(0), jnp.array([x, y, 0.7])))
    told = dict(zip(BOWL.ahead_names, tell(BOWL, *centres(BOWL)[0][:2]), strict=True))
    ground = lambda x, y: float(BOWL.ground(at(0), centres(BOWL)[0][:2] + np.float32([x, y])))
    under = ground(0, 0)
    assert told["ground at 0 degrees, 2 m"] == pytest.approx(ground(2, 0) - under, abs=1e-5)
    assert told["ground at 90 degrees, 1 m"] == pytest.approx(ground(0, 1) - under, abs=1e-5)
    assert told["ground at 225 degrees, 0.5 m"] == pytest.approx(
        ground(-np.sqrt(0.125), -np.sqrt(0.125)) - under, abs=1e-5
    )
    # On the way to the rim the ground rises.
    assert min(value for name, value in told.items() if name.endswith(" 2 m")) > 0.1
    assert not tell(BOWL, 100.0, 100.0).any()


# Where walkers start.


def starts(arena, number, seed=0):
    """Positions of all joints of a still ant float32[N, nq] at resets, and the layouts."""
    env = Locomotion(arena, STILL, Escape(), None, back_end="mujoco")
    data = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(seed), number)).data
    return env, np.asarray(data.physics.qpos), np.asarray(data.layout.terrain)


def test_walkers_start_as_low_as_they_touch_nothing():
    env, qpos, terrain = starts(ANY, 60)
    model, data = env.model, mujoco.MjData(env.model)
    np.testing.assert_array_equal(qpos[:, :2], centres(ANY)[terrain, :2])
    touching = []
    for data.qpos[:] in qpos:
        mujoco.mj_forward(model, data)
        touching.append(data.contact.dist.min(initial=0.0))
        data.qpos[2] -= 0.011
        mujoco.mj_forward(model, data)
        assert data.ncon or data.qpos[2] < 0
    # Points on its surface are tested, and bumps may be between them.
    assert min(touching) > -0.004 and np.mean(np.array(touching) < 0) < 0.1


def test_upright_walkers_start_with_any_heading():
    _, qpos, _ = starts(Bowl(terrains=2, margin=0.0), 200)
    np.testing.assert_allclose(qpos[:, 4:6], 0, atol=1e-6)
    yaw = 2 * np.arctan2(qpos[:, 6], qpos[:, 3])
    assert stats.kstest(yaw % (2 * np.pi), stats.uniform(0, 2 * np.pi).cdf).pvalue > 0.01
    assert np.std(qpos[:, 2]) > 0.005


def spawned(number, seed=0):
    """Orientations [N, 4] and heights [N] of dm_control's ant at starts of its `Escape`."""
    theirs, random_state = Theirs(walkers.Ant()), np.random.RandomState(seed)
    turns, heights = [], []
    for _ in range(number):
        theirs.regenerate(random_state)
        turn = random_state.randn(4)
        turns.append(turn / np.linalg.norm(turn))
        heights.append(theirs.put(turns[-1]))
    return np.array(turns), np.array(heights)


def test_heights_at_the_start_are_dm_controls_on_the_same_terrain():
    theirs, arena = Theirs(walkers.Ant()), Bowl(terrains=1, margin=0.0)
    theirs.regenerate(np.random.RandomState(arena.seed))
    env = Locomotion(arena, STILL, Escape(), None, back_end="mujoco")
    turns = np.random.default_rng(0).normal(size=(40, 4))
    turns /= np.linalg.norm(turns, axis=1, keepdims=True)
    key = jax.random.key(0)
    place = lambda turn: Pose(jnp.zeros(3), jnp.zeros(()), turn)
    put = jax.jit(jax.vmap(lambda turn: env.posture(at(0), place(turn), key, key)[0]))
    ours = put(jnp.asarray(turns, jnp.float32))[:, 2]
    off = ours - np.array([theirs.put(turn) for turn in turns])
    # In whole centimetres.
    assert np.abs(off).max() < 0.011
    assert np.mean(np.abs(off) < 1e-4) > 0.9


@pytest.mark.slow
def test_starts_have_dm_controls_distribution():
    _, qpos, _ = starts(dataclasses.replace(ANY, terrains=100), 1000)
    turns, heights = spawned(1000)
    assert stats.ks_2samp(qpos[:, 2], heights).pvalue > 0.01
    # A quaternion and its negative are one orientation.
    for i in range(3):
        ours = 2 * (qpos[:, 3] * qpos[:, 4 + i])
        theirs = 2 * (turns[:, 0] * turns[:, 1 + i])
        assert stats.ks_2samp(ours, theirs).pvalue > 0.01


def test_a_walker_that_cannot_tilt_is_refused_where_it_would_have_to():
    with pytest.raises(ValueError, match="Bowl starts walkers in any orientation, but this one"):
        Locomotion(ANY, JumpingBall(), Escape(), None, back_end="mujoco")
    env = Locomotion(Bowl(terrains=1), JumpingBall(), Escape(), None, back_end="mujoco")
    state = jax.jit(env.reset)(jax.random.key(0))
    # Its ball stands above the bumps in the middle.
    height = env.arena.ground(state.data.layout, state.data.root[:2])
    assert state.data.root[2] - 0.6 >= height > 0.01


# Physics.


@pytest.mark.parametrize("kind", ["ellipsoid", "cylinder"])
def test_mjx_refuses_what_it_cannot_collide_with_a_height_field(kind):
    root = Bowl(terrains=1, margin=0.0).build()
    root.option.set_attributes(noslip_iterations=0, cone="pyramidal")
    body = root.worldbody.add("body", name="walker", pos=(0, 0, 1))
    body.add("freejoint")
    body.add("geom", type=kind, size=(0.1, 0.2, 0.3))
    model = mujoco.MjModel.from_xml_string(root.to_xml_string(), root.get_assets())
    sentence = f"is an? {kind}, and MJX has no collisions of it with the height field 'terrain'"
    with pytest.raises(ValueError, match=sentence):
        physics.make_physics("mjx", model, 5)


@pytest.mark.slow
@pytest.mark.parametrize("back_end", ["mjx", pytest.param("warp", marks=WARP)])
def test_steps_are_as_in_c_but_for_the_points_of_contact(back_end):
    """Each control step starts from where C is. In C a capsule meets a height field in up to 50
    points, in MJX in the two deepest, and in MJWarp in others, so that velocities differ after a
    step."""
    env = Locomotion(BOWL, Ant(), Escape(), None, back_end="mujoco")
    model = models.physics_model(BOWL, Ant(), env.simulation, back_end)
    engines = [physics.make_physics(name, model, 5) for name in (back_end, "mujoco")]
    states = [jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 8))]
    step = jax.jit(jax.vmap(env.step))
    actions = np.random.default_rng(0).uniform(-1, 1, (60, 8, 8)).astype(np.float32)
    for action in actions:
        states.append(step(states[-1], action))

    @jax.jit
    def both(qpos, qvel, control):
        ends = [engine.step(engine.init(qpos, qvel), control) for engine in engines]
        return [(end.qpos, end.qvel, end.failed) for end in ends]

    off, moved = [], []
    for state, action in zip(states[20::8], actions[20::8], strict=False):
        for i in range(8):
            now = jax.tree.map(lambda x, i=i: x[i], state.data.physics)
            ours, c = both(now.qpos, now.qvel, action[i])
            assert not ours[2]
            off.append([np.abs(a - b).max() for a, b in zip(ours[:2], c[:2], strict=True)])
            moved.append(np.abs(c[1] - now.qvel).max())
    positions, velocities = np.array(off).T
    assert positions.max() < 0.05
    assert np.median(velocities) < 0.1 * np.median(moved)


@pytest.mark.slow
def test_four_hundred_steps_equal_mujocos_bit_for_bit():
    env = Locomotion(BOWL, Ant(), Escape(), None, back_end="mujoco")
    state, step = jax.jit(env.reset)(jax.random.key(3)), jax.jit(env.step)
    world = env.whole(state.data)
    data = mujoco.MjData(world)
    data.qpos[:], data.qvel[:] = state.data.physics.qpos, state.data.physics.qvel
    touched = 0
    for action in np.random.default_rng(0).uniform(-1, 1, (400, 8)).astype(np.float32):
        state = step(state, action)
        data.ctrl[:] = action
        for _ in range(5):
            mujoco.mj_step(world, data)
        touched += data.ncon > 0
        np.testing.assert_array_equal(state.data.physics.qpos, np.float32(data.qpos))
        np.testing.assert_array_equal(state.data.physics.qvel, np.float32(data.qvel))
    assert touched > 200


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"aesthetic": "lunar"}, "arena.aesthetic is 'lunar'; it has to be default or"),
        ({"spawn_rotation": "flat"}, "arena.spawn_rotation is 'flat'; it has to be upright or any"),
        ({"margin": -1.0}, "arena.margin is -1.0 m; it has to be finite, 0 or more"),
        ({"terrains": 0}, "arena.terrains is 0; it has to be 1 or more"),
        ({"terrains": 500}, "arena.terrains is 500 .* most 4000: use fewer terrains"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(BOWL, **wrong).check(REACH)
