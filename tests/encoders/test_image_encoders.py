"""All encoders of images: shapes, sizes, what they share, and the same networks of plain layers."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encoders import make_encoder, make_encoders

SMALLEST = {
    "impala": 1,
    "alexnet": 1,
    "resnet": 1,
    "vit": 8,
    "nature_cnn(padding=SAME, activation=elu)": 1,
    "nature_cnn": 36,
}
SHALLOW = {
    "impala": "impala(channels=(4,), features=5)",
    "alexnet": "alexnet(features=5)",
    "resnet": "resnet(channels=(8,), features=5)",
    "vit": "vit(depth=1, features=5)",
    "nature_cnn": "nature_cnn(padding=SAME, activation=elu, features=5)",
}
"""Specs with as few layers as have all their parts, since compiling takes most of the time."""


def images(*shape):
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def drawn(module, x):
    """Parameters drawn with NumPy: to compile orthogonal kernels takes longer than all else."""
    generator = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(
        generator.normal(size=leaf.shape) / math.sqrt(math.prod(leaf.shape[:-1])), jnp.float32
    )
    return jax.tree.map(draw, jax.eval_shape(module.init, jax.random.key(0), x))


@pytest.mark.parametrize("name", SHALLOW)
def test_samples_do_not_mix_and_every_parameter_learns(name):
    module, x = make_encoder(SHALLOW[name]), images(3, 18, 20, 2)
    params = drawn(module, x)

    @jax.jit
    def features_and_gradient(params, x):
        def loss(params):
            y = module.apply(params, x)
            return jnp.square(y - 1).sum(), y

        return jax.grad(loss, has_aux=True)(params)

    gradient, y = features_and_gradient(params, x)
    assert y.shape == (3, 5) and y.dtype == jnp.float32 and np.ptp(y, axis=0).max() > 0
    _, other = features_and_gradient(params, x.at[1].set(255 - x[1]))
    assert (other != y).any(axis=-1).tolist() == [False, True, False]
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        # A softmax does not depend on what is added to all its arguments.
        assert np.abs(leaf).max() > 0 or "key" in str(path), path


@pytest.mark.parametrize("name", SHALLOW)
def test_shapes_for_all_leading_axes(name):
    module, size = make_encoder(SHALLOW[name]), (18, 20, 2)
    params = jax.eval_shape(module.init, jax.random.key(0), images(*size))
    shape = lambda *leading: (
        jax.eval_shape(
            module.apply, params, jax.ShapeDtypeStruct((*leading, *size), jnp.uint8)
        ).shape
    )
    assert [shape(), shape(0), shape(2, 3), shape(200)] == [(5,), (0, 5), (2, 3, 5), (200, 5)]


def test_leading_axes_batches_and_floats():
    module, x = make_encoder("vit(depth=1, features=5)"), images(40, 9, 8, 1)
    params = drawn(module, x)
    apply = jax.jit(module.apply)
    y = apply(params, x)  # two batches, on a CPU
    np.testing.assert_allclose(apply(params, x[:4]), y[:4], atol=1e-5)
    np.testing.assert_allclose(
        apply(params, x[:4].reshape(2, 2, 9, 8, 1)).reshape(4, 5), y[:4], atol=1e-5
    )
    np.testing.assert_allclose(apply(params, x[:4] / 255), y[:4], atol=1e-5)


@pytest.mark.parametrize("spec", SMALLEST)
def test_sizes_from_the_smallest_to_240x320(spec):
    n = SMALLEST[spec]
    for shape in [(n, n, 1), (n, n + 3, 9), (240, 320, 3)]:
        assert set(make_encoders(spec, {"eye": jax.ShapeDtypeStruct(shape, jnp.uint8)})) == {"eye"}
    too_small = {"eye": jax.ShapeDtypeStruct((n - 1, 50, 3), jnp.uint8)}
    with pytest.raises(ValueError, match=rf"character 1: .*an image of {n - 1}x50 pixels is"):
        make_encoders(spec, too_small)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        *((f"{name}(features=0)", "features must be at least 1") for name in ("impala", "alexnet")),
        *((f"{name}(features=-1)", "features must be at least 1") for name in ("resnet", "vit")),
        ("impala(channels=())", "channels is \\(\\)"),
        ("resnet(channels=(12,))", "each must be a multiple of groups, 8"),
        ("resnet(groups=0)", "groups is 0"),
        ("vit(heads=3)", "width is 64; it must be a multiple of heads, 3"),
        ("vit(patch=0)", "patch is 0"),
        ("nature_cnn(padding=same)", "padding is 'same'; it has to be 'VALID' or 'SAME'"),
        ("nature_cnn(activation=sine)", "unknown activation 'sine'.*silu"),
    ],
)
def test_what_is_out_of_range_is_told(spec, why):
    with pytest.raises(ValueError, match=f"character 1: .*{why}"):
        make_encoders(spec, {"eye": jax.ShapeDtypeStruct((64, 64, 3), jnp.uint8)})


@pytest.mark.parametrize(
    "x, message",
    [(jnp.zeros((64, 64), jnp.uint8), "three axes"), (jnp.zeros((64, 64, 3), jnp.int32), "int32")],
)
@pytest.mark.parametrize("name", ["impala", "alexnet", "resnet", "vit"])
def test_what_is_no_image(name, x, message):
    with pytest.raises(ValueError, match=message):
        make_encoder(name).init(jax.random.key(0), x)


class PlainImpala(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x / 255
        for filters in (4, 6):
            x = nn.Conv(filters, (3, 3))(x)
            x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
            for _ in range(2):
                y = nn.Conv(filters, (3, 3))(nn.relu(x))
                x = x + nn.Conv(filters, (3, 3))(nn.relu(y))
        return nn.relu(nn.Dense(5)(nn.relu(x).reshape(len(x), -1)))


class PlainAlexNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        pool = lambda x: nn.max_pool(x, (3, 3), (2, 2), "SAME")
        x = pool(nn.relu(nn.Conv(24, (6, 6), (2, 2))(x / 255)))
        x = pool(nn.relu(nn.Conv(64, (5, 5))(x)))
        x = nn.relu(nn.Conv(96, (3, 3))(x))
        x = nn.relu(nn.Conv(96, (3, 3))(x))
        x = pool(nn.relu(nn.Conv(64, (3, 3))(x)))
        return nn.relu(nn.Dense(5)(x.reshape(len(x), -1)))


class PlainNature(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x / 255
        for filters, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = nn.elu(nn.Conv(filters, (size, size), (stride, stride), "SAME")(x))
        return nn.elu(nn.Dense(5)(x.reshape(len(x), -1)))


class PlainResNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (4, 4), (2, 2), name="Conv_0")(x / 255)
        norm = lambda x: nn.relu(nn.GroupNorm(8)(x))
        for i, filters in enumerate((8, 16)):
            conv = lambda k, *args, i=i, f=filters: nn.Conv(f, *args, name=f"Conv_{3 * i + k}")
            before = norm(x)
            shortcut = conv(1, (1, 1))(nn.avg_pool(before, (2, 2), (2, 2)))
            y = norm(conv(2, (4, 4), (2, 2))(before))
            x = shortcut + conv(3, (3, 3))(y)
        return nn.relu(nn.Dense(5)(norm(x).reshape(len(x), -1)))


@pytest.mark.parametrize(
    ("spec", "plain"),
    [
        ("impala(channels=(4, 6))", PlainImpala),
        ("alexnet", PlainAlexNet),
        ("nature_cnn(padding=SAME, activation=elu)", PlainNature),
        ("resnet(channels=(8, 16))", PlainResNet),
    ],
)
def test_equals_the_same_network_of_plain_layers(spec, plain):
    x = images(2, 32, 48, 3)
    module = make_encoder(spec, features=5)
    params = drawn(module, x)
    expected = jax.jit(plain().apply)(params, x)
    assert float(expected.max()) > 0
    np.testing.assert_allclose(jax.jit(module.apply)(params, x), expected, atol=1e-4)


def test_the_transformer_knows_where_things_are():
    module = make_encoder("vit(depth=1)")
    x = images(1, 32, 32, 3)
    params = drawn(module, x)
    assert params["params"]["position"].shape == (1, 16, 64)
    assert params["params"]["Conv_0"]["kernel"].shape == (8, 8, 3, 64)
    moved = jnp.roll(x, 8, axis=1)
    apply = jax.jit(module.apply)
    assert np.abs(apply(params, moved) - apply(params, x)).max() > 1e-5
    still = {"params": {**params["params"], "position": jnp.zeros((1, 16, 64))}}
    np.testing.assert_allclose(apply(still, moved), apply(still, x), atol=1e-5)


def test_orthogonal_kernels():
    params = jax.jit(make_encoder("impala(channels=(16,))").init)(
        jax.random.key(0), images(8, 8, 3)
    )
    params = params["params"]
    # The first convolution of a block, and the second, of which there are two.
    for name, gain in (("Conv_0", math.sqrt(2)), ("Conv_2", 1)):
        kernel = params[name]["kernel"].reshape(-1, 16)
        np.testing.assert_allclose(kernel.T @ kernel, gain**2 * np.eye(16), atol=1e-5)
