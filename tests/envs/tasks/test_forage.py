"""Foraging: by hand, and against dm_control's own task."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from dm_control import mjcf
from dm_control.locomotion import arenas, walkers
from dm_control.locomotion.props import target_sphere
from dm_control.locomotion.tasks import random_goal_maze

from envs.arenas.floor import Floor
from envs.arenas.maze import Layout, Maze, _generator, drawn
from envs.film import arrange
from envs.interfaces import Now, Places
from envs.locomotion import Data, Locomotion
from envs.models import SimulationConfig, visual_model, whole_model
from envs.tasks.forage import Forage
from envs.tasks.go_to_target import GoToTarget
from envs.walkers.ant import Ant
from envs.walkers.jumping_ball import JumpingBall

DT = 0.025
STATES = 1000
PLACES = Places(jnp.array([[1.0, 2, 0], [3, 0, 0], [9, 9, 0]]), jnp.array([True, True, False]))
KEY = jax.random.key(0)


FOUR = Forage(max_targets=4)


def placed(task=FOUR, places=PLACES):
    return task.place(task.draw(KEY), places, KEY)


def now(food, touched=(), root=(0.0, 0.0, 0.5), rotation=None, fallen=False):
    mask = jnp.isin(jnp.arange(len(food.left)), jnp.array([*touched, -1]))
    root = jnp.asarray(root, jnp.float32)
    rotation = jnp.eye(3) if rotation is None else jnp.asarray(rotation, jnp.float32)
    own = (None, None, root, rotation, root, jnp.zeros(3), jnp.zeros((0, 3)), fallen, (), food)
    return Now(*own, head=root, upright=rotation[2:, 2], centre=jnp.zeros(3), touched=mask)


def judge(task, *args, **kwargs):
    return task.judge(now(*args, **kwargs), jnp.zeros(2), Floor(), DT)


def test_each_target_is_worth_its_reward_once():
    task = Forage(max_targets=4, target_reward=3.0, alive=0.1)
    food, history = placed(task), []
    # The third and fourth have no place.
    for touched in ((), (1,), (1, 2, 3), (0, 1), ()):
        outcome = judge(task, food, touched)
        history.append((round(float(outcome.reward), 3), int(outcome.passed)))
        assert bool(outcome.truncated) == bool(outcome.success) == (outcome.passed == 2)
        assert not outcome.failed
        food = outcome.task
    assert history == [(0.1, 0), (3.1, 1), (0.1, 1), (3.1, 2), (0.1, 2)]
    assert outcome.metrics.keys() == {"targets_reward", "targets_found"}
    both = judge(task, placed(task), (0, 1))
    assert both.reward == pytest.approx(6.1) and both.truncated


def test_targets_are_balls_above_their_places_until_they_are_found():
    task = Forage(max_targets=4, target_radius=0.4, target_height=0.7)
    food = judge(task, placed(task), (0,)).task
    balls = task.visible(food)
    np.testing.assert_allclose(balls.position[:2], [[1, 2, 0.7], [3, 0, 0.7]])
    np.testing.assert_allclose(balls.size, [[0, 0, 0], [0.4, 0, 0], [0, 0, 0], [0, 0, 0]])
    parts = Floor(), JumpingBall(), task, SimulationConfig()
    looks, whole = visual_model(*parts, show_slots=False), whole_model(*parts, (), food)
    np.testing.assert_allclose(whole.geom_pos[-4:][1], [3, 0, 0.7])
    for model in (looks, whole):
        assert (model.geom_type[-4:] == mujoco.mjtGeom.mjGEOM_SPHERE).all()
        assert not model.geom_contype[-4:].any() and not model.geom_conaffinity[-4:].any()
        np.testing.assert_allclose(model.geom_rgba[-3], [0, 0.55, 0, 1], atol=1e-6)
    assert whole.geom_size[-4:, 0].tolist() == pytest.approx([0, 0.4, 0, 0])


@pytest.mark.parametrize("height", [0.7, 0.0])
def test_things_of_a_task_move_in_a_model_of_the_whole(height):
    arena, task, layout = Maze(mazes=1), Forage(target_height=height), Layout(jnp.int32(0))
    first = task.place(task.draw(KEY), arena.places(layout), KEY)
    env = Locomotion(arena, JumpingBall(), task, None, back_end="mujoco")
    state = env.at(jnp.asarray(env.model.qpos0), jnp.zeros(env.model.nv), layout, first)
    model = env.whole(state.data)
    later = dataclasses.replace(first, position=first.position + 1, left=first.left & False)
    for food in (first, later, first):
        arrange(env, model, dataclasses.replace(state.data, task=food))
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        balls = range(model.ngeom - task.max_targets, model.ngeom)
        np.testing.assert_allclose(data.geom_xpos[balls], food.position, atol=1e-6)
        np.testing.assert_allclose(model.geom_size[balls, 0], 0.6 * food.left, atol=1e-6)


def test_ahead_is_the_nearest_target_that_is_left():
    task = Forage(max_targets=4)
    food = placed(task)
    turned = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(task.ahead(now(food)), [1, 2, 0.5])
    np.testing.assert_allclose(task.ahead(now(food, rotation=turned)), [2, -1, 0.5], atol=1e-6)
    np.testing.assert_allclose(task.ahead(now(food, root=(2.5, 0, 1))), [0.5, 0, 0])
    food = judge(task, food, (0,)).task
    np.testing.assert_allclose(task.ahead(now(food, root=(0, 0, 1))), [3, 0, 0])
    np.testing.assert_allclose(task.ahead(now(food, root=(-27, -40, 1))), [3, 4, 0], atol=1e-6)
    found = judge(task, food, (1,)).task
    assert not np.any(task.ahead(now(found)))


def test_episodes_fail_upside_down_or_where_asked_by_touch():
    side = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    tipped = lambda z: np.array([[1, 0, 0], [0, z, 0], [0, 0, z]])
    anyhow, task = Forage(max_targets=4), Forage(max_targets=4, least_upright=0.0)
    assert not judge(task, placed(), rotation=side).failed
    assert not judge(anyhow, placed(), rotation=tipped(-1)).failed
    assert judge(task, placed(), rotation=tipped(-0.1)).failed
    assert judge(dataclasses.replace(task, least_upright=0.5), placed(), rotation=side).failed
    assert not judge(task, placed(), fallen=True).failed
    assert judge(dataclasses.replace(task, only_feet=True), placed(), fallen=True).failed


def test_go_to_target_takes_the_arenas_places():
    task = GoToTarget(moving_target=True)
    drawn_places = task.place(task.draw(KEY), PLACES, jax.random.key(1)).places
    assert {tuple(x) for x in np.asarray(drawn_places)} == {(1.0, 2.0), (3.0, 0.0)}
    alone = task.draw(KEY)
    np.testing.assert_array_equal(task.place(alone, None, KEY).places, alone.places)


# dm_control's own.


class Theirs:
    """dm_control's task in the first of our mazes; its walker is put anywhere near targets."""

    def __init__(self, arena, walker, seed):
        self.rng, self.random_state = np.random.default_rng(seed), np.random.RandomState(seed)
        self.arena = arenas.mazes.MazeWithTargets(maze=_generator(arena), xy_scale=arena.cell)
        self.task = random_goal_maze.ManyGoalsMaze(
            walker,
            self.arena,
            target_sphere.TargetSphere,
            target_reward_scale=2.0,
            contact_termination=False,
            aliveness_reward=0.25,
        )
        self.task.initialize_episode_mjcf(self.random_state)
        self.walker, model = walker, self.arena.mjcf_model
        self.physics = mjcf.Physics.from_mjcf_model(model)
        self.targets = list(itertools.chain(*self.task._active_targets))
        self.begin()

    def begin(self):
        for target in self.targets:
            target.reset(self.physics)
            target.initialize_episode(self.physics, self.random_state)
            target._activated = False
        self.task._target_rewarded = [[False] * len(self.targets)]
        self.task._discount = 1.0

    def step(self, qpos):
        """Return (reward, terminated, truncated) of a step that ends at qpos."""
        self.physics.data.qpos[:] = qpos
        mujoco.mj_forward(self.physics.model.ptr, self.physics.data.ptr)
        for target in self.targets:
            target.after_substep(self.physics, self.random_state)
        self.task.after_step(self.physics, self.random_state)
        reward = self.task.get_reward(self.physics)
        ended = self.task.should_terminate_episode(self.physics)
        terminated = ended and self.task.get_discount(self.physics) == 0
        return reward, terminated, ended and not terminated


