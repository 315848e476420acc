"""Escaping: by hand, against dm_control's own task, and what always holds."""

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

from envs.arenas.floor import Floor
from envs.interfaces import Now
from envs.locomotion import Locomotion
from envs.tasks.escape import Escape
from envs.walkers.ant import Ant

DT = 0.025
STATES = 1000


def now(head, upright=(1.0,), centre=(0.0, 0.0, 0.0), root=None, rotation=None):
    head, upright, centre = (np.array(x, np.float32) for x in (head, upright, centre))
    root = head if root is None else np.array(root, np.float32)
    rotation = np.eye(3, dtype=np.float32) if rotation is None else np.array(rotation, np.float32)
    still, ends = np.zeros(3, np.float32), np.zeros((0, 3), np.float32)
    own = (None, None, root, rotation, root, still, ends, False, (), ())
    return Now(*own, head=head, upright=upright, centre=centre)


def judge(task, *args, action=(0.0, 0.0), **kwargs):
    return task.judge(now(*args, **kwargs), jnp.array(action), Floor(), DT)


def test_the_reward_grows_with_the_distance_from_the_middle():
    task = Escape(radius=2.0)
    reward = lambda x, y, z: float(judge(task, (x, y, z), centre=(1, 0, 0)).reward)
    assert reward(1, 0, 0) == 0
    # Distances in all three directions.
    assert reward(1.6, 0, 0.8) == pytest.approx(0.5)
    assert reward(1, -1.5, 0) == pytest.approx(0.75)
    assert reward(1, 9, 0) == 1
    for x, out in ((2.9, False), (3.1, True)):
        outcome = judge(task, (x, 0, 0), centre=(1, 0, 0))
        assert bool(outcome.success) == out
        assert not outcome.failed and not outcome.truncated
        assert outcome.metrics["distance"] == pytest.approx(x - 1)


def test_the_reward_falls_with_the_least_upright_body():
    far = (9.0, 0.0, 0.0)
    reward = lambda *up, **task: float(judge(Escape(**task), far, up).reward)
    assert reward(1.0) == reward(0.87) == 1
    # On its side: 1 - cos 30 / (1 + cos 30).
    assert reward(0.0) == pytest.approx(1 / (1 + np.cos(np.pi / 6)))
    assert reward(1.0, 0.0) == reward(0.0, 1.0) == reward(0.0)
    assert reward(-1.0) == pytest.approx(0, abs=1e-6)
    assert reward(0.0, upright_angle=90.0) == 1
    costly = judge(Escape(control=0.1), far, action=(1.0, -0.5))
    assert costly.reward == pytest.approx(1 - 0.125)


def test_ahead_is_the_middle_from_the_root_in_its_axes():
    task = Escape()
    turned = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    look = lambda *args, **kwargs: np.asarray(task.ahead(now(*args, **kwargs)))
    np.testing.assert_allclose(look((1, 2, 0.5), centre=(2, 4, 0)), [1, 2, -0.5])
    np.testing.assert_allclose(look((1, 2, 0), centre=(2, 4, 0), rotation=turned), [2, -1, 0])
    np.testing.assert_allclose(look((-30, 40, 0)), [3, -4, 0], atol=1e-6)


coordinate = st.floats(-20, 20, width=32)


@settings(max_examples=60, deadline=None)
@given(
    head=st.tuples(coordinate, coordinate, coordinate),
    middle=st.tuples(coordinate, coordinate),
    up=st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=2),
    radius=st.floats(0.5, 10),
)
def test_rewards_stay_in_their_bounds_and_know_no_place_of_the_world(head, middle, up, radius):
    task = Escape(radius=radius)
    here = float(judge(task, head, up).reward)
    assert 0 <= here <= 1 + 1e-6
    there = judge(task, np.add(head, (*middle, 0)), up, centre=(*middle, 0)).reward
    assert float(there) == pytest.approx(here, abs=1e-5 / radius + 1e-5)


# dm_control's own.

BODIES = {"rodent": walkers.Rat, "humanoid": walkers.CMUHumanoidPositionControlled}


