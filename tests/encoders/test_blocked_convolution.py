"""The blocked convolution is XLA's, value and derivative, wherever it claims to be."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax

from encoders import convolve
from encoders.blocked_convolution import MANY

NHWC = ("NHWC", "HWIO", "NHWC")


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def both(image, kernel, stride, **options):
    options = {"dimension_numbers": NHWC, **options}
    padding = options.pop("padding", "VALID")
    arguments = (image, kernel, (stride, stride), padding)
    return convolve(*arguments, **options), lax.conv_general_dilated(*arguments, **options)


def test_known_value():
    image = jnp.arange(16.0).reshape(1, 4, 4, 1)
    kernel = jnp.asarray([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)
    got = convolve(image, kernel, (2, 2), "VALID", dimension_numbers=NHWC)
    # First window 0 1 / 4 5: 0 + 2 + 12 + 20.
    np.testing.assert_allclose(got[0, :, :, 0], [[34, 54], [114, 134]])


@settings(max_examples=8, deadline=None)
@given(
    batch=st.integers(1, 3),
    stride=st.integers(1, 4),
    blocks=st.integers(1, 3),
    extra=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    channels=st.integers(1, 4),
    filters=st.integers(1, 5),
)
@example(batch=2, stride=1, blocks=3, extra=(4, 2), channels=MANY, filters=5)
def test_value_and_gradients_equal_xla(batch, stride, blocks, extra, channels, filters):
    size = stride * blocks
    image = normal(0, batch, size + extra[0], size + extra[1], channels)
    kernel = normal(1, size, size, channels, filters)

    rows, columns = (n // stride + 1 for n in extra)
    weights = normal(2, batch, rows, columns, filters)

    def run(convolution):
        def f(x, k):
            return convolution(x, k, (stride, stride), "VALID", dimension_numbers=NHWC)

        value, pullback = jax.vjp(f, image, kernel)
        return f(image, kernel), value, *pullback(weights)

    run = jax.jit(run, static_argnums=0)
    for got, expected in zip(run(convolve), run(lax.conv_general_dilated), strict=True):
        scale = max(1.0, float(jnp.abs(expected).max()))
        np.testing.assert_allclose(got, expected, atol=2e-6 * scale)


@pytest.mark.parametrize(
    "stride, size, options",
    [
        (2, 3, {}),
        (1, 3, {"padding": "SAME"}),
        (1, 3, {"padding": [(2, 0), (1, 1)]}),
        (1, 2, {"rhs_dilation": (2, 2)}),
        (1, 2, {"lhs_dilation": (2, 1), "padding": [(0, 0), (0, 0)]}),
    ],
)
def test_what_blocks_do_not_cover_goes_to_xla(stride, size, options):
    got, expected = both(normal(0, 2, 9, 8, 3), normal(1, size, size, 3, 4), stride, **options)
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)


def test_groups_go_to_xla():
    got, expected = both(normal(0, 2, 9, 8, 4), normal(1, 2, 2, 2, 6), 1, feature_group_count=2)
    np.testing.assert_array_equal(got, expected)


def test_other_layouts_go_to_xla():
    numbers = ("NCHW", "HWIO", "NCHW")
    got, expected = both(normal(0, 2, 3, 9, 8), normal(1, 2, 2, 3, 4), 1, dimension_numbers=numbers)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("platform, convolutions", [("cpu", False), ("cuda", True), ("tpu", True)])
def test_blocks_on_cpu_only(platform, convolutions):
    def loss(image, kernel):
        return convolve(image, kernel, (4, 4), "VALID", dimension_numbers=NHWC).sum()

    traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(
        jnp.zeros((2, 16, 16, 3)), jnp.zeros((8, 8, 3, 4))
    )
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" in text) == convolutions
    assert ("stablehlo.dot_general" in text) != convolutions


def test_a_layer_keeps_its_parameters():
    image = normal(0, 2, 11, 10, 3)
    ours = nn.Conv(5, (4, 4), (2, 2), "VALID", conv_general_dilated=convolve)
    plain = nn.Conv(5, (4, 4), (2, 2), "VALID")
    params = plain.init(jax.random.key(0), image)
    jax.tree.map(np.testing.assert_array_equal, params, ours.init(jax.random.key(0), image))
    np.testing.assert_allclose(ours.apply(params, image), plain.apply(params, image), atol=1e-5)


@pytest.mark.parametrize("channels", [MANY - 1, MANY])
@pytest.mark.parametrize("kernels", [1, 3])
def test_many_channels_of_one_kernel_are_xlas(channels, kernels):
    """XLA is slow with few channels, and with a kernel for each agent."""

    def run(image, kernel):
        return convolve(image, kernel, (1, 1), "VALID", dimension_numbers=NHWC)

    images, several = normal(0, 3, 2, 9, 8, channels), normal(1, 3, 3, 3, channels, 4)
    axes = (0, 0 if kernels > 1 else None)
    batched = jax.jit(jax.vmap(run, axes))
    given = images, several if kernels > 1 else several[0]
    text = batched.lower(*given).as_text()
    assert ("stablehlo.convolution" in text) == (channels == MANY and kernels == 1)
    for i, features in enumerate(batched(*given)):
        kernel = several[i if kernels > 1 else 0]
        expected = both(images[i], kernel, 1)[1]
        np.testing.assert_allclose(features, expected, atol=1e-4)


def test_under_vmap_with_a_kernel_each():
    images, kernels = normal(0, 3, 2, 9, 9, 2), normal(1, 3, 3, 3, 2, 4)

    def run(convolution):
        def f(x, k):
            return convolution(x, k, (1, 1), "VALID", dimension_numbers=NHWC)

        return jax.jit(jax.vmap(f))(images, kernels)

    np.testing.assert_allclose(run(convolve), run(lax.conv_general_dilated), atol=1e-5)
