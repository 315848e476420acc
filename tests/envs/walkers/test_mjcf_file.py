"""A walker from a file is what MuJoCo reads from the file, in whatever units it is written."""

import dataclasses
from pathlib import Path

import dm_control
import jax
import mujoco
import numpy as np
import pytest

import envs
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
        ("<body name='torso'/><boody/>", "cannot be read: .*boody"),
        ("<body name='torso'/>", "has no actuator"),
        ("", "has no body in its worldbody"),
    ],
)
def test_a_file_that_is_no_animal_is_refused(bodies, message, tmp_path):
    path = tmp_path / "animal.xml"
    path.write_text(f"<mujoco><worldbody>{bodies}</worldbody></mujoco>")
    with pytest.raises(ValueError, match=message):
        MjcfWalker(path=str(path)).build()
    with pytest.raises(ValueError, match=r"there is no such file; .*\(--walker.path FILE\)"):
        MjcfWalker(path=str(tmp_path / "nothing.xml")).build()


def test_parts_that_are_not_there_are_named(tmp_path):
    path = tmp_path / "animal.xml"
    path.write_text(FILE.format(compiler='angle="radian"', **RADIANS))
    for given, message in (
        ({"feet": ("lge",)}, "has no geom 'lge' in its body torso; it has torso, leg: .*.feet"),
        ({"root": "trunk"}, "has no body 'trunk' in its body torso; it has torso, leg: .*.root"),
        ({"eye": "left"}, "has no camera 'left' .* it has egocentric: .*--walker.eye"),
        ({"tree": "leg"}, "walker.tree is 'leg', but the bodies in the worldbody .* are torso;"),
    ):
        with pytest.raises(ValueError, match=message):
            MjcfWalker(path=str(path), **given).build()
    with pytest.raises(ValueError, match="mjx_contacts is 0"):
        MjcfWalker(path=str(path), mjx_contacts=0)


ZOO = """
<mujoco model="zoo">
  <compiler angle="radian"/>
  <default>
    <geom density="500"/>
    <default class="ghost"><geom contype="0" conaffinity="0"/></default>
  </default>
  <asset>
    <texture name="marble" builtin="flat" type="2d" width="8" height="8"/>
    <material name="marble" texture="marble"/>
    <material name="fur" rgba="1 0 0 1"/>
  </asset>
  <worldbody>
    <light name="sun" pos="0 0 5"/>
    <geom name="ground" type="plane" size="5 5 1" material="marble"/>
    <site name="goal"/>
    <body name="cat" pos="3 -2 1">
      {joint}
      <light name="torch"/>
      <geom name="trunk" type="box" size=".4 .2 .1" material="fur"/>
      <geom class="ghost" size=".6"/>
      <site name="back"/>
      {cameras}
      <camera name="stare" mode="targetbody" target="mouse"/>
      <body name="leg" pos="0 0 -.1">
        <joint name="hip" axis="0 1 0"/>
        <geom name="left" size=".05" pos="0 .2 -.4"/>
        <geom name="right" size=".05" pos="0 -.2 -.41"/>
      </body>
    </body>
    <body name="mouse" pos="1 0 1">
      <freejoint/>
      <geom name="mouse" size=".1"/>
      <site name="nose"/>
    </body>
  </worldbody>
  <contact><exclude name="friends" body1="cat" body2="mouse"/></contact>
  <tendon><spatial name="leash"><site site="back"/><site site="nose"/></spatial></tendon>
  <equality><connect name="bite" body1="cat" body2="mouse" anchor="0 0 0"/></equality>
  <actuator>
    <motor name="kick" joint="hip"/>
    <motor name="pull" tendon="leash"/>
    {actuator}
  </actuator>
  <sensor>
    <gyro name="balance" site="back"/>
    <tendonpos name="tug" tendon="leash"/>
    <framepos name="way" objtype="body" objname="cat" reftype="body" refname="mouse"/>
  </sensor>
  {more}
</mujoco>
"""


def zoo(tmp_path, joint="<freejoint/>", cameras="", actuator="", more=""):
    path = tmp_path / "zoo.xml"
    path.write_text(ZOO.format(joint=joint, cameras=cameras, actuator=actuator, more=more))
    return str(path)


