import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs import world
from envs.corridor import PARKED, CorridorConfig, draw_layout, platform_boxes
from envs.kinematics import Kinematics
from envs.physics.mjx import MjxPhysics
from envs.world import PhysicsConfig

CORRIDOR, CONFIG = CorridorConfig(), PhysicsConfig()


@pytest.fixture(scope="module")
def layout():
    return draw_layout(jax.random.key(0), CORRIDOR)


@pytest.fixture(scope="module")
def models(layout):
    return {
        "physics": world.physics_model(CORRIDOR, CONFIG),
        "visual": world.visual_model(CORRIDOR, CONFIG),
        "arena": world.arena_model(layout, CORRIDOR, CONFIG),
        "mjx": world.physics_model(CORRIDOR, CONFIG, "mjx"),
    }


def geoms(model):
    return [model.geom(i).name for i in range(model.ngeom)]


def test_the_models_share_the_walker(models):
    for model in models.values():
        assert (model.nq, model.nv, model.nu) == (15, 14, 8)
        np.testing.assert_array_equal(model.qpos0[:7], [*world.SPAWN, 1, 0, 0, 0])
        assert geoms(model)[:5] == list(world.PLANES)
        assert model.body(world.TORSO).name and model.camera(world.EGOCENTRIC).name
        assert {"sideon", "floating", "egocentric"} <= set(world.walker_cameras(model))
        assert np.all(model.opt.timestep == CONFIG.physics_timestep)
    walker = lambda m: [g for g in geoms(m) if g.startswith(world.WALKER)]
    mass = lambda m: m.body(world.WALKER).subtreemass
    for model in models.values():
        assert walker(model) == walker(models["arena"])
        np.testing.assert_array_equal(mass(model), mass(models["arena"]))


def test_the_torso_starts_at_its_own_height(models):
    model = models["physics"]
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    # 0.522 m: the torso's height in dm_control's ant.xml.
    np.testing.assert_allclose(data.body(world.TORSO).xpos, [5, 0, 0.522])


def test_ids_of_the_visual_model_are_the_physics_models(models):
    assert geoms(models["visual"]) == geoms(models["physics"])
    cameras = lambda m: [m.camera(i).name for i in range(m.ncam)]
    assert cameras(models["visual"]) == cameras(models["physics"])
    assert models["physics"].ntex == 0
    assert models["visual"].ntex > 0
    slab = models["visual"].geom(world.SLABS[0])
    floor = models["arena"].geom("start_floor")
    names = [
        m.material(g.matid[0]).name for m, g in ((models["visual"], slab), (models["arena"], floor))
    ]
    assert names == ["aesthetic_material"] * 2


def test_the_arena_has_every_platform_where_the_layout_has_it(models, layout):
    model = models["arena"]
    position, half = (np.asarray(a) for a in platform_boxes(layout, CORRIDOR))
    used = np.flatnonzero(np.asarray(layout.starts) < PARKED)
    names = [g for g in geoms(model) if "floor" in g]
    assert names == ["start_floor"] + [f"floor_{i}" for i in range(len(used) - 1)]
    for i, name in zip(used, names, strict=True):
        # Not close: equal. float64 holds float32 exactly.
        np.testing.assert_array_equal(model.geom(name).pos, position[i].astype(np.float64))
        np.testing.assert_array_equal(model.geom(name).size, half[i].astype(np.float64))


def test_slabs_come_after_the_walker_and_meet_nothing_else(models):
    model = models["physics"]
    last = max(model.body(i).id for i in range(model.nbody) if "walker" in model.body(i).name)
    for name in world.SLABS:
        assert model.body(name).id > last
        assert model.body(name).mocapid[0] >= 0
    fixed = [g for g in range(model.ngeom) if not model.geom(g).name.startswith(world.WALKER)]
    meets = model.geom_contype[fixed][:, None] & model.geom_conaffinity[fixed][None, :]
    assert not meets.any()


