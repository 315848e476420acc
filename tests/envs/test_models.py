"""The models of one world: of physics, of looks, and of the whole arena."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.arenas.gaps import PARKED, PLANES, Gaps, platform_boxes
from envs.interfaces import WALKER, Arena
from envs.kinematics import Kinematics
from envs.locomotion import Locomotion
from envs.models import (
    SimulationConfig,
    keep_contacts,
    physics_model,
    slot_names,
    visual_model,
    walker_cameras,
    whole_model,
)
from envs.physics.mjx import MjxPhysics
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.walkers.ant import Ant

ARENA, ANT, TASK, CONFIG = Gaps(), Ant(), RunThroughCorridor(), SimulationConfig()
SLOTS = slot_names(ARENA)
TORSO = WALKER + "torso"


@pytest.fixture(scope="module")
def layout():
    return ARENA.draw(jax.random.key(0))


@pytest.fixture(scope="module")
def models(layout):
    return {
        "physics": physics_model(ARENA, ANT, CONFIG),
        "visual": visual_model(ARENA, ANT, TASK, CONFIG, show_slots=True),
        "whole": whole_model(ARENA, ANT, TASK, CONFIG, layout, ()),
        "mjx": physics_model(ARENA, ANT, CONFIG, "mjx"),
    }


def geoms(model):
    return [model.geom(i).name for i in range(model.ngeom)]


def test_the_models_share_the_walker(models):
    for model in models.values():
        assert (model.nq, model.nv, model.nu) == (15, 14, 8)
        np.testing.assert_array_equal(model.qpos0[:7], [*ARENA.start, 1, 0, 0, 0])
        assert geoms(model)[:5] == list(PLANES)
        assert model.body(TORSO).name and model.camera(WALKER + ANT.eye).name
        assert {"sideon", "floating", "egocentric"} <= set(walker_cameras(model))
        assert np.all(model.opt.timestep == CONFIG.physics_timestep)
    walker = lambda m: [g for g in geoms(m) if g.startswith(WALKER)]
    mass = lambda m: m.body(WALKER).subtreemass
    for model in models.values():
        assert walker(model) == walker(models["whole"])
        np.testing.assert_array_equal(mass(model), mass(models["whole"]))


def test_the_torso_starts_at_its_own_height(models):
    model = models["physics"]
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    # 0.522 m: the torso's height in dm_control's ant.xml.
    np.testing.assert_allclose(data.body(TORSO).xpos, [5, 0, 0.522])


def test_ids_of_the_visual_model_are_the_physics_models(models):
    assert geoms(models["visual"]) == geoms(models["physics"])
    cameras = lambda m: [m.camera(i).name for i in range(m.ncam)]
    assert cameras(models["visual"]) == cameras(models["physics"])
    assert models["physics"].ntex == 0
    assert models["visual"].ntex > 0
    slab = models["visual"].geom(SLOTS[0])
    floor = models["whole"].geom("start_floor")
    names = [
        m.material(g.matid[0]).name for m, g in ((models["visual"], slab), (models["whole"], floor))
    ]
    assert names == ["aesthetic_material"] * 2


def test_the_arena_has_every_platform_where_the_layout_has_it(models, layout):
    model = models["whole"]
    every = platform_boxes(ARENA, layout)
    position, half = np.asarray(every.position), np.asarray(every.size)
    used = np.flatnonzero(np.asarray(layout.starts) < PARKED)
    names = [g for g in geoms(model) if "floor" in g]
    assert names == ["start_floor"] + [f"floor_{i}" for i in range(len(used) - 1)]
    for i, name in zip(used, names, strict=True):
        # Not close: equal. float64 holds float32 exactly.
        np.testing.assert_array_equal(model.geom(name).pos, position[i].astype(np.float64))
        np.testing.assert_array_equal(model.geom(name).size, half[i].astype(np.float64))


def test_slots_come_after_the_walker_and_meet_nothing_else(models):
    model = models["physics"]
    last = max(model.body(i).id for i in range(model.nbody) if "walker" in model.body(i).name)
    for name in SLOTS:
        assert model.body(name).id > last
        assert model.body(name).mocapid[0] >= 0
    fixed = [g for g in range(model.ngeom) if not model.geom(g).name.startswith(WALKER)]
    meets = model.geom_contype[fixed][:, None] & model.geom_conaffinity[fixed][None, :]
    assert not meets.any()


def test_mjx_looks_for_45_contacts_and_solves_for_24(models):
    engine = lambda model: MjxPhysics(model, CONFIG.num_substeps)
    assert engine(models["mjx"]).num_contacts == ANT.mjx_contacts == 24
    # 5 feet and torso geoms, of which 4 capsules that touch a box or plane in up to 2 points:
    # 9 contacts with each of 3 slots and 2 walls.
    unlimited = physics_model(ARENA, ANT, CONFIG, "mjx")
    unlimited.numeric_data[unlimited.numeric("max_contact_points").adr] = -1
    assert engine(unlimited).num_contacts == 45
    keep_contacts(unlimited, [g for g in geoms(unlimited) if "wall" not in g[-5:]])
    assert engine(unlimited).num_contacts == 27


def test_sensors_are_those_asked_for():
    named = dataclasses.replace(CONFIG, sensors=("walker/torso_gyro", "walker/torso_touch"))
    model = physics_model(ARENA, ANT, named)
    assert {model.sensor(i).name for i in range(model.nsensor)} == set(named.sensors)
    assert physics_model(ARENA, ANT, CONFIG).nsensor == 0
    with pytest.raises(ValueError, match="sensors has 'walker/nose'; the walker has walker/"):
        physics_model(ARENA, ANT, dataclasses.replace(CONFIG, sensors=("walker/nose",)))


def test_the_plain_look_builds_too(layout):
    plain = Gaps(aesthetic="default")
    assert visual_model(plain, ANT, TASK, CONFIG, show_slots=True).geom(SLOTS[0]).rgba[3] == 1
    assert "start_floor" in geoms(whole_model(plain, ANT, TASK, CONFIG, layout, ()))


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
        ({"solver": "pgs"}, "simulation.solver is 'pgs'; it has to be one of newton, cg"),
        ({"cone": "round"}, "simulation.cone is 'round'; it has to be one of pyramidal, elliptic"),
        ({"iterations": 0}, "iterations is 0"),
        ({"ls_iterations": 0}, "ls_iterations is 0"),
        ({"noslip_iterations": -1}, "noslip_iterations is -1"),
        ({"physics_timestep": 0.0}, "physics_timestep is 0.0"),
        ({"control_timestep": 0.012}, "control_timestep is 0.012 s and physics_timestep 0.005 s"),
        ({"control_timestep": 0.001}, "whole number"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        physics_model(ARENA, ANT, dataclasses.replace(CONFIG, **change))


def test_an_environment_refuses_what_cannot_run():
    with pytest.raises(ValueError, match="aesthetic is 'moon'"):
        Locomotion(Gaps(aesthetic="moon"), ANT, TASK)
    with pytest.raises(ValueError, match="walker.reach is 3.0 m"):
        Locomotion(ARENA, Ant(reach=3.0), TASK)
    with pytest.raises(ValueError, match="back end 'bullet'"):
        Locomotion(ARENA, ANT, TASK, back_end="bullet")


class Beetle(Ant):
    def build(self):
        body = super().build()
        body.mjcf_model.model = "beetle"
        return body


def test_a_walker_under_another_name_is_refused():
    with pytest.raises(ValueError, match="is named 'beetle'; its `build` has to name it 'walker'"):
        physics_model(ARENA, Beetle(), CONFIG)


@dataclasses.dataclass(frozen=True)
class Decorated(Ant):
    """An ant with two geoms that only show, one by its own attributes and one by its class."""

    def build(self):
        body = super().build()
        root = body.mjcf_model
        seen = root.default.add("default", dclass="seen")
        seen.geom.set_attributes(contype=0, conaffinity=0)
        torso = root.find("body", "torso")
        torso.add("geom", name="hat", type="sphere", size=[0.1], contype=0, conaffinity=0)
        torso.add("geom", name="bow", type="sphere", size=[0.1], dclass="seen")
        return body


@dataclasses.dataclass(frozen=True)
class Hovering(Gaps):
    """A corridor with a board that meets others by its conaffinity alone."""

    def build(self):
        root = super().build()
        size = [0.1, 0.1, 0.1]
        root.worldbody.add(
            "geom", name="board", type="box", size=size, contype=0, conaffinity=1, pos=[0, 0, 9]
        )
        return root

    def colliders(self):
        return Arena.colliders(self)


def test_what_meets_others_by_its_conaffinity_meets_them_in_mjx():
    model = physics_model(Hovering(), ANT, CONFIG, "mjx")
    assert model.geom("board").conaffinity[0] == 1
    assert set(Hovering().colliders()) == {"board", *PLANES}


def test_the_whole_arena_meets_a_walker_as_its_window_does(layout):
    # An ant whose geoms do not meet each other.
    pair = physics_model(ARENA, ANT, CONFIG), whole_model(ARENA, ANT, TASK, CONFIG, layout, ())
    for name in (name for name in geoms(pair[0]) if name.startswith(WALKER)):
        masks = [(m.geom(name).contype[0], m.geom(name).conaffinity[0]) for m in pair]
        assert masks[0] == masks[1] == (1, 0)
    assert not ANT.self_collisions
    assert {int(pair[1].geom(n).contype[0]) for n in ("ground", "floor_0")} == {0}


def test_what_only_shows_meets_nothing():
    model = physics_model(ARENA, Decorated(), CONFIG)
    for name in ("hat", "bow"):
        geom = model.geom(WALKER + name)
        assert geom.contype[0] == geom.conaffinity[0] == 0
    assert model.geom(WALKER + ANT.feet[0]).contype[0] == 1