def test_other_things_stay_behind_and_are_named_once(tmp_path, capsys):
    path = zoo(tmp_path)
    # The tendon from animal to animal acts on both.
    with pytest.raises(ValueError, match="2 bodies .*: cat, mouse; name one with --walker.tree"):
        MjcfWalker(path=path).build()
    walker = MjcfWalker(path=path, tree="cat")
    model = models.physics_model(Floor(), walker, SimulationConfig())
    told = capsys.readouterr().err
    for names in (
        "light sun, torch", "geom ground", "site goal", "body mouse", "camera stare",
        "contact friends", "tendon leash", "equality bite", "actuator pull", "sensor way, tug",
    ):  # fmt: skip
        assert names in told
    assert "left behind" in told and told.count("\n") == 2
    models.physics_model(Floor(), walker, SimulationConfig())
    assert capsys.readouterr().err == ""
    assert [model.actuator(i).name for i in range(model.nu)] == ["walker/kick"]
    assert model.ntendon == model.neq == model.nexclude == 0
    # It starts where the arena says, at the height that the file says.
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    np.testing.assert_array_equal(data.body("walker/cat").xpos, [0, 0, 1])
    walkers = [model.body(i).name for i in range(model.nbody)]
    assert walkers == ["world", "walker/", "walker/cat", "walker/leg"]
    # Its one free joint is that of the walker; no material of others is left.
    assert model.jnt_type.tolist() == [mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_HINGE]
    assert "walker/marble" not in [model.material(i).name for i in range(model.nmat)]
    sensing = SimulationConfig(sensors=("walker/balance",))
    assert models.physics_model(Floor(), walker, sensing).nsensordata == 3


