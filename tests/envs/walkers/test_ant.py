"""The ant: how it begins, what it feels, what MJX lets it touch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.arenas.gaps import Gaps
from envs.interfaces import Pose
from envs.models import SimulationConfig, physics_model
from envs.walkers.ant import Ant


@pytest.fixture(scope="module")
def model():
    return physics_model(Gaps(), Ant(), SimulationConfig())


def begin(model, noise, pose, seed=0):
    keys = jax.random.split(jax.random.key(seed))
    return Ant(reset_noise=noise).reset(model, pose, *keys)


def test_it_begins_at_its_pose_without_noise(model):
    qpos, qvel = begin(model, 0.0, Pose(jnp.array([1.0, -2.0, 0.5]), jnp.float32(np.pi / 2)))
    expected = model.qpos0.copy()
    expected[:3] += [1.0, -2.0, 0.5]
    expected[3:7] = [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]
    np.testing.assert_allclose(qpos, expected, atol=1e-6)
    assert not qvel.any()


def test_noise_is_uniform_on_positions_and_normal_on_velocities(model):
    noise, pose = 0.1, Pose(jnp.zeros(3), jnp.zeros(()))
    many = jax.vmap(lambda seed: begin(model, noise, pose, seed))
    qpos, qvel = many(jnp.arange(500))
    joints = np.asarray(qpos[:, 7:] - model.qpos0[7:])
    assert 0.99 * noise < np.abs(joints).max() <= noise * 1.0001
    assert abs(joints.std() / noise - 1 / np.sqrt(3)) < 0.02
    assert abs(np.std(qvel) / noise - 1) < 0.04
    np.testing.assert_allclose(np.linalg.norm(qpos[:, 3:7], axis=1), 1.0, atol=1e-6)


def test_feet_and_torso_touch_the_world_in_mjx(model):
    names = Ant().colliders(model)
    assert len(names) == 5 and len(set(names)) == 5
    assert sum("ankle" in name for name in names) == 4


@pytest.mark.parametrize(
    "change, message",
    [
        ({"reset_noise": -0.1}, "walker.reset_noise is -0.1"),
        ({"reset_noise": float("nan")}, "walker.reset_noise is nan"),
        ({"reach": 0.0}, "walker.reach is 0.0 m"),
        ({"reach": float("inf")}, "walker.reach is inf m"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Ant(**change)
