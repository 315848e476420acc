"""The Nature CNN against the same network written with `nn.Conv`, and its bounds."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders import NatureCNN, make_encoder
from encoders.nature_cnn import field_size, output_size


class Plain(nn.Module):
    features: int = 16

    @nn.compact
    def __call__(self, x):
        x = x.astype(jnp.float32) / 255
        for filters, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = nn.relu(nn.Conv(filters, (size, size), (stride, stride), "VALID")(x))
        return nn.relu(nn.Dense(self.features)(x.reshape(x.shape[0], -1)))


def images(*shape):
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture(scope="module")
def small():
    """A network with parameters for 36x36x3, the smallest image."""
    network = NatureCNN()
    return network, jax.jit(network.init)(jax.random.key(0), images(36, 36, 3))


@pytest.mark.parametrize("shape", [(4, 64, 64, 3), (2, 45, 71, 4), (1, 240, 320, 3)])
def test_equals_plain_convolutions(shape):
    x = images(*shape)
    ours, plain = NatureCNN(), Plain()
    params = jax.jit(plain.init)(jax.random.key(1), x)
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(shape[0], 16)), jnp.float32)

    def value_and_gradient(network):
        def loss(p):
            features = network.apply(p, x)
            return jnp.sum(weights * features), features

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    ((_, got), got_gradient) = value_and_gradient(ours)
    ((_, expected), gradient) = value_and_gradient(plain)
    assert float(expected.max()) > 0
    np.testing.assert_allclose(got, expected, atol=1e-5 * float(expected.max()))
    for a, b in zip(jax.tree.leaves(got_gradient), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * float(jnp.abs(b).max()) + 1e-7)


def test_parameters():
    params = jax.jit(NatureCNN(features=20).init)(jax.random.key(0), images(64, 64, 3))["params"]
    assert jax.tree.map(jnp.shape, params) == {
        "Conv_0": {"kernel": (8, 8, 3, 32), "bias": (32,)},
        "Conv_1": {"kernel": (4, 4, 32, 64), "bias": (64,)},
        "Conv_2": {"kernel": (3, 3, 64, 64), "bias": (64,)},
        "Dense_0": {"kernel": (1024, 20), "bias": (20,)},
    }
    # Orthogonal with gain sqrt(2): columns of length sqrt(2), at right angles.
    kernel = params["Conv_0"]["kernel"].reshape(-1, 32)
    np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(32), atol=1e-5)
    assert all(not np.any(layer["bias"]) for layer in params.values())


@pytest.mark.parametrize("leading", [(), (3,), (1, 3, 2), (0,)])
def test_any_leading_axes(small, leading):
    x = images(*leading, 36, 38, 3)
    network, params = small
    got = jax.jit(network.apply)(params, x)
    assert got.shape == (*leading, 16) and got.dtype == jnp.float32
    flat = jax.jit(network.apply)(params, x.reshape(math.prod(leading), 36, 38, 3))
    np.testing.assert_allclose(got.reshape(-1, 16), flat, atol=1e-5)


def test_vmap_and_scan_agree_with_the_batch(small):
    x = images(4, 36, 36, 3)
    network, params = small
    batch = jax.jit(network.apply)(params, x)
    one = jax.jit(jax.vmap(network.apply, in_axes=(None, 0)))(params, x)
    _, scanned = jax.lax.scan(lambda c, image: (c, network.apply(params, image)), None, x)
    np.testing.assert_allclose(one, batch, atol=1e-5)
    np.testing.assert_allclose(scanned, batch, atol=1e-5)


def test_pixels_are_scaled_once(small):
    x = images(2, 36, 36, 3)
    network, params = small
    scaled = jax.jit(network.apply)(params, x.astype(jnp.float32) / 255)
    np.testing.assert_allclose(jax.jit(network.apply)(params, x), scaled, atol=1e-6)


def test_samples_do_not_mix(small):
    x = images(3, 36, 36, 3)
    network, params = small
    apply = jax.jit(network.apply)
    changed = apply(params, x.at[1].set(255 - x[1])) != apply(params, x)
    assert changed.any(axis=-1).tolist() == [False, True, False]


@given(st.integers(36, 2000))
def test_field_holds_the_whole_windows_and_no_more(pixels):
    positions = output_size(pixels)
    assert field_size(positions) <= pixels < field_size(positions + 1)


def test_known_sizes():
    assert (field_size(1), output_size(64), field_size(4), output_size(84)) == (36, 4, 60, 7)


def test_too_small_an_image():
    with pytest.raises(ValueError, match=r"35x64.*smallest is 36x36"):
        NatureCNN().init(jax.random.key(0), images(2, 35, 64, 3))


@pytest.mark.parametrize(
    "x, message",
    [
        (jnp.zeros((27,)), "three axes"),
        (jnp.zeros((64, 64), jnp.uint8), "three axes"),
        (jnp.zeros((64, 64, 3), jnp.int32), "uint8.*int32"),
    ],
)
def test_what_is_no_image(x, message):
    with pytest.raises(ValueError, match=message):
        NatureCNN().init(jax.random.key(0), x)


def test_no_features():
    with pytest.raises(ValueError, match="features must be at least 1, got 0"):
        make_encoder("nature_cnn", features=0).init(jax.random.key(0), images(36, 36, 3))


def test_learns_to_tell_pictures_apart():
    """Gradient descent through the blocked form fits which half of the image is bright."""
    generator = np.random.default_rng(0)
    left = generator.integers(0, 2, 32)
    x = generator.integers(0, 80, (32, 36, 36, 1))
    for image, bright_left in zip(x, left, strict=True):
        image[:, slice(0, 18) if bright_left else slice(18, 36)] += 120
    x, target = jnp.asarray(x, jnp.uint8), jnp.asarray(left, jnp.float32)
    network = NatureCNN(features=4)
    params = jax.jit(network.init)(jax.random.key(0), x)

    def loss(p):
        return jnp.mean(jnp.square(network.apply(p, x).mean(-1) - target))

    @jax.jit
    def descend(p):
        def step(p, _):
            value, gradient = jax.value_and_grad(loss)(p)
            return jax.tree.map(lambda a, g: a - 0.02 * g, p, gradient), value

        return jax.lax.scan(step, p, None, 60)

    _, losses = descend(params)
    assert losses[-1] < 0.1 * losses[0]
