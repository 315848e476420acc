"""A user's own arena, of two boxes and lights of its own, is drawn as MuJoCo draws it."""

import dataclasses

import jax
import numpy as np
import pytest
from dm_control import mjcf

from envs.interfaces import WALKER, Arena
from envs.locomotion import Locomotion
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.walkers.ant import Ant
from tests.envs.renderer import assert_alike, mujoco_draws

SIZE = (64, 64)


@dataclasses.dataclass(frozen=True)
class TwoBoxes(Arena):
    """A floor and two boxes under a spot light, a weak sun and no light of the camera's."""

    def build(self) -> mjcf.RootElement:
        """Return the place."""
        root = mjcf.RootElement(model="two_boxes")
        root.visual.headlight.set_attributes(ambient=[0.2] * 3, diffuse=[0] * 3, specular=[0] * 3)
        world, box = root.worldbody, {"type": "box", "rgba": [0.9, 0.7, 0.3, 1]}
        # MuJoCo lights a plane at the corners of a grid, whose spacing is the last size.
        world.add("geom", name="floor", type="plane", size=[9, 9, 0.1], rgba=[0.6, 0.8, 0.6, 1])
        world.add("geom", name="near_box", pos=[3, 1, 0.5], size=[0.5, 0.4, 0.5], **box)
        world.add("geom", name="far_box", pos=[6, -1, 1], size=[0.3, 2, 1], euler=[0, 0, 20], **box)
        bright, dim = [0.8] * 3, [0.3] * 3
        of_light = {"specular": [0] * 3, "castshadow": False}
        shape = {"cutoff": 40, "exponent": 3, "attenuation": [0.8, 0.02, 0.01]}
        world.add("light", pos=[3, 2, 4], dir=[0.1, -0.2, -1], diffuse=bright, **shape, **of_light)
        world.add("light", directional=True, dir=[-1, 1, -2], diffuse=dim, **of_light)
        return root


@pytest.fixture(scope="module")
def env():
    return Locomotion(TwoBoxes(), Ant(), RunThroughCorridor(), back_end="mujoco")


def test_lights_of_an_arena_shine_as_mujocos(env, tmp_path):
    names = env.walker.eye, env.film_camera
    cameras = [dataclasses.replace(env.camera(name, *SIZE), supersample=2) for name in names]

    @jax.jit
    @jax.vmap
    def look(qpos):
        data = env.at(qpos, np.zeros(env.model.nv, np.float32), ()).data
        poses = env._kinematics(data.physics.qpos)
        return data, [env.pictures.draw(camera, poses, env._visible(data)) for camera in cameras]

    qpos = np.tile(np.float32(env.model.qpos0), (4, 1))
    qpos[:, 0], qpos[:, 1] = [0.0, 1.5, 4.5, 8.0], [0.0, 1.0, 0.5, 0.0]
    yaw = np.array([0.0, 0.3, -1.0, 3.0])
    qpos[:, 3], qpos[:, 6] = np.cos(yaw / 2), np.sin(yaw / 2)
    data, images = jax.tree.map(np.asarray, look(qpos))
    world = env.whole(jax.tree.map(lambda x: x[0], data))
    theirs = mujoco_draws([world], qpos[None], [WALKER + name for name in names], SIZE, tmp_path)
    for s in range(len(qpos)):
        for c, name in enumerate(names):
            ours = jax.tree.map(lambda x, s=s: x[s], images[c])
            other = jax.tree.map(lambda x, s=s, c=c: x[0, s, c], theirs)
            # All that there is has the same ids in both models: nothing differs between episodes.
            assert_alike(ours, other, f"state {s}, {name}")
    # And it is the spot that shines there: without it all of the floor would be alike.
    floor = images[1].segmentation[0] == env.looks.geom("floor").id
    brightness = images[1].rgb[0][floor].mean(-1)
    assert brightness.max() > 1.5 * brightness.min()


def test_boxes_of_an_arena_without_slots_push_back(env):
    qpos = np.float32(env.model.qpos0)
    # A leg points ahead, into the near box, which begins at 2.5 m.
    qpos[:2], qpos[3], qpos[6] = (2.0, 1.0), np.cos(np.pi / 8), np.sin(np.pi / 8)
    state = jax.jit(env.at)(qpos, np.zeros(env.model.nv, np.float32), ())
    step = jax.jit(env.step)
    for _ in range(10):
        state = step(state, np.zeros(env.action_size, np.float32))
    assert not state.done
    assert 1.7 < state.data.root[0] < 1.95


def test_an_arena_that_tells_nothing_has_no_ahead(env):
    assert set(env.observation_spec) == {"proprio"}
    with pytest.raises(ValueError, match="neither TwoBoxes nor RunThroughCorridor tells what lies"):
        Locomotion(TwoBoxes(), Ant(), RunThroughCorridor(), ahead=True)
