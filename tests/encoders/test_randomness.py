"""Noise and dropout: of a key for each sample, whatever the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encoders import Dropout, make_encoder, make_encoders
from encoders.chain import Chain, RandomChain
from encoders.randomness import draw, fold_in, takes_key
from encoders.stages import Noise

KEYS = jax.random.split(jax.random.key(0), (2, 3))


def test_each_sample_draws_from_its_own_key():
    x = draw(jax.random.normal, KEYS, (2, 3, 4))
    np.testing.assert_array_equal(x[1, 2], jax.random.normal(KEYS[1, 2], (4,)))
    folded = fold_in(KEYS, 7)
    assert folded.shape == (2, 3) and folded[1, 2] == jax.random.fold_in(KEYS[1, 2], 7)


def test_noise_has_its_standard_deviation_and_is_clipped():
    gray = jnp.full((2, 3, 40, 50, 3), 0.5)
    noisy = np.asarray(Noise(0.1).apply({}, gray, KEYS))
    assert abs(noisy.mean() - 0.5) < 1e-3 and abs(noisy.std() - 0.1) < 1e-3
    one = Noise(0.1).apply({}, gray[1, 2], KEYS[1, 2])
    np.testing.assert_array_equal(noisy[1, 2], one)
    assert (noisy[0, 0] != noisy[0, 1]).any()
    bytes_ = jnp.full((2, 3, 8, 8, 1), 255, jnp.uint8)
    noisy = Noise(0.3).apply({}, bytes_, KEYS)
    assert noisy.dtype == jnp.float32 and noisy.max() == 1 and noisy.min() < 1
    np.testing.assert_array_equal(Noise(0.3).apply({}, bytes_), jnp.ones(bytes_.shape))


def test_dropout_drops_its_share_and_keeps_the_mean():
    x = jnp.ones((2, 3, 5000))
    dropped = np.asarray(Dropout(0.2).apply({}, x, KEYS))
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.8)}
    assert abs((dropped == 0).mean() - 0.2) < 0.01
    np.testing.assert_array_equal(Dropout(0.2).apply({}, x), x)


def test_a_chain_gives_each_random_stage_numbers_of_its_own():
    chain = make_encoder("noise(std=0.1) | noise(std=0.1) | dropout(rate=0.5) | flatten")
    assert type(chain) is RandomChain and takes_key(chain)
    assert type(make_encoder("gray | flatten")) is Chain
    gray = jnp.full((2, 3, 20, 20, 1), 0.5)
    by_hand = gray
    for number in range(2):
        by_hand = Noise(0.1).apply({}, by_hand, fold_in(KEYS, number))
    by_hand = Dropout(0.5).apply({}, by_hand, fold_in(KEYS, 2)).reshape(2, 3, -1)
    np.testing.assert_array_equal(chain.apply({}, gray, KEYS), by_hand)
    # Without keys nothing is drawn.
    np.testing.assert_array_equal(chain.apply({}, gray), gray.reshape(2, 3, -1))


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("noise(std=-1) | flatten", "character 1: noise: std is -1"),
        ("flatten | dropout(rate=1)", "character 11: dropout: rate is 1; .* below 1"),
    ],
)
def test_what_is_out_of_range_is_told(spec, why):
    leaves = {"eye": jax.ShapeDtypeStruct((8, 8, 3), jnp.uint8)}
    with pytest.raises(ValueError, match=why):
        make_encoders(spec, leaves)
