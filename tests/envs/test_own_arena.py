"""A user's own arena, of two boxes and lights of its own, is drawn as MuJoCo draws it."""

import dataclasses

import jax
import numpy as np
import pytest
from dm_control import mjcf

from envs.interfaces import Arena
from envs.locomotion import Locomotion
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.vision import VisionConfig
from envs.walkers.ant import Ant
from tests.envs.renderer import assert_alike, mujoco_draws

SIZE = (64, 64)


@dataclasses.dataclass(frozen=True)
class TwoBoxes(Arena):
    """A floor and two boxes under a spot light, a weak sun and no light of the camera's."""

    spot: float = 0.8
    """Brightness of the spot light."""

    def build(self) -> mjcf.RootElement:
        """Return the place."""
        root = mjcf.RootElement(model="two_boxes")
        root.visual.headlight.set_attributes(ambient=[0.2] * 3, diffuse=[0] * 3, specular=[0] * 3)
        world, box = root.worldbody, {"type": "box", "rgba": [0.9, 0.7, 0.3, 1]}
        world.add("geom", name="floor", type="plane", size=[9, 9, 1], rgba=[0.6, 0.8, 0.6, 1])
        world.add("geom", name="near_box", pos=[3, 1, 0.5], size=[0.5, 0.4, 0.5], **box)
        world.add("geom", name="far_box", pos=[6, -1, 1], size=[0.3, 2, 1], euler=[0, 0, 20], **box)
        bright, dim = ([x] * 3 for x in (self.spot, 0.3))
        of_light = {"specular": [0] * 3, "castshadow": False}
        shape = {"cutoff": 40, "exponent": 3, "attenuation": [0.8, 0.02, 0.01]}
        world.add("light", pos=[3, 2, 4], dir=[0.1, -0.2, -1], diffuse=bright, **shape, **of_light)
        world.add("light", directional=True, dir=[-1, 1, -2], diffuse=dim, **of_light)
        return root


def drawn(arena):
    """The environment, states around the boxes, and of each what its two cameras see."""
    vision = VisionConfig(height=SIZE[0], width=SIZE[1], supersample=2)
    env = Locomotion(arena, Ant(), RunThroughCorridor(), vision)
    cameras = [
        env.eyes["vision"],
        dataclasses.replace(env.camera(env.film_camera, *SIZE), supersample=2),
    ]

    @jax.jit
    @jax.vmap
    def look(qpos):
        data = env.at(qpos, np.zeros(env.model.nv, np.float32), ()).data
        poses = env._kinematics(data.physics.qpos)
        return [env.pictures.draw(camera, poses, env._visible(data)) for camera in cameras]

    qpos = np.tile(np.float32(env.model.qpos0), (4, 1))
    qpos[:, 0], qpos[:, 1] = [0.0, 1.5, 4.5, 8.0], [0.0, 1.0, 0.5, 0.0]
    yaw = np.array([0.0, 0.3, -1.0, 3.0])
    qpos[:, 3], qpos[:, 6] = np.cos(yaw / 2), np.sin(yaw / 2)
    return env, qpos, cameras, jax.tree.map(np.asarray, look(qpos))


def test_lights_of_an_arena_shine_as_mujocos(tmp_path):
    env, qpos, cameras, images = drawn(TwoBoxes())
    assert len(env.pictures.scene.light_ids) >= 2
    world = env.whole(env.reset(jax.random.key(0)).data)
    names = [camera.name for camera in cameras]
    theirs = mujoco_draws([world], qpos[None], names, SIZE, tmp_path)
    for s in range(len(qpos)):
        for c, camera in enumerate(cameras):
            ours = jax.tree.map(lambda x, s=s: x[s], images[c])
            other = jax.tree.map(lambda x, s=s, c=c: x[0, s, c], theirs)
            # The models are the same but for what differs between episodes, of which there is none.
            assert_alike(ours, other, f"state {s}, {camera.name}")
    # And it is the spot that shines there.
    _, _, _, dark = drawn(TwoBoxes(spot=0.0))
    brighter = images[1].rgb.mean((1, 2, 3)) - dark[1].rgb.mean((1, 2, 3))
    assert np.all(brighter > 5), brighter


def test_an_ant_runs_into_its_boxes():
    env = Locomotion(TwoBoxes(), Ant(), RunThroughCorridor(), back_end="mujoco")
    assert set(env.observation_spec) == {"proprio"}
    state = jax.jit(env.reset)(jax.random.key(0))
    qpos = np.array(state.data.physics.qpos)
    qpos[0] = 1.6
    state = env.at(qpos, np.zeros(env.model.nv, np.float32), state.data.layout)
    step = jax.jit(env.step)
    for _ in range(10):
        state = step(state, np.zeros(env.action_size, np.float32))
    assert not state.done
    with pytest.raises(ValueError, match="neither TwoBoxes nor RunThroughCorridor tells what lies"):
        Locomotion(TwoBoxes(), Ant(), RunThroughCorridor(), ahead=True)
