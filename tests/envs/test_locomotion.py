"""The environment of an arena, a walker and a task, as the gap ant: states, ends, pictures."""

import dataclasses
import logging
import math

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.arenas.floor import Floor
from envs.arenas.gaps import Gaps, Layout, gaps_crossed
from envs.locomotion import Locomotion
from envs.models import SimulationConfig
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.vision import VisionConfig
from envs.walkers.ant import Ant
from envs.walkers.cmu_humanoid import CmuHumanoid
from envs.walkers.jumping_ball import JumpingBall

N = 4
PARTS = Gaps(), Ant(), RunThroughCorridor(distance=0.25)


@pytest.fixture(scope="module")
def env():
    return Locomotion(*PARTS, VisionConfig(height=16, width=24), back_end="mujoco")


@pytest.fixture(scope="module")
def reset(env):
    return jax.jit(jax.vmap(env.reset))


@pytest.fixture(scope="module")
def step(env):
    return jax.jit(jax.vmap(env.step))


@pytest.fixture(scope="module")
def start(reset):
    return reset(jax.random.split(jax.random.key(0), N))


@pytest.fixture(scope="module")
def put(env):
    """Puts one ant into each of N environments; its root is on the ground at z = 0."""

    @jax.jit
    @jax.vmap
    def put(position, orientation, layout):
        qpos = jnp.asarray(env.model.qpos0, jnp.float32)
        qpos = qpos.at[:3].set(position).at[3:7].set(orientation)
        return env.at(qpos, jnp.zeros(env.model.nv), layout)

    def put_all(position, layout, orientation=(1.0, 0.0, 0.0, 0.0)):
        position = jnp.broadcast_to(jnp.asarray(position, jnp.float32), (N, 3))
        orientation = jnp.broadcast_to(jnp.asarray(orientation), (N, 4))
        return put(position, orientation, layout)

    return put_all


def still(n=N):
    return jnp.zeros((n, 8))


def random_actions(seed):
    return jax.random.uniform(jax.random.key(seed), (N, 8), minval=-1.0, maxval=1.0)


def test_observations_are_what_the_spec_says(env, start, step):
    for state in (start, step(start, random_actions(0))):
        assert {k: (x.shape[1:], x.dtype) for k, x in state.obs.items()} == {
            k: (s.shape, s.dtype) for k, s in env.observation_spec.items()
        }
        data = state.data.physics
        np.testing.assert_array_equal(
            state.obs["proprio"], np.concatenate([data.qpos[:, 2:], data.qvel], axis=1)
        )
    assert env.observation_spec["vision"].shape == (16, 24, 3)
    assert env.observation_spec["proprio"].shape == (27,)
    assert set(Locomotion(*PARTS).observation_spec) == {"proprio"}
    assert set(start.metrics) == set(step(start, random_actions(0)).metrics)
    assert set(start.metrics) >= {"obstacles_passed", "success"} | set(env.shown)


def test_sensors_asked_for_are_felt(start):
    sensors = ("walker/torso_gyro", "walker/torso_vel")
    env = Locomotion(*PARTS, simulation=SimulationConfig(sensors=sensors), back_end="mujoco")
    assert env.observation_spec["proprio"].shape == (27 + 6,)
    state = jax.jit(env.step)(jax.jit(env.reset)(jax.random.key(0)), random_actions(0)[0])
    felt = np.asarray(state.obs["proprio"][27:])
    np.testing.assert_array_equal(felt, state.data.physics.sensordata)
    assert (felt != 0).all()


def test_a_compass_tells_where_x_is_in_the_axes_of_the_root():
    env = Locomotion(*PARTS, simulation=SimulationConfig(compass=True), back_end="mujoco")
    qpos = jnp.asarray(env.model.qpos0, jnp.float32)
    layout = env.arena.draw(jax.random.key(0))
    half = math.sqrt(0.5)
    for quaternion, direction in {
        (1.0, 0.0, 0.0, 0.0): (1, 0, 0),
        (half, 0.0, 0.0, half): (0, -1, 0),  # Turned to the left: x is on the right, at -y.
        (half, 0.0, half, 0.0): (0, 0, 1),  # Looking down: x is above the head.
    }.items():
        turned = qpos.at[3:7].set(jnp.array(quaternion))
        obs = env.at(turned, jnp.zeros(env.model.nv), layout).obs["proprio"]
        np.testing.assert_allclose(obs[-3:], direction, atol=1e-6)
        assert len(obs) == 27 + 3


