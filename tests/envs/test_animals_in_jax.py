"""Compare a step of the larger animals in MJX and in MJWarp with one in C."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import physics
from envs.presets import PRESETS
from tests.extras import WARP

pytestmark = pytest.mark.slow
# What MJX does not have; in MJWarp the animals are as they are.
CHANGES = {
    "rodent_gaps": {"capsules": True},
    "humanoid_gaps": {"capsules": True},
    "fly_floor": {"capsules": True, "adhesion": False},
}
N = 24


@pytest.mark.parametrize("back_end", ["mjx", pytest.param("warp", marks=WARP)])
@pytest.mark.parametrize("name", CHANGES)
def test_a_step_is_as_in_c(name, back_end):
    """One physics step from states of random episodes, with up to 50 iterations of each solver.

    After the 4 of the presets each solver is somewhere else. An ellipsoid or a cylinder touches at
    other points in MJWarp than in C, and a capsule on an edge in MJX.
    """
    preset = PRESETS[name]
    simulation = dataclasses.replace(preset.simulation, iterations=50, ls_iterations=50)
    changes = CHANGES[name] if back_end == "mjx" else {}
    walker = dataclasses.replace(preset.walker, **changes)
    preset = dataclasses.replace(preset, walker=walker, simulation=simulation)
    env = preset.make(seeing=False, back_end="mujoco")
    episodes = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), N))
    walk = jax.jit(jax.vmap(env.step))
    for key in jax.random.split(jax.random.key(1), 15):
        shape = (N, env.action_size)
        episodes = walk(episodes, jax.random.uniform(key, shape, minval=-1.0, maxval=1.0))
    now = episodes.data.physics

    # In the model for MJX less collides.
    model = preset.make(seeing=False, back_end=back_end).model
    engines = [physics.make_physics(kind, model, 1) for kind in (back_end, "mujoco")]

    def step(qpos, qvel, position, size):
        starts = [e.init(qpos, qvel, position, size) for e in engines]
        return [e.step(s, jnp.zeros(model.nu)) for e, s in zip(engines, starts, strict=True)]

    starts = now.qpos, now.qvel, now.mocap_pos, now.geom_size
    ours, c = jax.jit(jax.vmap(step))(*starts)
    assert not ours.failed.any() and not c.failed.any()
    apart = np.abs(ours.qvel - c.qvel).max(1) / np.abs(c.qvel).max(1)
    print(f"{name}, {back_end}: {np.quantile(apart, (0.5, 0.9, 1.0))}")
    assert np.median(apart) < 1e-3
    assert np.quantile(apart, 0.9) < 0.05
