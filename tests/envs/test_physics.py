import copy
import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import physics
from envs.arenas.gaps import PARKED, Gaps
from envs.models import SimulationConfig, physics_model, slot_names, whole_model
from envs.physics.mujoco import MujocoPhysics, double_bits
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.walkers.ant import Ant
from tests.extras import WARP

ARENA, ANT, CONFIG = Gaps(), Ant(), SimulationConfig()
STONES = Gaps(platform_width=3.0, platform_shift=(-1.0, 1.0))
DM_CONTROL = SimulationConfig(
    cone="elliptic", noslip_iterations=5, iterations=100, ls_iterations=50
)
GAPS = (0.1, 0.3, 0.8)
STARTS = 8


@functools.cache
def c_engine(config=CONFIG, threads=None, arena=ARENA):
    return MujocoPhysics(
        physics_model(arena, ANT, config), config.num_substeps, num_threads=threads
    )


def doubles(state):
    return np.asarray(state.bits).view(np.float64)


def advance(engine, arena, state, layout, action):
    """One control step of one environment, as an environment makes it."""
    _, _, _, w, x, y, z = state.qpos[:7]
    # The torso is 0.522 m along the z axis of the root, which tilts.
    torso_x = state.qpos[0] + 0.522 * 2 * (x * z + w * y)
    boxes = arena.boxes(layout, jnp.stack([torso_x, 0.0, 0.0]), ANT.reach)
    slots = {"mocap_pos": boxes.position, "geom_size": boxes.size}
    return engine.step(dataclasses.replace(state, **slots), action)


@functools.cache
def batched(engine, arena=ARENA):
    """`advance` for a batch, jitted."""
    return jax.jit(jax.vmap(functools.partial(advance, engine, arena)))


def rollout(engine, states, layouts, actions, arena=ARENA):
    """The last state of a batch along actions[T, N, nu], and every one."""
    every = []
    for action in actions:
        states = batched(engine, arena)(states, layouts, action)
        every.append(states)
    return states, jax.tree.map(lambda *a: np.stack(a), *every)


def gap_starts(layout, rng):
    """qpos[STARTS, 15]: before, over, and across gaps and the seam, turned and bent at random.

    The last stands on a platform, its diagonal along x, so that it reaches both neighbours:
    its actions should be small.
    """
    starts, ends = np.asarray(layout.starts), np.asarray(layout.ends)
    gaps = [(ends[i], starts[i + 1]) for i in (1, 2, 3)]
    x = [5.0, 6.0]
    x += [gaps[0][0] - 0.4, np.mean(gaps[0]), gaps[0][1] + 0.3]
    x += [np.mean(gaps[1]), gaps[2][0], 0.5 * (gaps[0][1] + gaps[1][0])]
    qpos = np.tile(c_engine().model.qpos0, (STARTS, 1))
    qpos[:, 0] = x
    qpos[:, 1] = rng.uniform(-1.5, 1.5, STARTS)
    qpos[:, 2] = rng.uniform(0.0, 0.15, STARTS)
    yaw = rng.uniform(-np.pi, np.pi, STARTS)
    yaw[-1] = np.pi / 4
    qpos[:, 3], qpos[:, 6] = np.cos(yaw / 2), np.sin(yaw / 2)
    qpos[:, 7:] = rng.uniform(-0.3, 0.3, (STARTS, 8))
    return qpos.astype(np.float32)


def padded(layout, size):
    pad = lambda a: jnp.pad(a, (0, size - a.shape[0]), constant_values=PARKED)
    return jax.tree.map(pad, layout)


