"""Running through a corridor: what is rewarded, and when an episode ends."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.arenas.gaps import Gaps
from envs.locomotion import Locomotion
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.walkers.ant import Ant

N = 4
TASK = RunThroughCorridor(distance=0.25)
TORSO = "walker/torso"


@pytest.fixture(scope="module")
def env():
    return Locomotion(Gaps(), Ant(), TASK, back_end="mujoco")


@pytest.fixture(scope="module")
def step(env):
    return jax.jit(jax.vmap(env.step))


@pytest.fixture(scope="module")
def start(env):
    return jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), N))


@pytest.fixture(scope="module")
def put(env, start):
    """Put one ant into each of N environments; its root is on the ground at z = 0."""
    at = jax.jit(jax.vmap(env.at, in_axes=(None, None, 0)))

    def put(position):
        qpos = jnp.asarray(env.model.qpos0, jnp.float32).at[:3].set(jnp.asarray(position))
        return at(qpos, jnp.zeros(env.model.nv), start.data.layout)

    return put


STILL = jnp.zeros((N, 8))


def test_reward_is_the_sum_of_its_terms_from_the_true_state(env, start, step):
    action = jax.random.uniform(jax.random.key(1), (N, 8), minval=-1.0, maxval=1.0)
    after = step(start, action)
    data = mujoco.MjData(env.model)
    for i in range(N):
        com = []
        for state in (start, after):
            data.qpos[:] = state.data.physics.qpos[i]
            mujoco.mj_kinematics(env.model, data)
            mujoco.mj_comPos(env.model, data)
            com.append(data.body(TORSO).subtree_com.copy())
        velocity = (com[1] - com[0]) / 0.025
        torso = data.body(TORSO).xpos
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
            "distance_along_x": torso[0] - 5.0,
            "gaps_crossed": 0.0,
            "obstacles_passed": 0.0,
            "success": 1.0,
        }
        assert metrics.keys() == expected.keys()
        for name, value in expected.items():
            # Positions of 5 m in float32 over 0.025 s: 5e-7 / 0.025 = 2e-5 m/s, times 5.
            assert metrics[name] == pytest.approx(value, abs=2e-4), name
        total = 5.0 * velocity[0] - 0.1 * control + 0.5 + 5.0 * 0.025 + 0.25 * (torso[0] - 5.0)
        assert float(after.reward[i]) == pytest.approx(total, abs=2e-4)


def test_an_ant_that_leaves_the_height_range_fails_and_one_on_the_ground_does_not(put, step):
    high = step(put((5.0, 0.0, 0.8)), STILL)
    assert high.done.all() and not high.info["truncation"].any()
    assert not high.metrics["success"].any()
    state = put((5.0, 0.0, 0.0))
    for _ in range(20):
        state = step(state, STILL)
    assert not state.done.any()
    assert (np.abs(state.data.physics.qvel) < 5).all()


def test_the_corridors_end_cuts_an_episode_short(put, step):
    state = step(put((39.2, 0.0, 0.0)), STILL)
    assert state.done.all() and state.info["truncation"].all()
    assert state.metrics["success"].all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"healthy_height": (1.0, 0.0)}, "task.healthy_height is 1.0 to 0.0 m"),
        ({"healthy_height": (0.5, 0.5)}, "the first has to be the smaller"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Locomotion(Gaps(), Ant(), dataclasses.replace(TASK, **change))
