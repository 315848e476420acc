"""Maps of networks whose gradients are known by hand, and the film of a run."""

import sys

import imageio.v2 as imageio
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from experiments import saliency
from tests.experiments.test_players import run
from vnl_ppo.normalization import init_moments
from vnl_ppo.policy import Weights

KEY = jax.random.key(0)
IMAGE = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
SPEC = {"vision": jax.ShapeDtypeStruct(IMAGE.shape, jnp.uint8)}


class Known(nn.Module):
    """Compute the value 2 x[1, 2, 0] - 3 x[3, 4, 1] + x[0, 0, 2]^2 of pixels x from 0 to 1, and an
    action that follows x[2, 2, 2] alone."""

    @nn.compact
    def __call__(self, obs):
        x = obs["vision"]
        value = 2 * x[..., 1, 2, 0] - 3 * x[..., 3, 4, 1] + jnp.square(x[..., 0, 0, 2])
        mode = jnp.stack([x[..., 2, 2, 2], jnp.zeros_like(value)], axis=-1)
        return jnp.concatenate([mode, jnp.zeros_like(mode)], axis=-1), value


def found(of, samples, noise=0.1):
    weights = Weights({}, init_moments(SPEC))
    return np.asarray(saliency.saliency(
        Known(), weights, of, "vision", {"vision": jnp.asarray(IMAGE)}, (), KEY, samples, noise
    ))  # fmt: skip


def test_maps_are_the_gradients_by_hand():
    expected = np.zeros((4, 5))
    expected[1, 2], expected[3, 4] = 2, 3
    expected[0, 0] = 2 * (IMAGE[0, 0, 2] / 255)
    np.testing.assert_allclose(found("value", 0), expected, atol=1e-6)
    # The norm of (tanh x, 0) is tanh x.
    expected = np.zeros((4, 5))
    expected[2, 2] = 1 - np.tanh(IMAGE[2, 2, 2] / 255) ** 2
    np.testing.assert_allclose(found("action", 0), expected, atol=1e-5)


class Divides(nn.Module):
    """Divide by 255 whatever comes, as a user's encoder may."""

    @nn.compact
    def __call__(self, obs):
        logits, value = Known()({"vision": obs["vision"].astype(jnp.float32) / 255})
        return logits, value


class Rescales(nn.Module):
    """Scale bytes to 0 to 1, as this project's encoders do, and take floats as they are."""

    @nn.compact
    def __call__(self, obs):
        x = obs["vision"]
        return Known()({"vision": x / 255 if x.dtype == jnp.uint8 else x})


class Confused(nn.Module):
    """Take floats for something else than bytes."""

    @nn.compact
    def __call__(self, obs):
        x = obs["vision"]
        return Known()({"vision": x / 255 if x.dtype == jnp.uint8 else 2 - x})


def test_white_is_what_the_network_takes_for_it():
    obs, weights = {"vision": jnp.asarray(IMAGE)}, Weights({}, init_moments(SPEC))
    white = lambda network: saliency.white_of(network, weights, "vision", obs, ())
    assert white(Rescales()) == 1 and white(Divides()) == 255
    with pytest.raises(ValueError, match="encoder of vision makes other features of floats"):
        white(Confused())
    # The map is that of pixels from 0 to 1, whatever the network takes.
    maps = [
        saliency.saliency(network, weights, "value", "vision", obs, (), KEY, 0, 0.1, white(network))
        for network in (Rescales(), Divides())
    ]
    np.testing.assert_allclose(*maps, rtol=1e-5)


def test_noise_averages_the_gradient():
    # Of x^2 the mean gradient is still 2 x, and what is linear does not change.
    smooth, plain = found("value", 4000, 0.5), found("value", 0)
    np.testing.assert_allclose(smooth, plain, atol=0.05)
    assert smooth[0, 0] != plain[0, 0]


def test_a_map_is_painted_in_red_on_the_newest_image():
    image = np.concatenate([np.zeros((2, 2, 3)), np.full((2, 2, 3), 100)], -1).astype(np.uint8)
    found = saliency.painted(image, np.array([[0, 1], [0.5, 7]]), 32)
    assert found.shape == (32, 32, 3) and found.dtype == np.uint8
    assert found[0, 0].tolist() == [100, 100, 100] and found[0, 16].tolist() == [255, 0, 0]
    assert found[16, 0].tolist() == [178, 50, 50] and found[31, 31].tolist() == [255, 0, 0]


@pytest.mark.slow
def test_the_film_of_a_run(tmp_path, monkeypatch):
    flags = "--env walls_ball --vision.height 36 --vision.width 36 --frames 2 --network.memory 4"
    folder = run(tmp_path / "mine", flags)
    film = tmp_path / "film.gif"
    call(monkeypatch, folder, "--seconds", 0.2, "--samples", 2, "--output", film, "--size", 64, 96)
    assert imageio.mimread(film)[0].shape[:2] == (64, 96 + 64)
    with pytest.raises(SystemExit, match="film.gif exists"):
        call(monkeypatch, folder, "--output", film)
    with pytest.raises(SystemExit, match="--leaf is 'proprio', which is no image; there are vis"):
        call(monkeypatch, folder, "--leaf", "proprio")
    with pytest.raises(SystemExit, match="name one run, without lesions"):
        call(monkeypatch, folder, "random")
    blind = run(tmp_path / "blind", "--env walls_ball --encoder none")
    with pytest.raises(SystemExit, match="the policy is blind: its observation has proprio"):
        call(monkeypatch, blind)


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["saliency", *map(str, arguments)])
    saliency.main()
