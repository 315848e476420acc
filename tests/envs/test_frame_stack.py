"""Stacked frames: the newest last, bytes all the way, and the environment as it was."""

import copy
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.frame_stack import FrameStack
from tests.probes import Probe
from vnl_ppo.env import State


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


class TwoEyes:
    """Nested observations, and a way to begin at will."""

    action_size = 1

    def __init__(self):
        self.observation_spec = jax.eval_shape(self.at, jax.ShapeDtypeStruct((), jnp.float32)).obs

    def at(self, x):
        picture = lambda shift: jnp.full((4, 4, 1), x + shift).astype(jnp.uint8)
        obs = {"eyes": {"left": picture(0), "right": picture(10)}, "x": x[None]}
        zero = jnp.zeros(())
        return State(x, obs, zero, zero, {}, {})

    def reset(self, key):
        return self.at(jax.random.randint(key, (), 1, 9).astype(jnp.float32))

    def step(self, state, action):
        return self.at(state.data + 1)

    def draw(self, data):
        return jnp.full((4, 4, 3), data).astype(jnp.uint8)


def test_every_image_of_a_nested_observation_is_stacked():
    stacked = FrameStack(TwoEyes(), 2)
    spec = stacked.observation_spec
    state = stacked.step(stacked.reset(jax.random.key(0)), jnp.ones(1))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state.obs) == jax.tree.map(
        lambda x: (x.shape, x.dtype), spec
    )
    for eye, shift in (("left", 0), ("right", 10)):
        newest = int(state.data) + shift
        np.testing.assert_array_equal(state.obs["eyes"][eye][0, 0], [newest - 1, newest])
    np.testing.assert_array_equal(state.obs["x"], [state.data])


def test_a_state_that_any_other_method_returns_is_stacked():
    """A viewer goes on from it with the network, which sees K frames."""
    stacked = FrameStack(TwoEyes(), 3)
    state = jax.jit(stacked.at)(jnp.float32(5))
    assert jax.tree.map(lambda x: x.shape, state.obs) == jax.tree.map(
        lambda x: x.shape, stacked.observation_spec
    )
    np.testing.assert_array_equal(state.obs["eyes"]["left"][0, 0], [5, 5, 5])
    after = stacked.step(state, jnp.ones(1))
    np.testing.assert_array_equal(after.obs["eyes"]["left"][0, 0], [5, 5, 6])
    # A picture for a film is one picture.
    assert stacked.draw(state.data).shape == (4, 4, 3)
    assert copy.copy(stacked).number == 3


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
    blind = types.SimpleNamespace(observation_spec={"legs": {"left": jnp.ones(3)}})
    with pytest.raises(ValueError, match="no image to stack among legs.left;"):
        FrameStack(blind, 2)
