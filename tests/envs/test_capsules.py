"""Capsules in place of ellipsoids and cylinders: what stays, what changes, and what MJX says."""

import dataclasses

import mujoco
import numpy as np
import pytest
from dm_control import mjcf

from benchmarks.capsules import compare
from envs import physics
from envs.capsules import REPLACED, put_capsules
from envs.models import physics_model
from envs.presets import PRESETS

# Geoms that capsules replace, and the largest distance that was measured (docs/animals.md) between
# a contact and the nearest one of the other model, as a share of the walker's reach.
ANIMALS = {"rodent_gaps": (22, 0.03), "humanoid_gaps": (2, 0.03), "fly_floor": (22, 0.1)}


@pytest.fixture(scope="module", params=ANIMALS)
def models(request):
    preset = PRESETS[request.param]
    round_ = dataclasses.replace(preset.walker, capsules=True)
    return request.param, *(
        physics_model(preset.arena, walker, preset.simulation) for walker in (preset.walker, round_)
    )


def kinds(model):
    return [mujoco.mjtGeom(int(k)).name.removeprefix("mjGEOM_").lower() for k in model.geom_type]


def test_masses_and_inertias_stay(models):
    name, own, changed = models
    replaced = [
        g
        for g, (before, after) in enumerate(zip(kinds(own), kinds(changed), strict=True))
        if before != after
    ]
    assert len(replaced) == ANIMALS[name][0]
    for g in replaced:
        assert kinds(own)[g] in REPLACED and kinds(changed)[g] == "capsule"
    for field in ("body_mass", "body_inertia", "body_ipos", "dof_M0", "body_subtreemass"):
        a, b = getattr(own, field), getattr(changed, field)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-15, err_msg=field)
    # Axes of equal moments may be others.
    a, b = (_tensors(m) for m in (own, changed))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * np.abs(a).max())


def _tensors(model):
    turns = np.zeros((model.nbody, 9))
    for turn, quat in zip(turns, model.body_iquat, strict=True):
        mujoco.mju_quat2Mat(turn, quat)
    turns = turns.reshape(-1, 3, 3)
    return np.einsum("bij,bj,bkj->bik", turns, model.body_inertia, turns)


def test_contacts_are_where_they_were(models):
    name = models[0]
    found = compare(PRESETS[name], steps=150, seed=0)
    assert found["contacts"] > 100
    assert found["distance_mean"] < ANIMALS[name][1] * PRESETS[name].walker.reach


def test_a_capsule_lies_along_the_longest_axis():
    root = mjcf.from_xml_string(
        "<mujoco><worldbody><body name='b'>"
        "<geom name='x' type='ellipsoid' size='.3 .1 .1'/>"
        "<geom name='y' type='ellipsoid' size='.1 .4 .2' quat='0 1 0 0'/>"
        "<geom name='z' type='cylinder' size='.1 .5' pos='0 0 1'/>"
        "<geom name='flat' type='cylinder' size='.1 .05'/>"
        "<geom name='seen' type='ellipsoid' size='.1 .1 .2' contype='0' conaffinity='0'/>"
        "</body></worldbody></mujoco>"
    )
    put_capsules(root)
    model = mujoco.MjModel.from_xml_string(root.to_xml_string())
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    axes = data.geom_xmat.reshape(-1, 3, 3)[:, :, 2]
    for name, axis, radius, half in (
        ("x", 0, 0.1, 0.2),
        ("y", 1, np.sqrt(0.02), 0.4 - np.sqrt(0.02)),
        ("z", 2, 0.1, 0.4),
    ):
        g = model.geom(name).id
        assert abs(axes[g, axis]) > 1 - 1e-6
        np.testing.assert_allclose(model.geom_size[g, :2], (radius, half), rtol=1e-6)
    flat = model.geom("flat")
    assert flat.size[0] == 0.1 and flat.size[1] < 1e-3
    assert kinds(model)[model.geom("seen").id] == "ellipsoid"


@pytest.mark.parametrize("name", ANIMALS)
def test_mjx_refuses_a_walker_without_them_and_says_what_helps(name):
    message = {
        "rodent_gaps": "geom 'walker/.*' is an ellipsoid.*--walker.capsules",
        "humanoid_gaps": "geom 'walker/.*' is an ellipsoid.*--walker.capsules",
        "fly_floor": "actuator 'walker/adhere_claw_T1_left' .*--walker.no-adhesion",
    }[name]
    with pytest.raises(ValueError, match=message):
        PRESETS[name].make(seeing=False, back_end="mjx")


@pytest.mark.parametrize("name", ANIMALS)
def test_mjx_takes_a_walker_with_them(name):
    preset = PRESETS[name]
    changes = {"capsules": True} | ({"adhesion": False} if name.startswith("fly") else {})
    walker = dataclasses.replace(preset.walker, **changes)
    model = physics_model(preset.arena, walker, preset.simulation, "mjx")
    found = physics.make_physics("mjx", model, 1).num_contacts
    # For each number of dimensions of contacts, the walker's maximum.
    assert 0 < found <= 2 * walker.mjx_contacts