@pytest.mark.parametrize("body", [Ant(), JumpingBall(), CmuHumanoid()])
def test_the_heading_is_where_the_animal_faces(body):
    calm = dataclasses.replace(body, reset_noise=0.0)
    floor = Floor(spawn_yaw=(0.5, 0.5))
    env = Locomotion(floor, calm, RunThroughCorridor(), back_end="mujoco")
    state = jax.jit(env.reset)(jax.random.key(0))
    assert env.truth(state.data)["heading"] == pytest.approx(0.5, abs=0.01)


def test_what_lies_ahead_is_told_where_asked_for_and_no_policy_has_it_unasked(put):
    env = Locomotion(*PARTS, back_end="mujoco", ahead=True)
    assert env.observation_spec["ahead"].shape == (4,)
    assert env.policy_leaves == ("proprio",)
    state = jax.jit(env.reset)(jax.random.key(0))
    expected = env.arena.ahead(state.data.layout, state.data.root)
    np.testing.assert_allclose(state.obs["ahead"], expected, atol=1e-6)
    # The start platform and the next one touch, and the first gap begins behind both.
    assert 2.4 < state.obs["ahead"][0] < state.obs["ahead"][1]


class Nowhere(Gaps):
    def ahead(self, layout, position):
        return jnp.zeros(0)


def test_asking_for_what_nobody_tells_is_refused():
    with pytest.raises(ValueError, match="ahead is asked for, but neither Nowhere nor RunThrough"):
        Locomotion(Nowhere(), *PARTS[1:], ahead=True)


def test_an_episode_starts_near_the_spawn_with_the_noise_asked_for(env, reset, start):
    offset = start.data.physics.qpos - env.model.qpos0
    assert 0 < np.abs(offset).max() <= env.walker.reset_noise * 1.01
    np.testing.assert_allclose(
        np.linalg.norm(start.data.physics.qpos[:, 3:7], axis=1), 1.0, atol=1e-6
    )
    np.testing.assert_allclose(start.data.root[:, :2], np.tile([5.0, 0.0], (N, 1)), atol=0.03)
    # The same key is the same episode; other keys are others.
    again = reset(jax.random.split(jax.random.key(0), N))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), start, again))
    assert len(np.unique(start.data.layout.starts[:, 3])) == N


def test_an_ant_over_a_hole_falls_and_fails(env, put, step, start):
    # One platform ends at 8 m, the next begins 30 m further on: nothing is under x = 12 m.
    starts = jnp.where(jnp.arange(start.data.layout.starts.shape[1]) < 1, 0.0, 39.0)
    ends = jnp.where(jnp.arange(start.data.layout.ends.shape[1]) < 1, 8.0, 39.9)
    hole = Layout(jnp.tile(starts, (N, 1)), jnp.tile(ends, (N, 1)))
    state = put((12.0, 0.0, 0.0), hole)
    assert not state.done.any()
    for _ in range(40):
        state = step(state, still())
        if state.done.any():
            break
    assert state.done.all()
    assert (state.info["truncation"] == 0).all()
    assert (state.data.root[:, 2] < 0).all()


def test_a_simulation_that_breaks_down_says_so(env, step, start):
    # Beyond 1e10 MuJoCo gives a simulation up (mjMAXVAL) and resets it without a word.
    physics = start.data.physics
    qvel = physics.qvel.at[1, 2].set(1e11)
    broken = jax.jit(jax.vmap(env.at))(physics.qpos, qvel, start.data.layout)
    assert not broken.info["failed"].any()
    after = step(broken, still())
    np.testing.assert_array_equal(after.info["failed"], [False, True, False, False])
    np.testing.assert_array_equal(after.done, [0, 1, 0, 0])
    np.testing.assert_array_equal(after.metrics["success"], [1, 0, 1, 1])