def test_mjx_looks_for_45_contacts_and_solves_for_24(models):
    engine = lambda model: MjxPhysics(model, CONFIG.num_substeps)
    assert engine(models["mjx"]).num_contacts == world.MJX_CONTACTS <= 50
    # 5 feet and torso geoms, of which 4 capsules that touch a box or plane in up to 2 points:
    # 9 contacts with each of 3 slabs and 2 walls.
    unlimited = world.physics_model(CORRIDOR, CONFIG, "mjx")
    unlimited.numeric_data[unlimited.numeric("max_contact_points").adr] = -1
    assert engine(unlimited).num_contacts == 45
    world.keep_contacts(unlimited, [g for g in geoms(unlimited) if "wall" not in g[-5:]])
    assert engine(unlimited).num_contacts == 27


def test_sensors_are_those_asked_for():
    named = dataclasses.replace(CONFIG, sensors=("walker/torso_gyro", "walker/torso_touch"))
    model = world.physics_model(CORRIDOR, named)
    assert {model.sensor(i).name for i in range(model.nsensor)} == set(named.sensors)
    assert world.physics_model(CORRIDOR, CONFIG).nsensor == 0
    with pytest.raises(ValueError, match="unknown sensor 'walker/nose'; there are walker/"):
        world.physics_model(CORRIDOR, dataclasses.replace(CONFIG, sensors=("walker/nose",)))


def test_the_plain_look_builds_too(layout):
    plain = dataclasses.replace(CORRIDOR, aesthetic="default")
    assert world.visual_model(plain, CONFIG).geom(world.SLABS[0]).rgba[3] == 1
    assert "start_floor" in geoms(world.arena_model(layout, plain, CONFIG))


def test_kinematics_are_those_of_c(models):
    model = models["physics"]
    kinematics = Kinematics(model)
    rng = np.random.default_rng(0)
    n = 4
    qpos = np.tile(model.qpos0, (n, 1)) + rng.uniform(-0.5, 0.5, (n, model.nq))
    qpos[:, :2] += rng.uniform(0, 30, (n, 2))
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=-1, keepdims=True)
    mocap = rng.uniform(-5, 40, (n, model.nmocap, 3))
    batch = jax.jit(jax.vmap(kinematics))(jnp.float32(qpos), jnp.float32(mocap))
    data = mujoco.MjData(model)
    for i in range(n):
        data.qpos[:], data.mocap_pos[:] = qpos[i], mocap[i]
        for stage in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight):
            stage(model, data)
        for name, ours in vars(batch).items():
            theirs = getattr(data, name)
            # float32 resolves 4e-6 m at 40 m; a few roundings along the chain of bodies.
            np.testing.assert_allclose(
                np.asarray(ours[i]).reshape(theirs.shape), theirs, atol=3e-5, err_msg=name
            )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"solver": "pgs"}, "solver is 'pgs'; use one of newton, cg"),
        ({"cone": "round"}, "cone is 'round'"),
        ({"iterations": 0}, "iterations is 0"),
        ({"ls_iterations": 0}, "ls_iterations is 0"),
        ({"noslip_iterations": -1}, "noslip_iterations is -1"),
        ({"physics_timestep": 0.0}, "physics_timestep is 0.0"),
        ({"control_timestep": 0.012}, "control_timestep is 0.012 s and physics_timestep 0.005 s"),
        ({"control_timestep": 0.001}, "whole number"),
    ],
)
def test_options_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        world.physics_model(CORRIDOR, dataclasses.replace(CONFIG, **change))


def test_a_corridor_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="aesthetic is 'moon'"):
        world.physics_model(dataclasses.replace(CORRIDOR, aesthetic="moon"), CONFIG)
    with pytest.raises(ValueError, match="corridor reach"):
        world.visual_model(dataclasses.replace(CORRIDOR, reach=3.0), CONFIG)
    with pytest.raises(ValueError, match="back end 'bullet'"):
        world.physics_model(CORRIDOR, CONFIG, "bullet")
