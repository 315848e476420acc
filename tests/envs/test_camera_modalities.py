"""Test what the gap ant's eyes give: colours, brightness, depth or labels, in bytes."""

import dataclasses

import jax
import numpy as np
import pytest

import envs
from envs.vision import VisionConfig

pytestmark = pytest.mark.slow

SMALL = VisionConfig(height=24, width=32)


@pytest.fixture(scope="module")
def views():
    """Return what the ant sees at its start in each modality, by two eyes."""
    key, seen = jax.random.key(0), {}
    for modality in ("rgb", "gray", "depth", "segmentation"):
        vision = dataclasses.replace(SMALL, modality=modality, camera="egocentric, floating")
        env = envs.make("gap_ant", vision=vision)
        spec = env.observation_spec
        obs = jax.jit(env.reset)(key).obs
        for name, leaf in spec.items():
            assert (obs[name].shape, obs[name].dtype) == (leaf.shape, leaf.dtype)
        seen[modality] = jax.tree.map(np.asarray, obs)
    return seen


def test_each_eye_has_a_leaf(views):
    for modality, seen in views.items():
        assert set(seen) == {"proprio", "vision_egocentric", "vision_floating"}
        channels = 3 if modality == "rgb" else 1
        assert seen["vision_floating"].shape == (24, 32, channels)
        assert (seen["vision_egocentric"] != seen["vision_floating"]).any()


def test_gray_is_the_brightness_of_the_colours(views):
    colours, gray = (views[m]["vision_floating"] for m in ("rgb", "gray"))
    assert np.abs(colours @ [0.299, 0.587, 0.114] - gray[..., 0]).max() <= 0.51


def test_depth_and_labels_tell_sky_platforms_and_walker_apart(views):
    depth, labels = (views[m]["vision_floating"][..., 0] for m in ("depth", "segmentation"))
    sky, platforms = labels == 0, labels == 255
    walker = ~sky & ~platforms
    # The camera is 2 m behind and 1 m above the ant, and looks along the corridor.
    assert sky[0].all() and platforms[-1].all() and walker.any()
    assert (depth[sky] == 255).all() and (depth[-1] < 100).all()
    assert 25 < np.median(depth[walker]) < 80
    # Along the ground depth grows with height in the picture.
    column = depth[platforms[:, 0], 0].astype(int)
    assert (np.diff(column) <= 0).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"modality": "smell"}, "vision.modality is 'smell'.*rgb, gray, depth, segmentation"),
        ({"max_depth": 0.0}, "vision.max_depth is 0.0 m"),
        ({"camera": "egocentric,egocentric"}, "names a camera twice"),
        ({"supersample": 0}, "supersample is 0"),
    ],
)
def test_eyes_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        envs.make("gap_ant", vision=dataclasses.replace(SMALL, **change))
