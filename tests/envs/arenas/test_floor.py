"""The floor: where episodes begin, and physics without a single slot."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from dm_control.locomotion import arenas

from envs.arenas.floor import Floor
from envs.locomotion import Locomotion
from envs.tasks.go_to_target import GoToTarget
from envs.walkers.jumping_ball import JumpingBall

YAW = (-2.0, 1.0)
FORWARDS_AND_LEFT = jnp.array([-1.0, -0.3, 0.0])


def make(back_end):
    return Locomotion(
        Floor(spawn_yaw=YAW), JumpingBall(), GoToTarget(moving_target=True), None, back_end=back_end
    )


def rolled(env, steps):
    """The states of an episode, and the first one."""
    step = jax.jit(env.step)
    state = first = jax.jit(env.reset)(jax.random.key(1))
    states = []
    for _ in range(steps):
        state = step(state, FORWARDS_AND_LEFT)
        states.append(state)
    return first, states


@pytest.fixture(scope="module")
def in_c():
    env = make("mujoco")
    return env, *rolled(env, 40)


@pytest.mark.parametrize("size", [(8.0, 8.0), (2.0, 6.0)])
def test_episodes_begin_in_the_inner_half_in_any_direction_asked_for(size):
    floor = Floor(size=size, spawn_yaw=YAW)
    keys = jax.random.split(jax.random.key(0), 4000)
    pose = jax.vmap(lambda key: floor.spawn((), key))(keys)
    assert np.all(pose.position[:, 2] == 0)
    for values, (low, high) in zip(
        (*pose.position[:, :2].T, pose.yaw),
        ((-size[0] / 2, size[0] / 2), (-size[1] / 2, size[1] / 2), YAW),
        strict=True,
    ):
        assert low <= values.min() and values.max() < high
        shares = np.histogram(values, 4, (low, high))[0] / len(values)
        np.testing.assert_allclose(shares, 0.25, atol=0.03)
    assert abs(np.corrcoef(pose.position[:, 0], pose.yaw)[0, 1]) < 0.05
    still = jax.vmap(lambda key: Floor().spawn((), key))(keys)
    assert np.all(still.yaw == 0)


@pytest.mark.parametrize("aesthetic", ["default", "outdoor_natural"])
def test_the_floor_is_dm_controls(aesthetic):
    size = (3.0, 5.0)
    ours = Floor(aesthetic, size).whole(())
    theirs = arenas.Floor(size=size, aesthetic=aesthetic).mjcf_model
    assert ours.to_xml_string() == theirs.to_xml_string()
    assert Floor().colliders() == ["groundplane"]


def test_nothing_is_in_the_way():
    floor, position = Floor(), jnp.array([100.0, 0.0, 0.0])
    assert floor.draw(jax.random.key(0)) == ()
    assert floor.ahead((), position).shape == (0,)
    assert floor.boxes((), position, 1.0).position.shape == (0, 3)
    assert not floor.visible_geoms(floor.build()) and floor.visible(()).geoms is None
    progress = floor.progress((), position)
    assert not progress.arrived and progress.passed == 0 and progress.metrics == {}


def test_physics_without_slots_is_that_of_the_whole_model_bit_for_bit(in_c):
    env, first, states = in_c
    assert env.model.nmocap == 0
    whole = env.whole(first.data)
    data = mujoco.MjData(whole)
    data.qpos[:], data.qvel[:] = env.joints(first.data)
    data.ctrl[:] = FORWARDS_AND_LEFT
    for state in states:
        mujoco.mj_step(whole, data, nstep=5)
        qpos, qvel = env.joints(state.data)
        np.testing.assert_array_equal(qpos, data.qpos.astype(np.float32))
        np.testing.assert_array_equal(qvel, data.qvel.astype(np.float32))
    assert not any(state.done for state in states)
    # It rolled, and stayed on the floor.
    assert np.linalg.norm(states[-1].data.root[:2] - first.data.root[:2]) > 0.5
    assert abs(states[-1].data.root[2] - 0.6) < 0.01


def test_mjx_without_slots_agrees(in_c):
    _, _, states = in_c
    env = make("mjx")
    assert env.model.nmocap == 0
    _, others = rolled(env, 40)
    for state, other in zip(states, others, strict=True):
        np.testing.assert_allclose(other.data.root, state.data.root, atol=1e-3)
        np.testing.assert_allclose(other.obs["proprio"], state.obs["proprio"], rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aesthetic": "parquet"}, "arena.aesthetic is 'parquet'; it has to be default or"),
        ({"size": (8.0, 0.0)}, r"arena.size is \(8.0, 0.0\) m; both have to be positive"),
        ({"size": (float("nan"), 8.0)}, "arena.size is"),
        ({"spawn_yaw": (1.0, 0.0)}, r"arena.spawn_yaw is \(1.0, 0.0\)"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Floor(**settings).check(1.0)
