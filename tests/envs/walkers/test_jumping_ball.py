"""The jumping ball: where it looks and rolls, what it feels, and what it can touch."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.arenas.floor import Floor
from envs.arenas.walls import Walls
from envs.interfaces import WALKER, Pose
from envs.kinematics import Kinematics
from envs.locomotion import Locomotion
from envs.models import SimulationConfig, physics_model
from envs.tasks.go_to_target import GoToTarget, Targets
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.walkers.jumping_ball import JOINTS, JumpingBall

AHEAD = jnp.array([-1.0, 0.0, 0.0])
STATE = Targets(jnp.zeros((1, 2)), jnp.int32(0), jnp.int32(0))


@pytest.fixture(scope="module")
def env():
    return Locomotion(Floor(), JumpingBall(), GoToTarget(), None, back_end="mujoco")


@pytest.fixture(scope="module")
def step(env):
    return jax.jit(env.step)


@pytest.fixture(scope="module")
def put(env):
    return jax.jit(lambda qpos, qvel: env.at(qpos, qvel, (), STATE))


def placed(env, yaw, position=(0.0, 0.0, 0.0), noise=0.0, seed=0):
    pose = Pose(jnp.asarray(position, jnp.float32), jnp.float32(yaw))
    keys = jax.random.split(jax.random.key(seed))
    return JumpingBall(reset_noise=noise).reset(env.model, pose, *keys)


def test_its_root_is_on_slides(env):
    model = env.model
    assert [model.joint(i).name for i in range(model.njnt)] == [WALKER + n for n in JOINTS]
    kinds = mujoco.mjtJoint
    slide, hinge = int(kinds.mjJNT_SLIDE), int(kinds.mjJNT_HINGE)
    assert model.jnt_type.tolist() == [slide, slide, slide, hinge, slide, hinge]
    assert env.action_size == 3 and model.nq == model.nv == 6


@pytest.mark.parametrize("yaw", [0.0, 0.7, -2.5])
def test_it_looks_and_rolls_where_its_yaw_points(env, step, put, yaw):
    qpos, qvel = placed(env, yaw, (1.0, -2.0, 0.0))
    way = np.array([np.cos(yaw), np.sin(yaw)])
    poses = Kinematics(env.model)(qpos)
    eye = env.model.camera(WALKER + "egocentric").id
    look = -poses.cam_xmat[eye][:, 2]
    np.testing.assert_allclose(look[:2] / np.linalg.norm(look[:2]), way, atol=1e-5)
    # A little downwards, and upright.
    assert -0.2 < look[2] < 0 and poses.cam_xmat[eye][2, 1] > 0.9
    np.testing.assert_allclose(poses.cam_xpos[eye][2], 1.5, atol=1e-6)
    face, head = (poses.geom_xpos[env.model.geom(WALKER + n).id] for n in ("face", "head"))
    np.testing.assert_allclose((face - head)[:2], 0.1 * way, atol=1e-6)

    state = put(qpos, qvel)
    np.testing.assert_allclose(state.data.root, [1.0, -2.0, 0.6], atol=1e-6)
    for _ in range(20):
        state = step(state, AHEAD)
    moved = np.asarray(state.data.root[:2]) - [1.0, -2.0]
    assert moved @ way > 0.3
    np.testing.assert_allclose(moved / np.linalg.norm(moved), way, atol=1e-2)
    height, cos, sin, _, forwards, left, *_, roll = np.asarray(state.obs["proprio"])
    np.testing.assert_allclose([height, cos, sin], [0.6, *way], atol=0.01)
    assert forwards > 1 and abs(left) < 0.05 and roll > 5


def test_what_it_feels_is_what_mujoco_measures(env, put):
    rng = np.random.default_rng(0)
    data, body = mujoco.MjData(env.model), env.model.body(WALKER + "head_body").id
    for _ in range(5):
        qpos, qvel = rng.uniform(-2, 2, (2, 6))
        qpos[4] = rng.uniform(0, 0.4)
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_forward(env.model, data)
        velocity = np.zeros(6)
        mujoco.mj_objectVelocity(env.model, data, mujoco.mjtObj.mjOBJ_BODY, body, velocity, 0)
        turning, (vx, vy, vz) = velocity[2], velocity[3:]
        # It looks along its camera.
        look = -data.camera(WALKER + "egocentric").xmat.reshape(3, 3)[:2, 2]
        cos, sin = look / np.linalg.norm(look)
        shell = data.body(WALKER + "torso").xpos
        root = data.body(WALKER + "head_body").xpos
        expected = [
            root[2],
            cos,
            sin,
            root[2] - shell[2] - 0.4,
            cos * vx + sin * vy,
            cos * vy - sin * vx,
            vz,
            turning,
            qvel[4],
            qvel[5],
        ]
        state = put(jnp.asarray(qpos, jnp.float32), jnp.asarray(qvel, jnp.float32))
        np.testing.assert_allclose(state.obs["proprio"], expected, atol=1e-5)
    assert env.observation_spec["proprio"].shape == (10,)


def test_it_feels_neither_where_it_is_nor_how_often_it_has_rolled(env, put):
    qpos, qvel = placed(env, 0.3)
    there = qpos.at[:2].add(jnp.array([3.0, -7.0])).at[5].add(40.0)
    here = put(qpos, qvel).obs["proprio"]
    np.testing.assert_allclose(put(there, qvel).obs["proprio"], here, atol=1e-5)


def test_it_begins_near_its_pose_and_never_in_the_floor(env):
    noise, position, yaw = 0.05, (2.0, -1.0, 0.25), 1.1
    for seed in range(50):
        qpos, qvel = placed(env, yaw, position, noise, seed)
        qpos = np.asarray(qpos)
        np.testing.assert_allclose(qpos[:2], position[:2], atol=noise)
        np.testing.assert_allclose(-qpos[3], yaw, atol=noise)
        assert 0 <= qpos[4] <= noise
        below = Kinematics(env.model)(jnp.asarray(qpos)).geom_xpos[-1][2] - 0.2
        assert position[2] - 1e-6 <= below <= position[2] + noise + 1e-6
        assert 0 < np.abs(qvel).max() < 6 * noise
    again, _ = placed(env, yaw, position, noise, 0)
    assert not np.array_equal(again, placed(env, yaw, position, noise, 1)[0])


def test_its_geoms_never_meet_and_within_a_step_it_touches_nothing_beyond_its_reach():
    ball = JumpingBall()
    model = physics_model(Floor(), ball, SimulationConfig())
    # Everything may meet everything, as in dm_control's own model.
    model.geom_contype[:] = model.geom_conaffinity[:] = 1
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    shell, ground = (model.geom(n).id for n in (WALKER + "shell", "groundplane"))
    farthest = highest = 0.0
    for episode in range(12):
        mujoco.mj_resetData(model, data)
        hold = rng.integers(1, 60)
        for i in range(160):
            # Full speed ahead for as long as it takes, then anything.
            if episode and i % hold == 0:
                data.ctrl[:] = rng.choice([-1, 0, 1], 3)
            elif not episode:
                data.ctrl[:] = -1, 0, 0
            before = data.qpos[:2].copy()
            for _ in range(5):
                mujoco.mj_step(model, data)
                pairs = {frozenset(c.geom) for c in data.contact}
                assert pairs <= {frozenset((shell, ground))}
            farthest = max(farthest, np.linalg.norm(data.qpos[:2] - before))
            highest = max(highest, data.qpos[2])
    assert 0.12 < farthest < 0.126
    assert 0.2 + farthest < ball.reach
    assert highest > 0.5


def test_the_ball_is_what_meets_the_world_first():
    model = physics_model(Floor(), JumpingBall(), SimulationConfig(), "mjx")
    colliding = np.flatnonzero(model.geom_contype | model.geom_conaffinity)
    assert {model.geom(g).name for g in colliding} == {WALKER + "shell", "groundplane"}
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    axis = data.body(WALKER + "head_body").xpos[:2]
    shell = model.geom(WALKER + "shell").id
    for g in range(model.ngeom):
        if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_CYLINDER:
            # Around the vertical through the ball, and above it.
            wide = np.linalg.norm(data.geom_xpos[g][:2] - axis) + model.geom_rbound[g]
            assert wide < 0.2 == model.geom_size[shell, 0]
            assert data.geom_xpos[g][2] - model.geom_rbound[g] > data.geom_xpos[shell][2]


def test_walls_stop_it_as_in_the_whole_corridor_bit_for_bit():
    task = RunThroughCorridor(healthy_height=(0.0, 3.0))
    env = Locomotion(Walls(), JumpingBall(), task, None, back_end="mujoco")
    step, rng = jax.jit(env.step), np.random.default_rng(0)
    state = jax.jit(env.reset)(jax.random.key(0))
    world = env.whole(state.data)
    data = mujoco.MjData(world)
    data.qpos[:], data.qvel[:] = env.joints(state.data)
    touches, shell = 0, world.geom(WALKER + "shell").id
    walls = [g for g in range(world.ngeom) if world.geom(g).name.startswith("wall_")]
    for i in range(200):
        # Straight at the first wall, then wherever.
        action = AHEAD if i < 60 else np.float32([-1, *rng.uniform(-1, 1, 2)])
        state = step(state, action)
        data.ctrl[:] = action
        for _ in range(5):
            mujoco.mj_step(world, data)
            pairs = data.contact.geom
            assert np.all((pairs == shell).any(1)), "the head met something"
            touches += np.isin(pairs, walls).sum()
        for ours, theirs in zip(env.joints(state.data), (data.qpos, data.qvel), strict=True):
            np.testing.assert_array_equal(ours, theirs.astype(np.float32))
    assert touches > 50 and not state.done


def test_its_eye_may_be_lower():
    model = physics_model(Floor(), JumpingBall(camera_height=0.1), SimulationConfig())
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.camera(WALKER + "egocentric").xpos, [0.15, 0, 0.7], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reset_noise": -1.0}, "walker.reset_noise is -1.0; it has to be 0 or more"),
        ({"reach": 0.0}, "walker.reach is 0.0 m; it has to be positive and finite"),
        ({"camera_height": float("nan")}, "walker.camera_height is nan m; it has to be finite"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        JumpingBall(**settings)