def joints_near(theirs, name):
    """A random posture with the root within 3 m of a target."""
    rng, target = theirs.rng, theirs.rng.choice(len(theirs.targets))
    middle = theirs.physics.bind(theirs.targets[target].geom).xpos
    away = rng.normal(size=3) * [1, 1, 0.4]
    qpos = rng.uniform(-1, 1, theirs.physics.model.nq)
    qpos[:3] = middle + away - [0, 0, 0.6]
    if name == "ant":
        qpos[3:7] = rng.normal((3, 0, 0, 0))
        qpos[3:7] /= np.linalg.norm(qpos[3:7])
    return qpos


BODIES = {"ant": (Ant(), walkers.Ant), "ball": (JumpingBall(), walkers.JumpingBallWithHead)}


@pytest.mark.parametrize("name", BODIES)
def test_rewards_and_ends_are_dm_controls(name):
    body, their_body = BODIES[name]
    arena = Maze(mazes=1)
    # In dm_control the ant alone tells whether it is upside down.
    least = 0.0 if name == "ant" else None
    task = Forage(target_reward=2.0, alive=0.25, least_upright=least)
    env = Locomotion(arena, body, task, None, back_end="mujoco")
    theirs = Theirs(arena, their_body(), 0)
    layout = Layout(jnp.int32(0))
    first = task.place(task.draw(KEY), arena.places(layout), KEY)
    assert first.left.sum() == len(theirs.targets) == drawn(arena).num_targets[0]

    @jax.jit
    def judge_at(qpos, food):
        poses = env._kinematics(qpos)
        root = poses.xpos[env._root]
        data = Data(env._physics.init(qpos, jnp.zeros(env.model.nv)), layout, root, root, food)
        return task.judge(env._now(data, poses, jnp.zeros(3)), jnp.zeros(8), arena, DT)

    food, found, ends, over = first, 0, 0, 0
    for step in range(STATES):
        qpos = joints_near(theirs, name)
        reward, terminated, truncated = theirs.step(qpos)
        outcome = judge_at(jnp.asarray(qpos, jnp.float32), food)
        assert outcome.reward == pytest.approx(reward, abs=1e-6), step
        ours = bool(outcome.failed), bool(outcome.truncated and not outcome.failed)
        assert ours == (terminated, truncated), step
        found += reward > 1
        ends, over = ends + terminated, over + truncated
        food = outcome.task
        if terminated or truncated:
            theirs.begin()
            food = first
    assert found > 30 and over + ends > 3 and (name == "ball" or ends > 3)


# What is refused.


def test_an_arena_without_places_or_with_too_many_is_refused():
    with pytest.raises(ValueError, match="task forage puts targets at places of the arena, but"):
        Locomotion(Floor(), JumpingBall(), Forage(), None, back_end="mujoco")
    with pytest.raises(ValueError, match="task.max_targets is 5, but the arena has up to 12 pl"):
        Locomotion(Maze(), JumpingBall(), Forage(max_targets=5), None, back_end="mujoco")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target_radius": 0.0}, "task.target_radius is 0.0 m; it has to be positive"),
        ({"target_reward": float("nan")}, "task.target_reward is nan; it has to be finite"),
        ({"alive": float("inf")}, "task.alive is inf; it has to be finite"),
        ({"target_height": float("nan")}, "task.target_height is nan; it has to be finite"),
        ({"max_targets": 0}, "task.max_targets is 0; it has to be 1 or more"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Forage(**wrong).check()
