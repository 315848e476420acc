"""Running through a corridor: what is rewarded, and when an episode ends."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from dm_control import mjcf
from dm_control.composer.variation import distributions
from dm_control.locomotion import arenas, tasks, walkers

from envs.arenas.gaps import Gaps
from envs.locomotion import Locomotion
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.walkers.ant import Ant
from envs.walkers.jumping_ball import JumpingBall

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


# dm_control's own rules.

DM_CONTROL = RunThroughCorridor(
    target=1.0, forward=0.0, control=0.0, healthy=0.0, time=0.0, healthy_height=(-10.0, 10.0),
    end_effector_height=-0.5, only_feet=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def theirs():
    """dm_control's task with its own ant in a corridor with gaps."""
    corridor = arenas.GapsCorridor(
        platform_length=distributions.Uniform(0.3, 2.5), gap_length=distributions.Uniform(0.1, 0.8)
    )
    task = tasks.RunThroughCorridor(walkers.Ant(), corridor, walker_spawn_position=(0.5, 0, 0))
    return task, mjcf.Physics.from_mjcf_model(task.root_entity.mjcf_model)


@pytest.fixture(scope="module")
def strict():
    return Locomotion(Gaps(gap_length=(0.1, 0.8)), Ant(), DM_CONTROL, back_end="mujoco")


def random_poses(number, seed=0):
    """Joint positions float32[number, 15] of ants in any attitude at heights around the floor."""
    rng = np.random.default_rng(seed)
    turned = rng.normal(size=(number, 4))
    qpos = np.concatenate(
        [
            rng.uniform((0, -1, -0.8), (8, 1, 1.2), (number, 3)),
            turned / np.linalg.norm(turned, axis=1, keepdims=True),
            rng.uniform(-0.5, 0.5, (number, 8)),
        ],
        axis=1,
    )
    return jnp.asarray(qpos, jnp.float32)


def test_target_velocity_is_rewarded_as_by_dm_control(strict, start, theirs):
    task, physics = theirs
    rng = np.random.default_rng(1)
    poses = strict._kinematics(jnp.asarray(strict.model.qpos0, jnp.float32))
    now = strict._now(jax.tree.map(lambda x: x[0], start.data), poses, jnp.zeros(3))

    @jax.jit
    def reward(velocity):
        moving = dataclasses.replace(now, velocity=velocity)
        return DM_CONTROL.judge(moving, jnp.zeros(8), strict.arena, strict.dt).reward

    rewards = []
    for _ in range(200):
        physics.data.qvel[:] = rng.normal(scale=4, size=physics.model.nv)
        physics.forward()
        mujoco.mj_subtreeVel(physics.model.ptr, physics.data.ptr)
        velocity = physics.bind(task._walker.root_body).subtree_linvel
        rewards.append(task.get_reward(physics))
        assert reward(jnp.asarray(velocity)) == pytest.approx(rewards[-1], abs=1e-5)
    assert min(rewards) == 0 and max(rewards) > 0.8


def test_a_target_velocity_of_0_rewards_standing(strict, start):
    poses = strict._kinematics(jnp.asarray(strict.model.qpos0, jnp.float32))
    now = strict._now(jax.tree.map(lambda x: x[0], start.data), poses, jnp.zeros(3))
    stand = dataclasses.replace(DM_CONTROL, target_velocity=0.0)
    for velocity, expected in ((0.0, 1.0), (-0.25, 0.75), (0.5, 0.5), (2.0, 0.0)):
        moving = dataclasses.replace(now, velocity=jnp.array([velocity, 3.0, 1.0]))
        outcome = stand.judge(moving, jnp.zeros(8), strict.arena, strict.dt)
        assert outcome.reward == pytest.approx(expected)


def test_episodes_end_as_by_dm_controls_rules(strict):
    """The rules by hand, on MuJoCo's own contacts of each whole corridor."""
    number = 64
    state = jax.jit(jax.vmap(strict.reset))(jax.random.split(jax.random.key(2), number))
    at = jax.jit(jax.vmap(lambda q, layout: strict.at(q, jnp.zeros(14), layout)))
    state = at(random_poses(number), state.data.layout)
    state = jax.jit(jax.vmap(strict.step))(state, jnp.zeros((number, 8)))
    expected, reasons = [], []
    for i in range(number):
        one = jax.tree.map(lambda x: x[i], state.data)  # noqa: B023
        model = strict.whole(one)
        data = mujoco.MjData(model)
        data.qpos[:] = one.physics.qpos
        mujoco.mj_forward(model, data)
        feet = [model.body("walker/" + name).id for name in Ant.end_effectors]
        low = (data.xpos[feet, 2] < -0.5).any()
        ours = lambda g: model.geom(g).name.startswith("walker/")  # noqa: B023
        foot = lambda g: model.geom(g).name.endswith("ankle_geom")  # noqa: B023
        touching = any(
            any(ours(g) and not foot(g) for g in pair) and not all(map(ours, pair))
            for pair in data.contact.geom
        )
        expected.append(low or touching)
        reasons.append((low, touching))
    np.testing.assert_array_equal(state.done > 0, expected)
    low, touching = np.array(reasons).T
    assert min(low.sum(), touching.sum(), number - np.sum(expected)) > 5


def test_an_episode_ends_when_a_body_that_has_to_be_upright_is_not():
    class TwoUpright(Ant):
        upright = ("torso", Ant.end_effectors[0])

    number = 64
    task = RunThroughCorridor(healthy_height=(-10.0, 10.0), least_upright=0.5)
    env = Locomotion(Gaps(), TwoUpright(), task, back_end="mujoco")
    state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(2), number))
    at = jax.jit(jax.vmap(lambda q, layout: env.at(q, jnp.zeros(14), layout)))
    # Half of them in any attitude, half nearly upright.
    poses = random_poses(number)
    poses = poses.at[::2, 3:7].multiply(0.2).at[::2, 3].add(1.0)
    poses = poses.at[:, 3:7].divide(jnp.linalg.norm(poses[:, 3:7], axis=1, keepdims=True))
    state = jax.jit(jax.vmap(env.step))(at(poses, state.data.layout), jnp.zeros((number, 8)))
    data, up = mujoco.MjData(env.model), []
    for qpos in np.asarray(state.data.physics.qpos):
        data.qpos[:] = qpos
        mujoco.mj_kinematics(env.model, data)
        up.append([data.body(f"walker/{name}").xmat[8] for name in TwoUpright.upright])
    torso, foot = (np.array(up) < 0.5).T
    np.testing.assert_array_equal(state.done > 0, torso | foot)
    assert min((torso & ~foot).sum(), (foot & ~torso).sum(), (~torso & ~foot).sum()) > 1


def test_rules_that_the_walker_cannot_keep_are_refused():
    for settings, why in [
        ({"only_feet": True}, "JumpingBall names no feet"),
        ({"end_effector_height": -0.5}, "names no end effectors"),
        ({"target_velocity": -1.0}, "task.target_velocity is -1.0 m/s"),
        ({"least_upright": 1.5}, "task.least_upright is 1.5; it has to be from -1"),
    ]:
        with pytest.raises(ValueError, match=why):
            Locomotion(Gaps(), JumpingBall(), RunThroughCorridor(**settings))


def test_sensors_of_contacts_are_not_observed(strict):
    plain = Locomotion(Gaps(), Ant(), RunThroughCorridor(), back_end="mujoco")
    assert strict.observation_spec == plain.observation_spec
    assert strict.model.nsensordata > plain.model.nsensordata == 0
