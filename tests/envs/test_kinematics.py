"""Forward kinematics against MuJoCo's C engine: camera and light modes, mocap bodies."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.kinematics import Kinematics

MODES = ("fixed", "track", "trackcom", "targetbody", "targetbodycom")


def hung(body):
    """MJCF of a camera and a light of each mode; those that need a target aim at `arm`."""
    lines = []
    for i, mode in enumerate(MODES):
        aim = f'mode="{mode}"' + (' target="arm"' if mode.startswith("target") else "")
        place = f'pos="{0.2 * i} {0.3 - 0.1 * i} {0.5 + 0.1 * i}"'
        lines.append(f'<camera name="{body} {mode}" {place} euler="20 {10 * i} 5" {aim}/>')
        lines.append(f'<light name="{body} {mode}" {place} dir="0.3 {0.2 * i} -1" {aim}/>')
    return "".join(lines)


MODEL = f"""<mujoco>
  <worldbody>
    {hung("world")}
    <body name="trunk" pos="0 0 1" euler="10 20 30">
      <freejoint/>
      <geom type="box" size="0.2 0.1 0.1" pos="0.05 0 0" euler="0 0 15"/>
      {hung("trunk")}
      <body name="arm" pos="0.2 0 0" euler="0 40 0">
        <joint type="ball" pos="0 0 0.05"/>
        <geom type="capsule" size="0.05 0.2" pos="0 0 0.2"/>
        <body name="hand" pos="0 0 0.4">
          <joint type="hinge" axis="1 0 0" pos="0 0.02 0"/>
          <joint type="slide" axis="0 0.6 0.8"/>
          <geom type="sphere" size="0.08" pos="0 0.1 0"/>
        </body>
      </body>
    </body>
    <body name="post" mocap="true" pos="1 2 0.5" euler="0 0 50">
      <geom type="box" size="0.1 0.1 0.5"/>
      {hung("post")}
      <body name="lamp" pos="0 0 0.3" euler="30 0 0">
        <geom type="sphere" size="0.1" pos="0.1 0 0.2"/>
        {hung("lamp")}
        <body name="weight" pos="0.2 0 0"><geom type="sphere" size="0.2"/></body>
      </body>
    </body>
    <body name="other" mocap="true" pos="-1 0 0"><geom type="sphere" size="0.1"/></body>
  </worldbody>
</mujoco>"""


def c_poses(model, qpos, mocap_pos=None):
    """Return `mujoco.MjData` with the poses that the C engine computes."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    if mocap_pos is not None:
        data.mocap_pos[:] = mocap_pos
    for stage in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight):
        stage(model, data)
    return data


def assert_equal(ours, theirs, atol=2e-5):
    for name, value in vars(ours).items():
        expected = getattr(theirs, name)
        found = np.asarray(value).reshape(expected.shape)
        np.testing.assert_allclose(found, expected, atol=atol, err_msg=name)


@pytest.fixture(scope="module")
def model():
    return mujoco.MjModel.from_xml_string(MODEL)


def test_every_camera_and_light_mode_follows_mujoco(model):
    assert model.ncam == model.nlight == 4 * len(MODES)
    rng = np.random.default_rng(0)
    qpos = model.qpos0 + rng.normal(size=(20, model.nq))
    mocap = rng.uniform(-3, 3, (20, model.nmocap, 3))
    kinematics = Kinematics(model)
    moved = jax.jit(jax.vmap(kinematics))(jnp.float32(qpos), jnp.float32(mocap))
    in_place = jax.jit(jax.vmap(kinematics))(jnp.float32(qpos))
    for i in range(len(qpos)):
        assert_equal(jax.tree.map(lambda x, i=i: x[i], moved), c_poses(model, qpos[i], mocap[i]))
        assert_equal(jax.tree.map(lambda x, i=i: x[i], in_place), c_poses(model, qpos[i]))


def test_children_of_a_mocap_body_move_with_it():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><body mocap="true" pos="0 0 1"><body name="child" pos="0 0 .3">
        <geom size=".1"/><camera/><light/></body></body></worldbody></mujoco>"""
    )
    poses = Kinematics(model)(jnp.zeros(0), jnp.array([[2.0, 3, 1]]))
    expected = [2, 3, 1.3]
    for name in ("xpos", "geom_xpos", "cam_xpos", "light_xpos", "subtree_com"):
        np.testing.assert_allclose(getattr(poses, name)[-1], expected, atol=1e-6, err_msg=name)
    assert_equal(poses, c_poses(model, [], [[2, 3, 1]]))


@pytest.mark.parametrize("height", [5.0, -5.0, 0.5])
@pytest.mark.parametrize("where", ["0 0", "3.3 -7.7"])
def test_a_camera_straight_above_below_or_at_its_target(height, where):
    """MuJoCo takes (1, 0, 0) for a null vector; rounded positions must not give another one."""
    model = mujoco.MjModel.from_xml_string(
        f"""<mujoco><worldbody>
        <camera pos="{where} {height}" mode="targetbody" target="ball"/>
        <light pos="{where} {height}" mode="targetbody" target="ball"/>
        <body pos="{where} 0"><body name="ball" pos="0 0 .5"><geom size=".1"/></body></body>
        </worldbody></mujoco>"""
    )
    poses = Kinematics(model)(jnp.zeros(0))
    assert_equal(poses, c_poses(model, []))
    np.testing.assert_allclose(np.linalg.det(poses.cam_xmat[0]), 1)


def test_a_model_without_joints_and_lights_is_no_error():
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom size="1"/></worldbody></mujoco>'
    )
    poses = Kinematics(model)(jnp.zeros(0))
    assert poses.light_xpos.shape == poses.light_xdir.shape == (0, 3)
