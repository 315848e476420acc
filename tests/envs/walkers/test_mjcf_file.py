"""A walker from a file is what MuJoCo reads from the file, in whatever units it is written."""

import mujoco
import numpy as np
import pytest

from envs import models
from envs.arenas.floor import Floor
from envs.arenas.gaps import Gaps
from envs.models import SimulationConfig
from envs.walkers.mjcf_file import MjcfWalker

FILE = """
<mujoco model="animal">
  <compiler {compiler}/>
  <option timestep="0.003" cone="elliptic" density="2"/>
  <visual><headlight diffuse="1 0 0"/></visual>
  <statistic extent="7"/>
  <default><joint range="{low} {high}" limited="true" springref="{spring}" stiffness="1"/></default>
  <worldbody>
    <body name="torso" pos="0 0 .3" euler="{low} 0 {high}">
      <geom name="torso" type="box" size=".3 .1 .1"/>
      <camera name="egocentric" axisangle="0 1 0 {high}" fovy="60"/>
      <body name="leg" pos="0 .2 0">
        <joint name="hip" axis="1 0 0" ref="{spring}"/>
        <joint name="knee" type="slide" axis="0 0 1" range="-.1 .2"/>
        <geom name="leg" type="capsule" fromto="0 0 0 0 .2 0" size=".05"/>
      </body>
    </body>
  </worldbody>
  <actuator><position name="hip" joint="hip" kp="3" ctrlrange="-.5 .5"/></actuator>
  <keyframe><key name="stand" qpos="0 0"/></keyframe>
</mujoco>
"""
DEGREES = {"low": -40, "high": 30, "spring": 5}
RADIANS = {name: float(np.deg2rad(value)) for name, value in DEGREES.items()}


@pytest.mark.parametrize(
    "compiler, angles",
    [
        ('angle="radian"', RADIANS),
        ('angle="degree" eulerseq="ZYX"', DEGREES),
        # MuJoCo's own default is degrees.
        ('boundmass="0.2" inertiafromgeom="true"', DEGREES),
    ],
)
@pytest.mark.parametrize("arena", [Gaps(), Floor()])
def test_a_body_is_what_mujoco_reads(compiler, angles, arena, tmp_path):
    path = tmp_path / "animal.xml"
    path.write_text(FILE.format(compiler=compiler, **angles))
    alone = mujoco.MjModel.from_xml_path(str(path))
    walker = MjcfWalker(path=str(path))
    model = models.physics_model(arena, walker, SimulationConfig())
    for kind, names, fields in (
        ("body", ("torso", "leg"), ("mass", "inertia", "ipos", "quat", "pos")),
        ("joint", ("hip", "knee"), ("range", "axis", "stiffness", "pos")),
        ("camera", ("egocentric",), ("quat", "fovy")),
        ("geom", ("torso", "leg"), ("size", "pos", "quat")),
        ("actuator", ("hip",), ("ctrlrange", "gainprm", "biasprm")),
    ):
        for name in names:
            want, got = getattr(alone, kind)(name), getattr(model, kind)(f"walker/{name}")
            for field in fields:
                if (name, field) == ("torso", "pos") and kind == "body":
                    continue  # The torso stands where its file says, above the arena's start.
                np.testing.assert_allclose(
                    getattr(got, field), getattr(want, field), rtol=1e-5, atol=2e-6,
                    err_msg=f"{name}.{field}",
                )  # fmt: skip
    springs = [alone.qpos_spring, model.qpos_spring[7:]]
    np.testing.assert_allclose(springs[1], springs[0], rtol=1e-5)
    np.testing.assert_allclose(model.qpos0[7:], alone.qpos0, rtol=1e-5)
    assert model.opt.density == 2
    assert model.opt.timestep == SimulationConfig().physics_timestep
    assert model.vis.headlight.diffuse[1] != 0


def test_an_arena_in_degrees_is_refused(tmp_path):
    class InDegrees(Floor):
        def build(self):
            root = super().build()
            root.compiler.angle = "degree"
            return root

    path = tmp_path / "animal.xml"
    path.write_text(FILE.format(compiler='angle="degree"', **DEGREES))
    with pytest.raises(ValueError, match=r"InDegrees.build returns a model in degrees"):
        models.physics_model(InDegrees(), MjcfWalker(path=str(path)), SimulationConfig())


@pytest.mark.parametrize(
    "bodies, message",
    [
        ("<geom type='plane' size='1 1 1'/><body name='torso'/>", "has a plane.*take it out"),
        ("<body name='torso'/><body name='other'/>", "has 2 bodies in its worldbody"),
        ("<body name='trunk'/>", "has no body 'torso'; it has trunk"),
        ("<body name='torso'><freejoint/><geom size='1'/></body>", "has a free joint"),
        ("<body name='torso'/><boody/>", "cannot be read: .*boody"),
        ("<body name='torso'/>", "has no actuator"),
    ],
)
def test_a_file_that_is_no_animal_is_refused(bodies, message, tmp_path):
    path = tmp_path / "animal.xml"
    camera = "<camera name='egocentric'/>"
    path.write_text(f"<mujoco><worldbody>{camera}{bodies}</worldbody></mujoco>")
    with pytest.raises(ValueError, match=message):
        MjcfWalker(path=str(path)).build()
    with pytest.raises(ValueError, match="there is no such file"):
        MjcfWalker(path=str(tmp_path / "nothing.xml")).build()


def test_feet_that_are_not_there_are_named(tmp_path):
    path = tmp_path / "animal.xml"
    path.write_text(FILE.format(compiler='angle="radian"', **RADIANS))
    with pytest.raises(ValueError, match="has no geom 'lge'; it has torso, leg"):
        MjcfWalker(path=str(path), feet=("lge",)).build()
    with pytest.raises(ValueError, match="mjx_contacts is 0"):
        MjcfWalker(path=str(path), mjx_contacts=0)
