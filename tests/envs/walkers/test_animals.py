"""The rodent, the humanoid and the fly: how they begin, what they can do, what their eyes see."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from dm_control import mjcf
from dm_control.locomotion.arenas import floors

from envs.interfaces import WALKER, Pose
from envs.models import physics_model
from envs.presets import PRESETS
from envs.walkers.cmu_humanoid import CmuHumanoid
from envs.walkers.fruit_fly import FruitFly
from envs.walkers.rodent import Rodent

ANIMALS = {"rodent_floor": 38, "humanoid_stand": 56, "fly_floor": 59}


@pytest.fixture(scope="module", params=ANIMALS)
def animal(request):
    preset = PRESETS[request.param]
    model = physics_model(preset.arena, preset.walker, preset.simulation)
    return request.param, preset, model


def begin(preset, model, noise, pose, seed=0):
    walker = dataclasses.replace(preset.walker, reset_noise=noise)
    return walker.reset(model, pose, *jax.random.split(jax.random.key(seed)))


def upright(preset):
    """qpos of the walker that dm_control puts upright at (1, -2, 0) with a yaw of 0.7."""
    arena, body = floors.Floor(), preset.walker.build()
    body.create_root_joints(arena.attach(body))
    dm = mjcf.Physics.from_mjcf_model(arena.mjcf_model)
    rng = np.random.RandomState(0)
    body.reinitialize_pose(dm, rng)
    half = 0.35
    body.shift_pose(dm, position=(1, -2, 0), quaternion=(np.cos(half), 0, 0, np.sin(half)))
    return np.array(dm.data.qpos)


def test_it_begins_as_dm_control_puts_it_upright(animal):
    name, preset, model = animal
    qpos, qvel = begin(preset, model, 0.0, Pose(jnp.array([1.0, -2.0, 0.0]), jnp.float32(0.7)))
    theirs = upright(preset)
    wings = [j for j in range(model.njnt) if "wing" in model.joint(j).name]
    assert len(wings) == (6 if name == "fly_floor" else 0)
    address = model.jnt_qposadr[wings]
    # dm_control's fly spreads its wings, and springs fold them.
    theirs[address] = model.qpos_spring[address]
    np.testing.assert_allclose(qpos, theirs, atol=2e-6)
    assert not qvel.any()


def test_it_begins_in_nothing_and_close_to_the_floor(animal):
    _, preset, model = animal
    data = mujoco.MjData(model)
    noise, pose = preset.walker.reset_noise, Pose(jnp.zeros(3), jnp.zeros(()))
    data.qpos[:], data.qvel[:] = begin(preset, model, noise, pose)
    mujoco.mj_forward(model, data)
    size = preset.walker.reach
    with_floor = [c for c in data.contact if 0 in model.geom_bodyid[c.geom]]
    assert all(c.dist > -0.03 * size for c in with_floor)
    own = [g for g in range(model.ngeom) if model.geom(g).name.startswith(WALKER)]
    solid = [g for g in own if model.geom_contype[g]]
    lowest = min(data.geom_xpos[g, 2] - model.geom_rbound[g] for g in solid)
    assert -0.1 * size < lowest < 0.1 * size


def test_it_never_reaches_further_than_it_says(animal):
    """With joints anywhere within their limits; the rest is what it moves within a control step."""
    _, preset, model = animal
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    solid = (model.geom_contype | model.geom_conaffinity) > 0
    names = [model.geom(g).name for g in range(model.ngeom)]
    own = [g for g, name in enumerate(names) if solid[g] and name.startswith(WALKER)]
    root, (low, high) = model.body(WALKER + preset.walker.root).id, model.jnt_range.T
    far = 0.0
    for _ in range(500):
        inside = np.round(rng.uniform(size=model.njnt))
        data.qpos[model.jnt_qposadr[1:]] = (low + (high - low) * inside)[1:]
        mujoco.mj_kinematics(model, data)
        off = np.linalg.norm(data.geom_xpos[own] - data.xpos[root], axis=1)
        far = max(far, (off + model.geom_rbound[own]).max())
    assert 0.5 * preset.walker.reach < far < 0.95 * preset.walker.reach


def test_its_parts_are_those_that_dm_control_names(animal):
    _, preset, model = animal
    walker, theirs = preset.walker, preset.walker.build()
    assert model.nu == ANIMALS[animal[0]]
    assert set(walker.feet) == {geom.name for geom in theirs.ground_contact_geoms}
    assert [x.name for x in theirs.end_effectors] == list(walker.end_effectors)
    assert theirs.root_body.name == walker.root
    assert theirs.egocentric_camera.name == walker.eye
    known = [model.geom(g).name for g in range(model.ngeom)]
    colliders = walker.colliders(model)
    assert len(set(colliders)) == len(colliders) and set(colliders) <= set(known)


def test_its_eyes_leave_out_what_dm_controls_leave_out(animal):
    name, preset, _ = animal
    env = preset.make(back_end="mujoco")
    groups = env.looks.geom_group
    seen, filmed = (set(pictures.scene.geom_ids.tolist()) for pictures in (env.sight, env.pictures))
    hidden = {g for g in filmed if groups[g] in preset.walker.hidden_groups}
    assert seen == filmed - hidden
    # The humanoid has no geom in the group that dm_control hides.
    assert bool(hidden) == (name != "humanoid_stand")
    if name != "fly_floor":
        options = _scene_option(preset.walker.build())
        assert {g for g in range(3) if not options.geomgroup[g]} == set(preset.walker.hidden_groups)


def _scene_option(body):
    return body.observables.egocentric_camera._scene_option


def test_a_fly_without_adhesion_has_the_other_actuators():
    preset = PRESETS["fly_floor"]
    walkers = preset.walker, dataclasses.replace(preset.walker, adhesion=False)
    models = [physics_model(preset.arena, w, preset.simulation) for w in walkers]
    names = [[m.actuator(i).name for i in range(m.nu)] for m in models]
    assert names[1] == [name for name in names[0] if "adhere" not in name]
    assert len(names[1]) == 53
    assert models[0].opt.gravity[2] == -981


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in PRESETS if n.startswith(("rodent", "hum", "fly"))])
def test_a_thousand_random_steps_have_no_warning(name):
    """Step at random; MuJoCo's warnings set `failed`, and all numbers have to be finite."""
    env = PRESETS[name].make(seeing=False, back_end="mujoco")
    keys = jax.random.split(jax.random.key(0), 4)
    start = jax.jit(jax.vmap(env.reset))(keys)

    def step(state, key):
        action = jax.random.uniform(key, (4, env.action_size), minval=-1.0, maxval=1.0)
        new = jax.vmap(env.step)(state, action)
        finite = [jnp.isfinite(x).all() for x in jax.tree.leaves((new.obs, new.reward))]
        return new, (jnp.stack(finite).all(), jnp.abs(new.data.physics.qvel).max())

    all_keys = jax.random.split(jax.random.key(1), 1000)
    end, (finite, fastest) = jax.jit(lambda s: jax.lax.scan(step, s, all_keys))(start)
    assert finite.all() and not end.data.physics.failed.any()
    # It does move.
    assert 0.1 < float(fastest.max()) < 1e4


@pytest.mark.parametrize("kind", [Rodent, CmuHumanoid, FruitFly])
@pytest.mark.parametrize(
    "change, message",
    [
        ({"reset_noise": -0.1}, "walker.reset_noise is -0.1"),
        ({"reset_noise": float("nan")}, "walker.reset_noise is nan"),
        ({"reach": 0.0}, "walker.reach is 0.0 c?m"),
    ],
)
def test_impossible_settings_are_refused(kind, change, message):
    with pytest.raises(ValueError, match=message):
        kind(**change)
