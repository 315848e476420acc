"""`mlp` and `identity`: what they compute, and what they refuse."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encoders import MLP, Identity, make_encoder

KEY = jax.random.key(0)


def test_mlp_by_hand():
    params = {
        "Dense_0": {"kernel": jnp.asarray([[1.0, -1.0], [2.0, 0.0]]), "bias": jnp.zeros(2)},
        "Dense_1": {"kernel": jnp.asarray([[2.0], [5.0]]), "bias": jnp.asarray([-1.0])},
    }
    # relu([1 + 6, -1]) = [7, 0]; relu(14 - 1) = 13.
    got = MLP((2, 1)).apply({"params": params}, jnp.asarray([1.0, 3.0]))
    np.testing.assert_allclose(got, [13.0])


@pytest.mark.parametrize("leading", [(), (5,), (2, 5)])
def test_mlp_keeps_leading_axes(leading):
    encoder = make_encoder("mlp", hidden_layer_sizes=(8, 3), activation=nn.tanh)
    features, _ = encoder.init_with_output(KEY, jnp.ones((*leading, 27)))
    assert features.shape == (*leading, 3)
    assert features.dtype == jnp.float32


def test_mlp_flattens_scaled_images():
    image = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8))
    features, params = MLP((6,)).init_with_output(KEY, image)
    assert params["params"]["Dense_0"]["kernel"].shape == (60, 6)
    vectors = image.reshape(2, 60).astype(jnp.float32) / 255
    np.testing.assert_allclose(features, MLP((6,)).apply(params, vectors), atol=1e-6)


@pytest.mark.parametrize("sizes", [(), (8, 0)])
def test_mlp_without_layers(sizes):
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        MLP(sizes).init(KEY, jnp.ones(3))


@pytest.mark.parametrize("x", [jnp.ones(3, jnp.int32), jnp.float32(1)])
def test_mlp_refuses_what_is_no_vector(x):
    with pytest.raises(ValueError, match="float vector"):
        MLP().init(KEY, x)


def test_identity_passes_vectors():
    x = jnp.asarray([[1.5, -2.0]], jnp.float16)
    got = Identity().apply({}, x)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, [[1.5, -2.0]])


@pytest.mark.parametrize(
    "x, message",
    [
        (jnp.zeros((64, 64, 3), jnp.uint8), "nature_cnn"),
        (jnp.zeros(3, jnp.int32), "float vector"),
        (jnp.float32(1), "float vector"),
    ],
)
def test_identity_refuses(x, message):
    with pytest.raises(ValueError, match=message):
        Identity().apply({}, x)
