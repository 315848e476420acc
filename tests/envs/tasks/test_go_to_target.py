"""Going to a target: by hand, against dm_control's own task, and what always holds."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from dm_control import composer
from dm_control.locomotion import arenas, tasks, walkers
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.arenas.floor import Floor
from envs.interfaces import WALKER, Now
from envs.locomotion import Locomotion
from envs.models import SimulationConfig, visual_model, whole_model
from envs.tasks.go_to_target import NUM_TARGETS, GoToTarget, Targets
from envs.walkers.ant import Ant
from envs.walkers.jumping_ball import JumpingBall

DT = 0.025


def targets(*places, moves=0, steps=0):
    return Targets(jnp.array(places, jnp.float32), jnp.int32(moves), jnp.int32(steps))


def now(root, task, rotation=None, velocity=(0.0, 0.0, 0.0)):
    """A walker whose centre of mass is its root."""
    root = jnp.asarray(root, jnp.float32)
    rotation = jnp.eye(3) if rotation is None else jnp.asarray(rotation, jnp.float32)
    velocity = jnp.asarray(velocity, jnp.float32)
    own = (None, None, root, rotation, root, velocity, jnp.zeros((0, 3)), False, (), task)
    return Now(*own, head=root, upright=rotation[2:, 2], centre=jnp.zeros(3))


def judge(task, *args, action=(0.0, 0.0), **kwargs):
    return task.judge(now(*args, **kwargs), jnp.array(action), Floor(), DT)


def about_z(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def test_a_step_within_the_tolerance_is_worth_one():
    task, state = GoToTarget(distance_tolerance=0.5), targets((1.0, 2.0))
    # 0.5 m away in x and y: not below it; height does not count.
    away = judge(task, (1.0, 2.5, 9.0), state)
    assert away.reward == 0 and away.success == 0 and away.passed == 0
    assert away.metrics["target_distance"] == pytest.approx(0.5)
    near = judge(task, (1.3, 1.7, 9.0), state)
    assert near.reward == 1 and near.success == 1 and near.passed == 1
    assert not near.failed and not near.truncated
    # It has been there.
    left = judge(task, (3.0, 3.0, 0.5), near.task)
    assert left.reward == 0 and left.success == 1 and left.metrics["targets_reached"] == 1


def test_a_target_that_stays_is_one_target_for_ever():
    task = GoToTarget()
    state = task.draw(jax.random.key(0))
    assert state.places.shape == (1, 2)
    for _ in range(15):
        outcome = judge(task, (*state.place, 0.5), state)
        assert outcome.reward == 1 and outcome.passed == 1
        np.testing.assert_array_equal(outcome.task.place, state.place)
        state = outcome.task


def test_a_target_moves_in_the_step_after_its_last_rewarded_one_and_targets_come_round():
    task = GoToTarget(moving_target=True, steps_before_moving_target=2)
    state = targets((0.0, 0.0), (4.0, 0.0))
    history = []
    # There twice with a step elsewhere between, then at the second for two, then at the first.
    for x in (0.0, 2.0, 0.0, 0.0, 4.0, 4.0, 4.0, 0.0):
        outcome = judge(task, (x, 0.0, 0.5), state)
        history.append((int(outcome.reward), float(outcome.task.place[0]), int(outcome.passed)))
        state = outcome.task
    assert history == [
        (1, 0.0, 1),
        (0, 0.0, 1),
        (1, 0.0, 1),
        (0, 4.0, 1),
        (1, 4.0, 2),
        (1, 4.0, 2),
        (0, 0.0, 2),
        (1, 0.0, 3),
    ]


def test_shaping_pays_for_coming_nearer_and_costs_actions():
    task = GoToTarget(approach=2.0, control=0.1)
    # From 5 m away to 4.9 m, along the line to the target.
    outcome = judge(
        task,
        (2.94, 3.92, 0.5),
        targets((0.0, 0.0)),
        action=(1.0, -0.5),
        velocity=(-0.06 / DT, -0.08 / DT, 0.0),
    )
    assert outcome.metrics["approach_reward"] == pytest.approx(0.2, abs=1e-5)
    assert outcome.metrics["control_reward"] == pytest.approx(-0.125)
    assert outcome.reward == pytest.approx(0.075, abs=1e-5)


@pytest.mark.parametrize(("height", "failed"), [(0.1, True), (0.2, False), (1.5, False), (2, True)])
def test_episodes_fail_by_height_alone(height, failed):
    outcome = judge(GoToTarget(healthy_height=(0.15, 1.6)), (0, 0, height), targets((3.0, 0.0)))
    assert bool(outcome.failed) == failed and not outcome.truncated


def test_ahead_is_the_target_from_the_root_in_its_axes():
    task = GoToTarget()
    state = targets((1.0, 2.0))
    np.testing.assert_allclose(task.ahead(now((0, 0, 0.5), state)), [1, 2, -0.5], atol=1e-6)
    # It looks along y: the target is 2 m ahead and 1 m to the right.
    turned = now((0, 0, 0.5), state, about_z(np.pi / 2))
    np.testing.assert_allclose(task.ahead(turned), [2, -1, -0.5], atol=1e-6)
    far = now((0, 0, 0), targets((30.0, -40.0)))
    np.testing.assert_allclose(task.ahead(far), [3, -4, 0], atol=1e-6)
    np.testing.assert_array_equal(task.ahead(now((1, 2, 0), state)), 0.0)


coordinate = st.floats(-9, 9, width=32)


@settings(max_examples=60, deadline=None)
@given(
    root=st.tuples(coordinate, coordinate, coordinate),
    place=st.tuples(coordinate, coordinate),
    quat=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1),
    turn=st.floats(-4, 4),
    shift=st.tuples(coordinate, coordinate),
)
def test_ahead_keeps_its_direction_and_knows_no_place_of_the_world(root, place, quat, turn, shift):
    task, rotation = GoToTarget(), np.zeros(9)
    mujoco.mju_quat2Mat(rotation, np.array(quat) / np.linalg.norm(quat))
    rotation = rotation.reshape(3, 3)
    ahead = np.asarray(task.ahead(now(root, targets(place), rotation)))
    vector = rotation.T @ ([*place, 0.0] - np.array(root))
    length = np.linalg.norm(vector)
    np.testing.assert_allclose(ahead, vector * min(1, 5 / max(length, 1e-9)), atol=1e-5)
    assert np.linalg.norm(ahead) <= 5 + 1e-5
    # The walker and its target, turned about the vertical and moved together.
    world, shift = about_z(turn), np.array([*shift, 0.0])
    elsewhere = world @ root + shift, targets((world @ [*place, 0.0] + shift)[:2])
    np.testing.assert_allclose(task.ahead(now(*elsewhere, world @ rotation)), ahead, atol=2e-5)


def test_targets_are_drawn_all_over_the_area():
    task = GoToTarget(moving_target=True, target_area=2.5)
    places = jax.vmap(task.draw)(jax.random.split(jax.random.key(0), 500)).places
    assert places.shape == (500, NUM_TARGETS, 2)
    for values in np.reshape(places, (-1, 2)).T:
        shares = np.histogram(values, 5, (-2.5, 2.5))[0] / values.size
        np.testing.assert_allclose(shares, 0.2, atol=0.02)
    assert len(np.unique(places)) > 0.99 * places.size


def test_the_target_is_seen_upon_the_floor_and_met_by_nothing():
    task = GoToTarget(moving_target=True, target_radius=0.25)
    state = targets((1.0, 2.0), (-3.0, 0.5), moves=1)
    seen = task.visible(state)
    np.testing.assert_allclose(seen.position, [[-3.0, 0.5, 0.25]])
    parts = Floor(), JumpingBall(), task, SimulationConfig()
    looks, whole = visual_model(*parts, show_slots=False), whole_model(*parts, (), state)
    assert looks.ngeom == whole.ngeom
    for model in (looks, whole):
        ball = model.ngeom - 1
        assert model.geom_type[ball] == mujoco.mjtGeom.mjGEOM_SPHERE
        np.testing.assert_array_equal(model.geom_size[ball], seen.size[0])
        assert not model.geom_contype[ball] and not model.geom_conaffinity[ball]
        np.testing.assert_allclose(model.geom_rgba[ball], [0.9, 0.6, 0.6, 1.0])
    assert whole.body_pos[-1].tolist() == [0, 0, 0]
    np.testing.assert_allclose(whole.geom_pos[-1], [-3.0, 0.5, 0.25])


@dataclasses.dataclass
class Theirs:
    """An episode of dm_control's task under random actions; T steps after the first state."""

    qpos: list
    roots: list
    rotations: list
    places: list
    vectors: list
    rewards: list

    @classmethod
    def of(cls, walker, seed, steps):
        task = tasks.GoToTarget(
            walker,
            arenas.Floor(size=(2.0, 2.0)),
            moving_target=True,
            steps_before_moving_target=3,
            distance_tolerance=0.8,
        )
        env = composer.Environment(task, random_state=seed)
        spec, rng = env.action_spec(), np.random.default_rng(seed)
        episode = cls([], [], [], [], [], [])
        time_step = env.reset()
        for i in range(steps + 1):
            physics = env.physics
            root = physics.bind(walker.root_body)
            episode.qpos.append(physics.data.qpos.copy())
            episode.roots.append(np.array(root.xpos))
            episode.rotations.append(np.array(root.xmat).reshape(3, 3))
            episode.places.append(task.target_position(physics)[:2])
            episode.vectors.append(np.array(time_step.observation["walker/target"]).reshape(3))
            episode.rewards.append(time_step.reward or 0.0)
            if time_step.last() or i == steps:
                return episode
            time_step = env.step(rng.uniform(spec.minimum, spec.maximum))


