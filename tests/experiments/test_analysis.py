"""Analyses of codes that are known by hand, and against other implementations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from experiments.analysis.decoding import decode, mismatched
from experiments.analysis.dimensions import participation_ratio
from experiments.analysis.similarity import cka

EPISODES, STEPS = 20, 50
NAMES = np.repeat(np.arange(EPISODES), STEPS)
RANDOM = np.random.default_rng(0)
# A distance that shrinks in each episode from another start, and a second variable.
DISTANCE = (RANDOM.uniform(2, 5, (EPISODES, 1)) - 0.03 * np.arange(STEPS)).ravel()
OFFSET = np.repeat(RANDOM.uniform(-1, 1, EPISODES), STEPS) + RANDOM.normal(0, 0.1, len(NAMES))
VARIABLES = np.stack([DISTANCE, OFFSET], axis=-1)
NOISE = RANDOM.normal(size=(len(NAMES), 8))
ROTATION = np.linalg.qr(RANDOM.normal(size=(10, 10)))[0]


def test_a_unit_that_is_the_variable_is_read_exactly():
    scores = decode(np.column_stack([NOISE, DISTANCE]), VARIABLES[:, :1], NAMES)
    assert scores.shape == (5, 1) and (scores > 0.999).all()


def test_a_rotated_code_is_read_as_well():
    code = np.column_stack([NOISE, VARIABLES]) @ ROTATION
    assert (decode(code, VARIABLES, NAMES) > 0.999).all()


def test_a_noisy_code_is_read_as_far_as_theory_says():
    # Of y + e, with variances of 1 and 1, the best linear reader explains half.
    y = RANDOM.normal(size=(4000, 1))
    scores = decode(y + RANDOM.normal(size=y.shape), y, np.arange(4000) // 100)
    assert abs(scores.mean() - 0.5) < 0.03


def test_nothing_is_read_from_noise_or_from_another_episode():
    assert decode(NOISE, VARIABLES, NAMES).max() < 0.05
    # Without folds by episode, 50 units that name the episode would read its offset.
    named = np.eye(EPISODES)[NAMES]
    assert decode(named, VARIABLES[:, 1:], NAMES).max() < 0.05


def test_the_control_does_not_exceed_chance():
    above = 0
    for seed in range(20):
        shuffled = VARIABLES[mismatched(NAMES, seed), 1:]
        above += decode(VARIABLES[:, 1:], shuffled, NAMES).mean() > 0.05
    assert above <= 1


def test_the_control_takes_each_sample_from_another_episode():
    chosen = mismatched(NAMES)
    assert (NAMES[chosen] != NAMES).all()
    assert sorted(chosen) == list(range(len(NAMES)))
    # The order of time stays.
    assert (chosen % STEPS == np.arange(len(NAMES)) % STEPS).all()


def test_what_cannot_be_decoded_is_refused():
    with pytest.raises(ValueError, match="there are 2 episodes; 5 folds need"):
        decode(NOISE[:100], VARIABLES[:100], NAMES[:100])
    with pytest.raises(ValueError, match="activity has numbers that are not finite"):
        decode(np.where(NOISE > 3, np.nan, NOISE), VARIABLES, NAMES)
    constant = np.ones((len(NAMES), 1))
    assert np.isnan(decode(NOISE, constant, NAMES)).all()


@given(seed=st.integers(0, 1000), units=st.integers(2, 12))
@settings(max_examples=20, deadline=None)
def test_dimensions_agree_with_the_eigenvalues_of_pca(seed, units):
    random = np.random.default_rng(seed)
    x = random.normal(size=(40, units)) * random.uniform(0.1, 3, units)
    values = PCA().fit(x).explained_variance_
    expected = values.sum() ** 2 / np.square(values).sum()
    np.testing.assert_allclose(participation_ratio(x), expected, rtol=1e-6)


def test_dimensions_by_hand():
    line = np.outer(np.arange(9.0), np.ones(5))
    assert participation_ratio(line) == pytest.approx(1)
    assert participation_ratio(np.vstack([np.eye(4), -np.eye(4)])) == pytest.approx(4)
    assert participation_ratio(np.ones((5, 3))) == 0


def test_similarity_is_blind_to_rotation_and_scale_and_to_nothing_else():
    x = RANDOM.normal(size=(60, 10))
    assert cka(x, 3 * x @ ROTATION) == pytest.approx(1)
    assert cka(x, x * np.linspace(0.01, 1, 10)) < 0.95


@pytest.mark.parametrize("samples", [10, 40, 160])
def test_similarity_of_independent_representations_is_zero_on_average(samples):
    draws = [
        cka(RANDOM.normal(size=(samples, 30)), RANDOM.normal(size=(samples, 30)))
        for _ in range(200)
    ]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(200)


def test_similarity_agrees_with_a_sum_over_all_quadruples():
    # Song et al. 2012, equation 4: the U-statistic itself.
    n = 7
    x, y = RANDOM.normal(size=(n, 3)), RANDOM.normal(size=(n, 4)) + 0.3

    def hsic(a, b):
        k, m, total = a @ a.T, b @ b.T, []
        for i in range(n):
            for j in range(n):
                for q in range(n):
                    for r in range(n):
                        if len({i, j, q, r}) == 4:
                            total.append(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]))
        return np.mean(total)

    expected = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))
    assert cka(x, y) == pytest.approx(expected)
