"""Test what the back end `warp` has and `mjx` has not; test_physics.py tests what both have."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs import physics
from envs.physics import warp
from tests.extras import WARP

pytestmark = WARP


def balls(n, condim=3):
    """Balls of 2 cm that lie on a plane, one contact each, without touching each other."""
    touch = f'condim="{condim}"'
    bodies = "".join(
        f'<body pos="{0.05 * i} 0 0.0199"><freejoint/>'
        f'<geom size="0.02" conaffinity="0" {touch}/></body>'
        for i in range(n)
    )
    return mujoco.MjModel.from_xml_string(
        f'<mujoco><worldbody><geom type="plane" size="9 9 1" {touch}/>{bodies}</worldbody></mujoco>'
    )


def steps(model, substeps=1):
    """(qpos, control) -> the state after a control step by warp, and by C."""
    engines = [physics.make_physics(name, model, substeps) for name in ("warp", "mujoco")]

    def step(qpos, control=None):
        control = jnp.zeros(model.nu) if control is None else control
        starts = [e.init(qpos, jnp.zeros(model.nv)) for e in engines]
        return [e.step(s, control) for e, s in zip(engines, starts, strict=True)]

    return step


def test_constraints_beyond_the_memory_are_a_failure_and_not_left_out():
    model = balls(65)
    start = jnp.asarray(model.qpos0, jnp.float32)
    # There is room for 64 contacts, of 4 constraints each, in each of two simulations.
    starts = jnp.stack([start, start.at[2].set(1.0)])
    ours, c = jax.jit(jax.vmap(steps(model)))(starts)
    np.testing.assert_array_equal(ours.failed, [True, False])
    np.testing.assert_array_equal(ours.qpos[0], start)
    np.testing.assert_allclose(ours.qpos[1], c.qpos[1], atol=1e-6)


def test_a_batch_shares_the_memory_of_all_its_simulations(monkeypatch):
    monkeypatch.setattr(warp, "CONTACTS_EACH", 20)
    monkeypatch.setattr(warp, "LEAST_CONTACTS", 100)
    model = balls(40, condim=1)  # One constraint for each contact.
    step = jax.jit(jax.vmap(jax.vmap(steps(model))))
    start = jnp.asarray(model.qpos0, jnp.float32)
    on_the_ground = lambda n: start.at[2::7].set(jnp.where(jnp.arange(40) < n, 0.0199, 1.0))
    # 2 x 3 simulations have room for 6 x 20 contacts, of which one alone takes 40.
    counts = [[40, 20, 10], [0, 30, 10]]
    full, c = step(jnp.asarray([[on_the_ground(n) for n in row] for row in counts]))
    assert not full.failed.any()
    np.testing.assert_allclose(full.qpos, c.qpos, atol=1e-6)
    # With more than 120, nobody knows whose were left out.
    counts = [[40, 20, 10], [0, 30, 30]]
    over, _ = step(jnp.asarray([[on_the_ground(n) for n in row] for row in counts]))
    assert over.failed.all()


def test_claws_that_stick_hold_a_body_at_the_ceiling():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><geom type="box" size="1 1 .1" pos="0 0 1.1"/>
        <body name="b" pos="0 0 0.9505"><freejoint/><geom type="sphere" size=".05"/></body>
        </worldbody><actuator><adhesion body="b" gain="100" ctrlrange="0 1"/></actuator></mujoco>"""
    )
    start = jnp.asarray(model.qpos0, jnp.float32)
    ours, c = jax.jit(jax.vmap(steps(model, 50), (None, 0)))(start, jnp.asarray([[0.0], [1.0]]))
    # 0.1 s of free fall are 4.9 cm.
    assert ours.qpos[0, 2] < 0.9505 - 0.049 < 0.95 < ours.qpos[1, 2]
    np.testing.assert_allclose(ours.qpos, c.qpos, atol=1e-4)
