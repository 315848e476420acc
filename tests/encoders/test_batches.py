"""Samples in small batches give what they give all at once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encoders import NatureCNN, in_batches
from encoders.batches import images_of


class Doubling(nn.Module):
    size: int

    @nn.compact
    def __call__(self, x):
        return in_batches(lambda module, x: 2 * nn.Dense(3)(x), self, x, self.size)


def test_as_many_images_as_have_so_many_pixels():
    image = jnp.zeros((5, 2, 4, 6, 3))
    assert [images_of(n, image) for n in (1, 24, 47, 48, 240)] == [1, 1, 1, 2, 10]


@pytest.mark.parametrize("count", [0, 1, 4, 7, 8, 9])
def test_value_gradient_and_parameters(count):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(count, 5)), jnp.float32)
    few, all_at_once = Doubling(4), Doubling(100)
    params = all_at_once.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, params, few.init(jax.random.key(0), x))
    assert jax.tree.map(jnp.shape, params["params"]) == {
        "Dense_0": {"kernel": (5, 3), "bias": (3,)}
    }

    def value_and_gradient(module):
        def loss(p, x):
            y = module.apply(p, x)
            return jnp.square(y).sum(), y

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    got, expected = value_and_gradient(few), value_and_gradient(all_at_once)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_what_lies_between_the_layers_can_be_looked_at():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(9, 5)), jnp.float32)
    params = Doubling(4).init(jax.random.key(0), x)
    y, variables = Doubling(4).apply(params, x, capture_intermediates=True, mutable="intermediates")
    (between,) = variables["intermediates"]["Dense_0"]["__call__"]
    np.testing.assert_allclose(2 * between, y, rtol=1e-6)


def test_an_image_in_a_batch_that_does_not_divide():
    """69 images go as 35 and 34: features are each image's own, gradients the sum of all."""
    images = np.random.default_rng(0).integers(0, 256, (69, 36, 36, 3), dtype=np.uint8)
    network = NatureCNN(4)
    params = jax.jit(network.init)(jax.random.key(0), images[:1])
    gradient = jax.jit(jax.grad(lambda p, x: jnp.square(network.apply(p, x)).sum()))
    apply = jax.jit(network.apply)
    parts = [images[:40], images[40:]]
    features = np.concatenate([apply(params, x) for x in parts])
    np.testing.assert_allclose(apply(params, images), features, atol=1e-5)
    total = jax.tree.map(jnp.add, *[gradient(params, x) for x in parts])
    for got, expected in zip(
        jax.tree.leaves(gradient(params, images)), jax.tree.leaves(total), strict=True
    ):
        np.testing.assert_allclose(got, expected, atol=2e-5 * float(jnp.abs(expected).max()) + 1e-7)