def test_gaps_are_counted_as_they_are_crossed(put, step, start):
    layout = start.data.layout
    state = step(put((20.0, 0.0, 0.0), layout), still())
    x = np.asarray(state.data.root[:, 0])
    for i in range(N):
        starts, ends = np.asarray(layout.starts[i]), np.asarray(layout.ends[i])
        crossed = sum(1 for k in range(1, len(starts)) if ends[k - 1] < starts[k] < x[i])
        assert state.metrics["gaps_crossed"][i] == crossed > 3
    np.testing.assert_array_equal(
        state.metrics["gaps_crossed"], jax.vmap(gaps_crossed)(layout, state.data.root[:, 0])
    )


def test_the_picture_follows_the_state(put, start, step):
    layout = start.data.layout
    here, there = (put((x, 0.0, 0.0), layout).obs["vision"] for x in (7.0, 7.3))
    turned = put((7.0, 0.0, 0.0), layout, (0.9238795, 0.0, 0.0, 0.3826834)).obs["vision"]
    for other in (there, turned):
        changed = (here != other).any(-1).mean((1, 2))
        assert (changed > 0.1).all()
    # And along an episode no picture is that of the step before.
    state = start
    for i in range(5):
        after = step(state, random_actions(i))
        assert (after.obs["vision"] != state.obs["vision"]).any((1, 2, 3)).all()
        state = after


def test_environments_of_one_batch_see_their_own_corridors(put, start):
    # From several places: in so small a picture a single gap may fall between two pixels.
    places = [put((x, 0.0, 0.0), start.data.layout).obs["vision"] for x in (7.0, 8.5, 10.0)]
    seen = np.stack(places, axis=1)
    for i in range(N):
        for k in range(i):
            assert (seen[i] != seen[k]).any()


def test_a_gap_ahead_is_seen(put):
    whole = Layout(jnp.array([0.0, 6.0, 8.0, 10.0]), jnp.array([6.0, 8.0, 10.0, 39.0]))
    split = Layout(jnp.array([0.0, 6.0, 8.0, 10.0]), jnp.array([6.0, 8.0, 9.2, 39.0]))
    layouts = jax.tree.map(lambda a, b: jnp.stack([a, b, a, b]), whole, split)
    seen = np.asarray(put((7.0, 0.0, 0.0), layouts).obs["vision"], int)
    gap = (np.abs(seen[0] - seen[1]) > 20).any(-1)
    assert 0.02 < gap.mean() < 0.5
    np.testing.assert_array_equal(seen[0], seen[2])


def test_new_corridors_and_long_episodes_compile_once(env, caplog):
    reset, step = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for seed in range(3):
            state = reset(jax.random.split(jax.random.key(seed), 2))
            for _ in range(3):
                state = step(state, still(2))
    names = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling")]
    assert sum("reset" in name for name in names) == 1
    assert sum("step" in name for name in names) == 1


def test_both_engines_carry_the_same_episode(start):
    """Ten control steps from the same start: MJX's float32 against C's float64."""
    ends = {}
    for name in ("mujoco", "mjx"):
        env = Locomotion(*PARTS, back_end=name)
        state = jax.jit(env.reset)(jax.random.key(3))
        step = jax.jit(env.step)
        for i in range(10):
            state = step(state, random_actions(i)[0])
        ends[name] = state
    np.testing.assert_allclose(
        ends["mjx"].data.physics.qpos, ends["mujoco"].data.physics.qpos, atol=2e-3
    )
    assert ends["mjx"].obs["proprio"].shape == (27,)


def test_an_eye_that_is_not_there_is_refused(env):
    with pytest.raises(ValueError, match="no camera 'nose'; it has .*egocentric"):
        env.camera("nose", 16, 16)
    with pytest.raises(ValueError, match="height is 0"):
        env.camera("egocentric", 0, 16)


def test_the_whole_model_of_a_state_has_its_joints_and_its_root(env, start):
    data = jax.tree.map(lambda x: x[1], start.data)
    model = env.whole(data)
    state = mujoco.MjData(model)
    state.qpos[:], state.qvel[:] = env.joints(data)
    mujoco.mj_forward(model, state)
    np.testing.assert_allclose(state.xpos[env.tracked(model)], data.root, atol=1e-6)
