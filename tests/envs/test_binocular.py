"""Binocular eyes: two cameras on both sides of the one in the model."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs import models
from envs.presets import PRESETS
from envs.vision import VisionConfig
from tests.envs.renderer import assert_alike, mujoco_draws

BASELINE, VERGENCE = 0.2, 30.0
PAIR = VisionConfig(height=64, width=64, binocular=True, baseline=BASELINE, vergence=VERGENCE)


def with_eyes(name, vision):
    return dataclasses.replace(PRESETS[name], vision=vision).make(back_end="mujoco")


@pytest.mark.parametrize("name", ["gap_ant", "rodent_floor"])
def test_the_two_cameras_are_a_baseline_apart_and_converge(name):
    env = with_eyes(name, PAIR)
    assert list(env.eyes) == ["vision_left", "vision_right"]
    assert {"vision_left", "vision_right"} < set(env.observation_spec)
    poses = env._kinematics(jnp.asarray(env.model.qpos0, jnp.float32))
    number = env.eyes["vision_left"].number
    position, rotation = poses.cam_xpos[number], poses.cam_xmat[number]
    left, right = (eye.placed(position, rotation) for eye in env.eyes.values())
    across = right[0] - left[0]
    np.testing.assert_allclose(across, BASELINE * rotation[:, 0], atol=1e-6)
    np.testing.assert_allclose(0.5 * (left[0] + right[0]), position, atol=1e-6)
    ahead = [-pose[1][:, 2] for pose in (left, right)]
    np.testing.assert_allclose(np.dot(*ahead), np.cos(np.deg2rad(VERGENCE)), atol=1e-6)
    # The left camera looks to the right, so that the axes meet before the eye.
    assert ahead[0] @ rotation[:, 0] > 0.2 and ahead[1] @ rotation[:, 0] < -0.2
    distance = 0.5 * BASELINE / np.sin(np.deg2rad(VERGENCE / 2))
    meet = [pose[0] + distance * a for pose, a in zip((left, right), ahead, strict=True)]
    np.testing.assert_allclose(meet[0], meet[1], atol=1e-5)
    for _, axes in (left, right):
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
        np.testing.assert_allclose(axes[:, 1], rotation[:, 1], atol=1e-6)
        assert np.linalg.det(axes) > 0


@pytest.mark.slow
def test_what_they_see_is_what_mujoco_draws_from_there(tmp_path):
    """Against cameras that are put there in the model."""
    vision = dataclasses.replace(PAIR, supersample=2)
    env = with_eyes("walls_ant", vision)
    state = jax.jit(env.reset)(jax.random.key(0))
    root = env.arena.whole(jax.tree.map(np.asarray, state.data.layout))
    models._attach(root, env.arena, env.walker, env.simulation)
    eye = root.find("camera", f"walker/{env.walker.eye}")
    frame = env.looks.camera(f"walker/{env.walker.eye}")
    axes = np.zeros(9)
    mujoco.mju_quat2Mat(axes, np.asarray(frame.quat, float))
    right, up, back = axes.reshape(3, 3).T
    half = np.deg2rad(VERGENCE / 2)
    for side, sign in (("left", -1), ("right", 1)):
        turned = np.cos(half) * right - sign * np.sin(half) * back
        eye.parent.add(
            "camera",
            name=side,
            pos=np.asarray(frame.pos) + sign * BASELINE / 2 * right,
            xyaxes=[*turned, *up],
            fovy=float(frame.fovy[0]),
        )
    world = models._compile(root, root.get_assets())
    names = ["walker/left", "walker/right"]
    qpos = np.asarray(state.data.physics.qpos)[None, None]
    theirs = mujoco_draws([world], qpos, names, (64, 64), tmp_path)
    poses, seen = env._kinematics(state.data.physics.qpos), env._visible(state.data)
    geoms = {world.geom(g).name: g for g in range(world.ngeom)}
    for i, side in enumerate(("left", "right")):
        eye = env.eyes[f"vision_{side}"]
        image = jax.tree.map(np.asarray, env.sight.draw(eye, poses, seen))
        np.testing.assert_array_equal(image.rgb, state.obs[f"vision_{side}"])
        # Walls have other names there: the first one is the first.
        own = [env.looks.geom(g).name.replace("visible_", "wall_") for g in range(env.looks.ngeom)]
        ids = np.array([*[geoms.get(name, -2) for name in own], -1])
        image = dataclasses.replace(image, segmentation=ids[image.segmentation])
        assert_alike(image, jax.tree.map(lambda x, i=i: x[0, 0, i], theirs), side)
    assert np.mean(state.obs["vision_left"] != state.obs["vision_right"]) > 0.1


def test_several_eyes_have_two_leaves_each():
    env = with_eyes("gap_ant", dataclasses.replace(PAIR, camera="egocentric, floating"))
    sides = ("left", "right")
    assert list(env.eyes) == [f"vision_{c}_{s}" for c in ("egocentric", "floating") for s in sides]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"baseline": -0.1}, "vision.baseline is -0.1 m"),
        ({"vergence": 180.0}, "vision.vergence is 180.0 degrees"),
        ({"baseline": 0.0, "vergence": 0.0}, "binocular eyes need at least one of the two"),
        ({"binocular": False}, "vision.binocular is False, vision.baseline 0.2 m"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        with_eyes("gap_ant", dataclasses.replace(PAIR, **change))
