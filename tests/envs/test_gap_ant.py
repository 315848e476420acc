"""The gap ant: what it is rewarded for, when an episode ends, what it sees."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs import world
from envs.corridor import CorridorConfig, Layout, gaps_crossed
from envs.gap_ant import GapAnt, GapAntConfig, RewardConfig, VisionConfig

N = 4
CONFIG = GapAntConfig(reward=RewardConfig(distance=0.25))


@pytest.fixture(scope="module")
def env():
    return GapAnt(CONFIG, VisionConfig(height=16, width=24), "mujoco")


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
    assert set(GapAnt(CONFIG).observation_spec) == {"proprio"}


def test_an_episode_starts_near_the_spawn_with_the_noise_asked_for(env, reset, start):
    offset = start.data.physics.qpos - env.model.qpos0
    assert 0 < np.abs(offset).max() <= CONFIG.reset_noise * 1.01
    np.testing.assert_allclose(
        np.linalg.norm(start.data.physics.qpos[:, 3:7], axis=1), 1.0, atol=1e-6
    )
    np.testing.assert_allclose(start.data.torso[:, :2], np.tile([5.0, 0.0], (N, 1)), atol=0.03)
    # The same key is the same episode; other keys are others.
    again = reset(jax.random.split(jax.random.key(0), N))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), start, again))
    assert len(np.unique(start.data.layout.starts[:, 3])) == N


def test_reward_is_the_sum_of_its_terms_from_the_true_state(env, start, step):
    action = random_actions(1)
    after = step(start, action)
    data = mujoco.MjData(env.model)
    for i in range(N):
        com = []
        for state in (start, after):
            data.qpos[:] = state.data.physics.qpos[i]
            mujoco.mj_kinematics(env.model, data)
            mujoco.mj_comPos(env.model, data)
            com.append(data.body(world.TORSO).subtree_com.copy())
        velocity = (com[1] - com[0]) / 0.025
        torso = data.body(world.TORSO).xpos
        control = float(jnp.square(action[i]).sum())
        metrics = {k: float(x[i]) for k, x in after.metrics.items()}
        expected = {
            "forward_reward": 5.0 * velocity[0],
            "reward_linvel": 5.0 * velocity[0],
            "reward_quadctrl": -0.1 * control,
            "reward_alive": 0.5,
            "train_reward": 5.0 * 0.025,
            "distance_reward": 0.25 * (torso[0] - 5.0),
            "x_position": torso[0],
            "y_position": torso[1],
            "x_velocity": velocity[0],
            "y_velocity": velocity[1],
            "distance_from_origin": np.hypot(torso[0] - 5.0, torso[1]),
            "gaps_crossed": 0.0,
        }
        assert metrics.keys() == expected.keys()
        for name, value in expected.items():
            # Positions of 5 m in float32 over 0.025 s: 5e-7 / 0.025 = 2e-5 m/s, times 5.
            assert metrics[name] == pytest.approx(value, abs=2e-4), name
        total = 5.0 * velocity[0] - 0.1 * control + 0.5 + 5.0 * 0.025 + 0.25 * (torso[0] - 5.0)
        assert float(after.reward[i]) == pytest.approx(total, abs=2e-4)


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
    assert (state.data.torso[:, 2] < 0).all()


def test_an_ant_that_leaves_the_height_range_fails_and_one_on_the_ground_does_not(put, step, start):
    high = step(put((5.0, 0.0, 0.8), start.data.layout), still())
    assert high.done.all() and not high.info["truncation"].any()
    state = put((5.0, 0.0, 0.0), start.data.layout)
    for _ in range(20):
        state = step(state, still())
    assert not state.done.any()
    assert (np.abs(state.data.physics.qvel) < 5).all()


def test_a_simulation_that_breaks_down_says_so(env, step, start):
    # Beyond 1e10 MuJoCo gives a simulation up (mjMAXVAL) and resets it without a word.
    physics = start.data.physics
    qvel = physics.qvel.at[1, 2].set(1e11)
    broken = jax.jit(jax.vmap(env.at))(physics.qpos, qvel, start.data.layout)
    assert not broken.info["failed"].any()
    after = step(broken, still())
    np.testing.assert_array_equal(after.info["failed"], [False, True, False, False])
    np.testing.assert_array_equal(after.done, [0, 1, 0, 0])


def test_the_corridors_end_cuts_an_episode_short(put, step, start):
    state = step(put((39.2, 0.0, 0.0), start.data.layout), still())
    assert state.done.all() and state.info["truncation"].all()


def test_gaps_are_counted_as_they_are_crossed(put, step, start):
    layout = start.data.layout
    state = step(put((20.0, 0.0, 0.0), layout), still())
    x = np.asarray(state.data.torso[:, 0])
    for i in range(N):
        starts, ends = np.asarray(layout.starts[i]), np.asarray(layout.ends[i])
        crossed = sum(1 for k in range(1, len(starts)) if ends[k - 1] < starts[k] < x[i])
        assert state.metrics["gaps_crossed"][i] == crossed > 3
    np.testing.assert_array_equal(
        state.metrics["gaps_crossed"], jax.vmap(gaps_crossed)(layout, state.data.torso[:, 0])
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
        env = GapAnt(CONFIG, None, name)
        state = jax.jit(env.reset)(jax.random.key(3))
        step = jax.jit(env.step)
        for i in range(10):
            state = step(state, random_actions(i)[0])
        ends[name] = state
    np.testing.assert_allclose(
        ends["mjx"].data.physics.qpos, ends["mujoco"].data.physics.qpos, atol=2e-3
    )
    assert ends["mjx"].obs["proprio"].shape == (27,)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"healthy_height": (1.0, 0.0)}, "healthy_height is 1.0 to 0.0"),
        ({"reset_noise": -0.1}, "reset_noise is -0.1"),
        ({"corridor": CorridorConfig(length=5.5)}, r"corridor.length is 5.5 m.*more than 6.0 m"),
    ],
)
def test_a_task_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        GapAnt(dataclasses.replace(CONFIG, **change))


def test_an_eye_that_is_not_there_is_refused(env):
    with pytest.raises(ValueError, match="no camera 'nose'; it has .*egocentric"):
        env.camera("nose", 16, 16)
    with pytest.raises(ValueError, match="height is 0"):
        env.camera("egocentric", 0, 16)
