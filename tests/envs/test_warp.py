"""What the back end `warp` has beside `mjx`; what they share is in test_physics.py."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs import physics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("warp") is None, reason="needs the extra warp"),
]


def balls(n):
    """Balls of 2 cm that lie on a plane, one contact each, without touching each other."""
    bodies = "".join(
        f'<body pos="{0.05 * i} 0 0.0199"><freejoint/><geom size="0.02" conaffinity="0"/></body>'
        for i in range(n)
    )
    return mujoco.MjModel.from_xml_string(
        f'<mujoco><worldbody><geom type="plane" size="9 9 1"/>{bodies}</worldbody></mujoco>'
    )


def steps(model, substeps=1):
    """(qpos, control) -> the state after a control step by warp, and by C."""
    engines = [physics.make_physics(name, model, substeps) for name in ("warp", "mujoco")]

    def step(qpos, control=None):
        control = jnp.zeros(model.nu) if control is None else control
        starts = [e.init(qpos, jnp.zeros(model.nv)) for e in engines]
        return [e.step(s, control) for e, s in zip(engines, starts, strict=True)]

    return step


def test_contacts_beyond_the_memory_are_a_failure_and_not_left_out():
    model = balls(65)
    step = jax.jit(steps(model))
    start = jnp.asarray(model.qpos0, jnp.float32)
    full, c = step(start)
    assert full.failed and not c.failed
    np.testing.assert_array_equal(full.qpos, start)
    # One ball in the air, 64 contacts: all are there, and the balls stay above the plane.
    fits, c = step(start.at[2].set(1.0))
    assert not fits.failed
    np.testing.assert_allclose(fits.qpos, c.qpos, atol=1e-6)


def test_a_batch_shares_the_memory_of_all_its_simulations():
    model = balls(65)
    start = jnp.asarray(model.qpos0, jnp.float32)
    # 2 x 3 simulations of 32 contacts: no one is alone, and together they have 192 of 384.
    height = jnp.where(jnp.arange(65) < 32, 0.0199, 1.0)
    starts = jnp.tile(start.at[2::7].set(height), (2, 3, 1))
    starts = starts.at[..., 2].add(0.01 * jnp.arange(6).reshape(2, 3))
    warp, c = jax.jit(jax.vmap(jax.vmap(steps(model))))(starts)
    assert not warp.failed.any()
    np.testing.assert_allclose(warp.qpos, c.qpos, atol=1e-6)


def test_claws_that_stick_hold_a_body_at_the_ceiling():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><geom type="box" size="1 1 .1" pos="0 0 1.1"/>
        <body name="b" pos="0 0 0.9505"><freejoint/><geom type="sphere" size=".05"/></body>
        </worldbody><actuator><adhesion body="b" gain="100" ctrlrange="0 1"/></actuator></mujoco>"""
    )
    start = jnp.asarray(model.qpos0, jnp.float32)
    warp, c = jax.jit(jax.vmap(steps(model, 50), (None, 0)))(start, jnp.asarray([[0.0], [1.0]]))
    # 0.1 s of free fall are 4.9 cm.
    assert warp.qpos[0, 2] < 0.9505 - 0.049 < 0.95 < warp.qpos[1, 2]
    np.testing.assert_allclose(warp.qpos, c.qpos, atol=1e-4)