def whole_trajectory(model, qpos, actions, num_substeps):
    """mj_step in the whole arena: float64[T, k] as `PhysicsState.bits`, and, for each control step,
    how many platforms the ant touched."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    floors = {i for i in range(model.ngeom) if "floor" in model.geom(i).name}
    rows, touched = [], []
    for action in actions:
        data.ctrl[:] = action
        for _ in range(num_substeps):
            mujoco.mj_step(model, data)
        parts = ([data.time], data.qpos, data.qvel, data.act, data.qacc_warmstart)
        rows.append(np.concatenate(parts))
        touched.append(len(floors & set(data.contact.geom.ravel().tolist())))
    return np.stack(rows), np.array(touched)


@pytest.mark.parametrize(
    ("arena", "config"),
    [(ARENA, CONFIG), (ARENA, DM_CONTROL), (STONES, CONFIG)],
    ids=["ours", "dm_control", "stones"],
)
def test_the_window_equals_the_whole_arena_bit_for_bit(arena, config):
    """24 environments in one batch: 8 starts around each of three gap lengths."""
    rng = np.random.default_rng(0)
    T = 60
    engine = c_engine(config, arena=arena)
    corridors = [
        dataclasses.replace(arena, platform_length=(1.5, 1.5), gap_length=(g, g)) for g in GAPS
    ]
    layouts = [corridor.draw(jax.random.key(i)) for i, corridor in enumerate(corridors)]
    widest = max(layout.starts.shape[0] for layout in layouts)
    qpos = [gap_starts(layout, rng) for layout in layouts]
    actions = rng.uniform(-1, 1, (T, len(GAPS) * STARTS, 8)).astype(np.float32)
    actions[:, STARTS - 1 :: STARTS] *= 0.1

    batch = jax.tree.map(
        lambda *a: jnp.repeat(jnp.stack(a), STARTS, axis=0),
        *(padded(layout, widest) for layout in layouts),
    )
    init = jax.vmap(lambda q: engine.init(q, jnp.zeros(engine.model.nv)))
    _, ours = rollout(engine, init(jnp.asarray(np.concatenate(qpos))), batch, actions, arena)

    steps_on_several, steps_on_three, falls = 0, 0, 0
    for i, (layout, corridor) in enumerate(zip(layouts, corridors, strict=True)):
        whole = whole_model(corridor, ANT, RunThroughCorridor(), config, layout, ())
        for j in range(STARTS):
            n = i * STARTS + j
            theirs, touched = whole_trajectory(
                whole, qpos[i][j], actions[:, n], engine.num_substeps
            )
            np.testing.assert_array_equal(doubles(ours)[:, n], theirs, err_msg=f"{GAPS[i]} m, {j}")
            steps_on_several += np.sum(touched >= 2)
            steps_on_three += np.sum(touched >= 3)
            falls += theirs[-1, 3] < -0.3
    # The comparison says something only if ants stood on several platforms, and fell.
    assert steps_on_several > 200
    assert steps_on_three > 5
    assert falls > 0
    assert not np.any(ours.failed)


@functools.cache
def start_batch(engine, n):
    """States and layouts of n environments with different corridors, ants on the ground."""

    def start(key, x):
        qpos = jnp.asarray(engine.model.qpos0, jnp.float32).at[0].set(x)
        return engine.init(qpos, jnp.zeros(engine.model.nv)), ARENA.draw(key)

    return jax.jit(jax.vmap(start))(jax.random.split(jax.random.key(0), n), jnp.linspace(4, 8.5, n))


def random_actions(T, n, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (T, n, 8)).astype(np.float32)


def pick(tree, i):
    return jax.tree.map(lambda a: np.asarray(a)[i], tree)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_rollout_in_two_calls_is_the_rollout():
    engine = c_engine()
    states, layouts = start_batch(engine, 3)
    actions = random_actions(20, 3)
    whole, _ = rollout(engine, states, layouts, actions)
    half, _ = rollout(engine, states, layouts, actions[:7])
    # Through the host's memory, as a checkpoint goes.
    half = jax.tree.map(lambda a: jnp.asarray(np.asarray(a).copy()), half)
    assert_same(rollout(engine, half, layouts, actions[7:])[0], whole)


def test_neither_threads_nor_batches_change_a_bit():
    states, layouts = start_batch(c_engine(), 6)
    actions = random_actions(15, 6)
    one, _ = rollout(c_engine(threads=1), states, layouts, actions)
    assert_same(rollout(c_engine(threads=2), states, layouts, actions)[0], one)
    for i in range(3):
        alone, _ = rollout(
            c_engine(), *pick((states, layouts), slice(i, i + 1)), actions[:, i : i + 1]
        )
        assert_same(pick(alone, 0), pick(one, i))


def test_any_leading_axes():
    engine = c_engine()
    states, layouts = start_batch(engine, 6)
    action = random_actions(1, 6)[0]
    step = functools.partial(advance, engine, ARENA)
    flat = jax.vmap(step)(states, layouts, action)
    grid = jax.tree.map(lambda a: a.reshape(2, 3, *a.shape[1:]), (states, layouts, action))
    nested = jax.jit(jax.vmap(jax.vmap(step)))(*grid)
    assert_same(jax.tree.map(lambda a: a.reshape(6, *a.shape[2:]), nested), flat)
    single = jax.jit(step)(*jax.tree.map(lambda a: a[0], (states, layouts, action)))
    assert_same(single, jax.tree.map(lambda a: a[0], flat))


def test_python_threads_may_step_at_the_same_time():
    engine = c_engine()
    states, layouts = start_batch(engine, 4)
    run = batched(engine)
    actions = random_actions(8, 4)
    alone = [run(states, layouts, a) for a in actions]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda a: run(states, layouts, a), actions))
    assert_same(together, alone)


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32, allow_subnormal=False))
def test_double_bits_are_those_of_float64(x):
    ours = np.asarray(double_bits(jnp.array([x, -1.5], jnp.float32))).view(np.float64)
    np.testing.assert_array_equal(ours, np.array([x, -1.5]))


def test_float32_copies_are_the_rounded_state():
    engine = c_engine()
    states, layouts = start_batch(engine, 2)
    end, _ = rollout(engine, states, layouts, random_actions(5, 2))
    copies = [end.time[:, None], end.qpos, end.qvel, end.act, end.qacc_warmstart]
    np.testing.assert_array_equal(np.concatenate(copies, 1), doubles(end).astype(np.float32))
    np.testing.assert_allclose(end.time, 5 * CONFIG.control_timestep, rtol=1e-6)


def test_sensors_are_read_at_the_new_state():
    config = dataclasses.replace(CONFIG, sensors=("walker/torso_gyro", "walker/torso_vel"))
    engine = c_engine(config)
    states, layouts = start_batch(engine, 1)
    end, _ = rollout(engine, states, layouts, random_actions(4, 1))
    data = mujoco.MjData(engine.model)
    _, data.qpos[:], data.qvel[:], *_ = np.split(doubles(end)[0], [1, 16, 30])
    mujoco.mj_forward(engine.model, data)
    np.testing.assert_array_equal(end.sensordata[0], data.sensordata.astype(np.float32))


@pytest.mark.parametrize("broken", ["qpos", "qvel", "ctrl"])
def test_c_flags_a_broken_simulation_and_keeps_its_state(broken):
    engine = c_engine(dataclasses.replace(CONFIG, sensors=("walker/torso_accel",)))
    states, layouts = start_batch(engine, 3)
    action = random_actions(1, 3)[0]
    qpos, qvel = np.asarray(states.qpos).copy(), np.zeros((3, engine.model.nv), np.float32)
    if broken == "qpos":
        qpos[1, 2] = np.nan
    elif broken == "qvel":
        qvel[1, 3] = 1e12
    else:
        action[1, 0] = np.nan
    states = jax.vmap(engine.init)(qpos, qvel)
    states = dataclasses.replace(states, sensordata=jnp.full_like(states.sensordata, 7))
    step = batched(engine)
    end = step(states, layouts, action)
    np.testing.assert_array_equal(end.failed, [False, True, False])
    np.testing.assert_array_equal((end.sensordata == 7).all(axis=1), end.failed)
    # C resets such a simulation to its initial state, which would look like a fresh episode.
    np.testing.assert_array_equal(end.bits[1], states.bits[1])
    assert not np.array_equal(end.bits[0], states.bits[0])
    # Once failed, for ever failed.
    again = step(end, layouts, random_actions(1, 3)[0])
    np.testing.assert_array_equal(again.failed, [False, True, False])


MJX_ENVS = 6


@pytest.fixture(scope="module", params=["mjx", pytest.param("warp", marks=WARP)])
def in_jax(request):
    """MJX or MJWarp on the model made for it, and its compiled step."""
    model = physics_model(ARENA, ANT, CONFIG, request.param)
    engine = physics.make_physics(request.param, model, CONFIG.num_substeps)
    return engine, batched(engine)


def c_control_step(model, data, state, ctrl):
    """One control step in C from `state`; (qpos, qvel, whether anything met a slot's edge)."""
    data.time = 0
    data.qpos[:], data.qvel[:] = state.qpos, state.qvel
    data.qacc_warmstart[:], data.ctrl[:] = state.qacc_warmstart, ctrl
    on_edge = False
    for _ in range(CONFIG.num_substeps):
        mujoco.mj_step(model, data)
        # On a face of an upright slot or wall the normal is an axis.
        normals = data.contact.frame[:, :3]
        on_edge |= bool(np.any(np.abs(normals).max(axis=1, initial=0) < 1 - 1e-6))
    return data.qpos.copy(), data.qvel.copy(), on_edge


def fixed_slots(model, position, size):
    """A copy of `model` for C with its slots of these sizes, and its data with them in place."""
    model = copy.copy(model)
    geoms = [model.geom(name).id for name in slot_names(ARENA)]
    model.geom_size[geoms] = size
    model.geom_rbound[geoms] = np.linalg.norm(size, axis=1)
    model.geom_aabb[geoms, 3:] = size
    model.bvh_aabb[model.body_bvhadr[model.geom_bodyid[geoms]], 3:] = size
    data = mujoco.MjData(model)
    data.mocap_pos[:] = position
    return model, data


def test_mjx_and_warp_follow_c(in_jax):
    """C follows each control step from where the other starts it, so that chaos does not grow.

    Tolerance on faces: float32 resolves 1e-6 m at x = 10 m. dm_control's ant meets the ground as a
    spring with time constant 0.02 s (solref), which turns 1e-6 m of penetration into
    1e-6 / 0.02**2 = 2.5e-3 m/s2: over 0.025 s, 6e-5 m/s, and some times that, in rad/s, at a joint
    half a metre away. Measured: 2e-6 (median), 3e-5 (99 %).

    On edges the two engines choose other points and normals for a capsule's contact, in float64
    too, and with 50 solver iterations as with 4. There only a bound holds: an ant's foot goes on
    the same way, within a centimetre or two and a push of a contact.
    """
    engine, step = in_jax
    states, layouts = start_batch(engine, MJX_ENVS)
    on_edges, positions, velocities = [], [], []
    for action in random_actions(40, MJX_ENVS):
        after = step(states, layouts, action)
        assert not np.any(after.failed)
        for i in range(MJX_ENVS):
            before, now = pick(states, i), pick(after, i)
            model, data = fixed_slots(engine.model, now.mocap_pos, now.geom_size)
            qpos, qvel, on_edge = c_control_step(model, data, before, action[i])
            on_edges.append(on_edge)
            positions.append(np.abs(now.qpos - qpos).max())
            velocities.append(np.abs(now.qvel - qvel).max())
        states = after
    edge, position, velocity = (np.array(a) for a in (on_edges, positions, velocities))
    assert np.sum(~edge) > 100
    assert np.sum(edge) > 10
    assert np.median(velocity[~edge]) < 1e-5
    assert np.quantile(velocity[~edge], 0.95) < 3e-4
    assert np.quantile(position[~edge], 0.95) < 1e-5
    assert position.max() < 0.05
    assert velocity.max() < 3.0


def test_mjx_and_warp_flag_a_broken_simulation_and_keep_its_state(in_jax):
    engine, step = in_jax
    states, layouts = start_batch(engine, MJX_ENVS)
    qvel = states.qvel.at[1, 3].set(jnp.nan).at[2, 0].set(1e12)
    states = jax.vmap(engine.init)(states.qpos, qvel)
    end = step(states, layouts, random_actions(1, MJX_ENVS)[0])
    np.testing.assert_array_equal(np.flatnonzero(end.failed), [1, 2])
    np.testing.assert_array_equal(end.qpos[1:3], states.qpos[1:3])
    assert np.all(np.isfinite(np.asarray(end.qpos)))


def test_auto_is_c_on_cpu():
    expected = "mujoco" if jax.default_backend() == "cpu" else "mjx"
    assert physics.choose("auto") == expected
    assert isinstance(physics.make_physics("mujoco", c_engine().model, 5), MujocoPhysics)


@pytest.mark.skipif(find_spec("warp") is not None, reason="Warp is installed")
def test_without_warp_its_extra_is_named():
    with pytest.raises(ValueError, match=r"'warp' .* not installed .* pip install -e '.\[warp\]'"):
        physics.make_physics("warp", c_engine().model, 5)


def test_what_cannot_run_is_refused():
    model = c_engine().model
    with pytest.raises(ValueError, match="unknown physics back end 'bullet'; use one of mujoco"):
        physics.make_physics("bullet", model, 5)
    with pytest.raises(ValueError, match="num_substeps is 0"):
        physics.make_physics("mujoco", model, 0)
    noslip = physics_model(ARENA, ANT, dataclasses.replace(CONFIG, noslip_iterations=5), "mjx")
    with pytest.raises(ValueError, match="5 noslip_iterations; set 0, or use 'mujoco' or 'warp'"):
        physics.make_physics("mjx", noslip, 5)
    eggs = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><geom type="box" size="1 1 1"/><body pos="0 0 3"><freejoint/>
        <geom type="ellipsoid" size=".1 .2 .3"/></body></worldbody></mujoco>"""
    )
    with pytest.raises(ValueError, match="'mjx' back end cannot run this model"):
        physics.make_physics("mjx", eggs, 5)
    data = mujoco.MjModel.from_xml_string('<mujoco><size nuserdata="1"/></mujoco>')
    for name in ("mujoco", "mjx"):
        with pytest.raises(ValueError, match=f"user data, whose state the '{name}' back end does"):
            physics.make_physics(name, data, 5)
    ball = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><body name="b" mocap="true"><geom size="1"/></body></worldbody>
        </mujoco>"""
    )
    with pytest.raises(ValueError, match="mocap body 'b'"):
        physics.make_physics("mujoco", ball, 5)


def test_c_runs_what_mjx_cannot_and_models_without_slots():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><geom type="box" size="1 1 .1"/><body pos="0 0 1"><freejoint/>
        <geom type="ellipsoid" size=".1 .2 .3"/></body></worldbody></mujoco>"""
    )
    engine = physics.make_physics("mujoco", model, 400)
    state = engine.init(jnp.asarray(model.qpos0), jnp.zeros(model.nv))
    end = jax.jit(engine.step)(state, jnp.zeros(0))
    # Two seconds later it lies on the box, on whichever side it fell.
    assert 0.15 < end.qpos[2] < 0.45
    assert not end.failed