def test_what_the_user_does_not_name_is_found(tmp_path):
    walker = MjcfWalker(path=zoo(tmp_path), tree="cat")
    # The lowest points are at -0.45 and -0.46 below the hip, of a body 1.16 m high.
    assert walker.feet == ("left", "right") and walker.end_effectors == ("leg",)
    assert (walker.root, walker.eye, walker.film_camera) == ("cat", "egocentric", "follow")
    model = models.physics_model(Floor(), walker, SimulationConfig())
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    eye = data.camera("walker/egocentric")
    # The foremost point is that of the ghost, 0.6 m before the root; 2 % of its width before it.
    np.testing.assert_allclose(eye.xpos, [0.6 + 0.02 * 1.2, 0, 1], atol=1e-6)
    np.testing.assert_allclose(eye.xmat.reshape(3, 3)[:, 2], [-1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(eye.xmat.reshape(3, 3)[:, 1], [0, 0, 1], atol=1e-6)
    film = data.camera("walker/" + walker.film_camera)
    away = data.body("walker/cat").xpos - film.xpos
    np.testing.assert_allclose(
        -film.xmat.reshape(3, 3)[:, 2], away / np.linalg.norm(away), atol=1e-6
    )
    # What was found is what its settings say, and they find the same again.
    again = dataclasses.replace(walker)
    assert again == walker and models.physics_model(Floor(), again, SimulationConfig()).ncam > 0
    # In MJX all that can collide does, and the ghost does not.
    assert walker.colliders(model) == ["walker/trunk", "walker/left", "walker/right"]


def test_one_camera_that_rides_on_it_is_its_eye_and_two_are_unclear(tmp_path):
    one, two = "<camera name='left_eye'/>", "<camera name='left_eye'/><camera name='right_eye'/>"
    assert MjcfWalker(path=zoo(tmp_path, cameras=one), tree="cat").eye == "left_eye"
    path = zoo(tmp_path, cameras=two)
    with pytest.raises(ValueError, match="left_eye, right_eye; name one with --walker.eye"):
        MjcfWalker(path=path, tree="cat").build()
    assert MjcfWalker(path=path, tree="cat", eye="right_eye").build() is not None


@pytest.mark.parametrize("joint", ["", "<freejoint/>", "<joint type='slide' name='rail'/>"])
def test_it_moves_freely_whatever_held_it(joint, tmp_path):
    walker = MjcfWalker(path=zoo(tmp_path, joint=joint), tree="cat")
    model = models.physics_model(Floor(), walker, SimulationConfig())
    assert model.nq == 8 and model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE


def test_a_body_that_is_driven_along_a_rail_is_refused(tmp_path):
    rail = {"joint": "<joint type='slide' name='rail'/>", "actuator": "<motor joint='rail'/>"}
    with pytest.raises(ValueError, match="joints rail hold the body cat to the world"):
        MjcfWalker(path=zoo(tmp_path, **rail), tree="cat").build()
    with pytest.raises(ValueError, match="no actuator on the body mouse.*--walker.tree"):
        MjcfWalker(path=zoo(tmp_path), tree="mouse").build()


def test_what_meets_the_floor_by_pairs_meets_every_arena(tmp_path):
    path = tmp_path / "animal.xml"
    path.write_text(
        """<mujoco><worldbody><geom name="floor" type="plane" size="1 1 1"/>
        <body name="torso"><freejoint/><geom name="torso" size=".1" contype="0" conaffinity="0"/>
        <body><joint name="hip"/><geom name="foot" size=".1" pos="0 0 -.5" contype="0"
        conaffinity="0"/></body></body></worldbody>{}
        <actuator><motor joint="hip"/></actuator></mujoco>"""
    )
    text = path.read_text()
    path.write_text(text.format("<contact><pair geom1='foot' geom2='floor'/></contact>"))
    walker = MjcfWalker(path=str(path))
    assert walker.feet == ("foot",)
    model = models.physics_model(Floor(), walker, SimulationConfig())
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    touching = {model.geom(g).name for pair in data.contact.geom for g in pair}
    assert touching == {"walker/foot", "groundplane"}
    mass = '<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>'
    bare = f"""<mujoco><worldbody><body name="torso"><freejoint/>{mass}
        <body><joint name="hip"/>{mass}</body></body></worldbody>
        <actuator><motor joint="hip"/></actuator></mujoco>"""
    for without in (text.format("<!-- no pair at all -->"), bare):
        path.write_text(without)
        with pytest.raises(ValueError, match="no geom of the body torso can collide"):
            MjcfWalker(path=str(path)).build()


SUITE = Path(dm_control.__file__).parent / "suite"
OTHERS = {
    "quadruped": (SUITE / "quadruped.xml", 12, 4),
    "dog": (SUITE / "dog.xml", 38, 16),
    "humanoid": (Path(mujoco.__file__).parent / "mjx/test_data/humanoid/humanoid.xml", 21, 4),
}


@pytest.mark.parametrize("name", OTHERS)
def test_models_that_nobody_here_wrote_move_as_in_their_files(name):
    """In the air, under the same controls, bodies are where MuJoCo has them in the file's model.

    The free joint has another origin, so the two differ by what the time step leaves: four times
    less with a quarter of it."""
    path, actions, feet = OTHERS[name]
    walker = MjcfWalker(path=str(path))
    model = models.physics_model(Floor(), walker, SimulationConfig())
    alone = mujoco.MjModel.from_xml_path(str(path))
    assert model.nu == alone.nu == actions and len(walker.feet) == feet
    bodies = {model.body(i).name for i in range(2, model.nbody)}
    assert len(bodies) == model.nbody - 2
    for option in ("solver", "iterations", "ls_iterations", "cone", "disableflags"):
        setattr(alone.opt, option, getattr(model.opt, option))
    alone.opt.noslip_iterations = 0

    def apart(timestep, seconds=0.08):
        """Metres between the two models' bodies, and how far joints went."""
        model.opt.timestep = alone.opt.timestep = timestep
        ours, theirs = mujoco.MjData(model), mujoco.MjData(alone)
        rng, steps = np.random.default_rng(0), round(seconds / timestep)
        # The arena places ours along x and y.
        theirs.qpos[:2] = 0
        for data, of in ((ours, model), (theirs, alone)):
            data.qpos[2] += 20
            mujoco.mj_forward(of, data)
        for i in range(steps):
            if i % (steps // 4) == 0:
                ours.ctrl[:] = theirs.ctrl[:] = rng.uniform(-1, 1, actions)
            mujoco.mj_step(model, ours)
            mujoco.mj_step(alone, theirs)
        assert not any(warning.number for warning in ours.warning)
        places = [(ours.body(b).xpos, theirs.body(b.removeprefix("walker/")).xpos) for b in bodies]
        moved = np.abs(ours.qpos[7:] - model.qpos0[7:]).max() if steps else None
        return max(np.abs(a - b).max() for a, b in places), moved

    assert apart(1.0, seconds=0)[0] < 1e-5
    coarse, moved = apart(0.004)
    fine, _ = apart(0.001)
    assert moved > 0.05 and fine < 3e-3 and fine < 0.4 * coarse


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_models_that_nobody_here_wrote_run_on_the_floor(name):
    env = envs.make("mjcf_floor", walker=MjcfWalker(path=str(OTHERS[name][0])), physics="mujoco")
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    state, rng = reset(jax.random.key(0)), np.random.default_rng(0)
    assert state.obs["vision"].std() > 5
    for i in range(1000):
        action = np.float32(rng.uniform(-1, 1, env.action_size))
        state = reset(jax.random.key(i)) if state.done else step(state, action)
        assert np.isfinite(state.reward) and not state.info["failed"]
    picture = env.draw(state.data, env.camera(env.film_camera, 60, 80))
    assert picture.std() > 10
