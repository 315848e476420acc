"""Stacked frames: the newest last, bytes all the way, and the environment as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.frame_stack import FrameStack
from tests.probes import Probe


def seeing():
    return Probe(lambda x, action: x * action, picture=True)


def test_frames_are_the_last_pictures_oldest_first():
    plain, stacked = seeing(), FrameStack(seeing(), 3)
    assert stacked.observation_spec["vision"].shape == (4, 4, 9)
    key, action = jax.random.key(0), jnp.ones(1)
    a, b = plain.reset(key), stacked.reset(key)
    pictures = [a.obs["vision"]] * 3
    for _ in range(6):
        assert b.obs["vision"].dtype == jnp.uint8
        np.testing.assert_array_equal(b.obs["vision"], jnp.concatenate(pictures[-3:], -1))
        np.testing.assert_array_equal(b.obs["proprio"], a.obs["proprio"])
        a, b = plain.step(a, action), stacked.step(b, action)
        pictures.append(a.obs["vision"])
        assert float(a.reward) == float(b.reward)
    assert len({picture.tobytes() for picture in map(np.asarray, pictures)}) > 1


def test_everything_else_is_the_environments_own():
    stacked = FrameStack(seeing(), 2)
    assert stacked.action_size == 1 and stacked.metric_reductions == Probe.metric_reductions
    with pytest.raises(AttributeError):
        _ = stacked.smell


def test_what_cannot_be_stacked_is_refused():
    with pytest.raises(ValueError, match="frames is 0"):
        FrameStack(seeing(), 0)
    with pytest.raises(ValueError, match="no image to stack among proprio"):
        FrameStack(Probe(lambda x, action: x), 2)