BODIES = {
    "ant": (Ant(), walkers.Ant),
    "ball": (JumpingBall(), walkers.JumpingBallWithHead),
}


@pytest.mark.parametrize("name", BODIES)
def test_rewards_and_vectors_are_dm_controls(name):
    ours, theirs = BODIES[name]
    task = GoToTarget(distance_tolerance=0.8, moving_target=True, steps_before_moving_target=3)
    env = Locomotion(Floor(), ours, task, None, back_end="mujoco", ahead=True)
    look = jax.jit(lambda qpos, state: env.at(qpos, jnp.zeros(env.model.nv), (), state).obs)
    judge_one = jax.jit(lambda x: task.judge(x, jnp.zeros(1), Floor(), DT))
    rewarded = moved = steps = 0
    for seed in range(4):
        episode = Theirs.of(theirs(), seed, 60)
        # The targets that theirs drew, in order; ours has to come to each in the same step.
        order = [episode.places[0]]
        order += [
            b
            for a, b in zip(episode.places[:-1], episode.places[1:], strict=True)
            if (a != b).any()
        ]
        order = np.concatenate([order, np.zeros((NUM_TARGETS - len(order), 2))])
        state = targets(*order)
        for t, qpos in enumerate(episode.qpos):
            if t:
                outcome = judge_one(now(episode.roots[t], state, episode.rotations[t]))
                assert outcome.reward == episode.rewards[t]
                state = outcome.task
            np.testing.assert_allclose(state.place, episode.places[t], atol=1e-6)
            ahead = look(jnp.asarray(qpos, jnp.float32), state)["ahead"]
            np.testing.assert_allclose(ahead, episode.vectors[t], atol=1e-4)
        rewarded += sum(episode.rewards)
        moved += int(state.moves)
        steps += len(episode.qpos)
    assert steps > 60 and moved >= 2 and 0 < rewarded < steps
    assert env.model.body(WALKER + ours.root).id > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"distance_tolerance": 0.0}, "task.distance_tolerance is 0.0 m; it has to be positive"),
        ({"target_area": float("inf")}, "task.target_area is inf m; it has to be positive"),
        ({"target_radius": -1.0}, "task.target_radius is -1.0 m; it has to be positive"),
        ({"steps_before_moving_target": 0}, "task.steps_before_moving_target is 0; it has to be 1"),
        ({"approach": float("nan")}, "task.approach is nan; it has to be finite"),
        ({"control": float("inf")}, "task.control is inf; it has to be finite"),
        ({"healthy_height": (1.0, 0.0)}, r"task.healthy_height is \(1.0, 0.0\)"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        GoToTarget(**wrong).check()