class Theirs:
    """dm_control's task in its bowl, and 1,000 random states of it."""

    def __init__(self, body):
        self.walker = body()
        self.task = escape.Escape(self.walker, arenas.bowl.Bowl(), control_timestep=DT)
        # An episode of it needs OpenGL, to show its terrain.
        self.physics = mjcf.Physics.from_mjcf_model(self.task.root_entity.mjcf_model)
        rng = np.random.default_rng(0)
        self.site = self.task._reward_body
        names = [self.walker.root_body, getattr(self.walker, "pelvis_body", None)]
        self.upright = [body.full_identifier for body in names if body is not None]
        free = mjcf.get_frame_freejoint(self.walker.mjcf_model)
        joints = self.physics.bind(self.walker.mjcf_model.find_all("joint"))
        self.states, self.rewards, self.ends = [], [], []
        for _ in range(STATES):
            low, high = joints.range.T
            joints.qpos = rng.uniform(low, high)
            turn = rng.normal(size=4)
            self.physics.bind(free).qpos[:] = [*rng.normal(size=3) * 4, *turn]
            mujoco.mj_kinematics(self.physics.model.ptr, self.physics.data.ptr)
            self.states.append(self.now())
            self.rewards.append(self.task.get_reward(self.physics))
            ended = self.task.should_terminate_episode(self.physics)
            self.ends.append((ended, self.task.get_discount(self.physics)))

    def now(self):
        named = self.physics.named.data
        # The site that dm_control names lies at the origin of its body.
        body = self.physics.model.site_bodyid[self.physics.model.name2id(self.site, "site")]
        head = self.physics.data.xpos[body]
        np.testing.assert_allclose(named.site_xpos[self.site], head, atol=1e-12)
        root = self.upright[0]
        rotation = named.xmat[root].reshape(3, 3)
        up = [named.xmat[name][8] for name in self.upright]
        return now(head, up, root=named.xpos[root], rotation=rotation)


@pytest.mark.parametrize("name", BODIES)
def test_rewards_ends_and_vectors_are_dm_controls(name):
    theirs = Theirs(BODIES[name])
    assert len(theirs.upright) == (2 if name == "rodent" else 1)
    task = Escape()
    states = jax.tree.map(lambda *x: np.stack(x), *theirs.states)
    still = jnp.zeros(8)
    outcome = jax.jit(jax.vmap(lambda x: task.judge(x, still, Floor(), DT)))(states)
    np.testing.assert_allclose(outcome.reward, theirs.rewards, atol=2e-6)
    # Not all alike: near and far, upright and not.
    assert np.std(theirs.rewards) > 0.1 and np.max(theirs.rewards) > 0.9
    assert not np.any(outcome.failed) and not np.any(outcome.truncated)
    assert set(theirs.ends) == {(False, 1.0)}
    origin = theirs.walker.observables.as_dict()["walker/origin"](theirs.physics)
    last = jax.tree.map(lambda x: x[-1], states)
    length = np.linalg.norm(origin)
    np.testing.assert_allclose(
        task.ahead(last), origin * min(1, 5 / length), atol=1e-5, err_msg="origin"
    )


def test_an_environment_tells_the_task_of_head_bodies_and_middle():
    class Headed(Ant):
        head = "front_left_foot"
        upright = ("torso", "back_right_foot")

    class Shifted(Floor):
        def centre(self, layout):
            return jnp.array([1.0, 2.0, 0.0])

    told = []

    class Asking(Escape):
        def judge(self, now, action, arena, dt):
            told.append((now.head, now.upright, now.centre))
            return super().judge(now, action, arena, dt)

    env = Locomotion(Shifted(), Headed(), Asking(), None, back_end="mujoco")
    state = jax.jit(lambda key: (env.reset(key), told[-1]))(jax.random.key(1))
    (state, (head, up, centre)), data = state, mujoco.MjData(env.model)
    data.qpos[:] = state.data.physics.qpos
    mujoco.mj_kinematics(env.model, data)
    np.testing.assert_allclose(head, data.body("walker/front_left_foot").xpos, atol=1e-5)
    theirs = [data.body(f"walker/{name}").xmat[8] for name in Headed.upright]
    np.testing.assert_allclose(up, theirs, atol=1e-5)
    np.testing.assert_array_equal(centre, [1, 2, 0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"radius": 0.0}, "task.radius is 0.0 m; it has to be positive"),
        ({"radius": float("nan")}, "task.radius is nan m"),
        ({"upright_angle": 180.0}, "task.upright_angle is 180.0 degrees; it has to be from 0 to"),
        ({"control": float("inf")}, "task.control is inf; it has to be finite"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Escape(**wrong).check()
