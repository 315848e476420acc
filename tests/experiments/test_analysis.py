"""Analyses of codes that are known by hand, and against other implementations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, spatial, stats
from sklearn.decomposition import PCA

from experiments.analysis.decoding import classify, decode, is_binary, mismatched
from experiments.analysis.dimensions import participation_ratio, principal_components
from experiments.analysis.episodes import over_episodes
from experiments.analysis.shares import over_runs
from experiments.analysis.similarity import cka, procrustes, rsa
from experiments.analysis.triggered import rises, triggered_average, whole
from experiments.analysis.tuning import (
    bins_of,
    find_selective,
    permutations_of,
    selectivity,
    tuning_curves,
)

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


def test_a_variable_that_is_constant_in_each_episode_is_scored_all_the_same():
    # Read with an error whose variance is 0.01 of 1: R^2 is 0.99, though nothing varies in a fold.
    height = np.repeat(np.tile([-1.0, 1.0], EPISODES // 2), STEPS)
    x = height + RANDOM.normal(0, 0.1, len(NAMES))
    scores = decode(x[:, None], height[:, None], NAMES, EPISODES)
    assert scores.shape == (EPISODES, 1) and scores.mean() == pytest.approx(0.99, abs=0.002)


def test_a_unit_that_is_almost_always_silent_ruins_nothing():
    rare = np.zeros(len(NAMES))
    rare[::STEPS] = 1e-3 * RANDOM.normal(size=EPISODES)
    rare[-1] = 5
    scores = decode(np.column_stack([DISTANCE, rare]), VARIABLES[:, :1], NAMES)
    assert (scores > 0.99).all()


def test_nothing_is_read_from_noise_or_from_another_episode():
    assert decode(NOISE, VARIABLES, NAMES).max() < 0.05
    # Without folds by episode, 50 units that name the episode would read its offset.
    named = np.eye(EPISODES)[NAMES]
    assert decode(named, VARIABLES[:, 1:], NAMES).max() < 0.05


def test_the_control_does_not_exceed_chance():
    # Twenty episodes are few: single scores vary, and their interval says so.
    scores = []
    for seed in range(100):
        offset = np.random.default_rng(seed).uniform(-1, 1, EPISODES)
        code = (np.repeat(offset, 10) + np.random.default_rng(seed).normal(0, 0.1, 200))[:, None]
        names = np.repeat(np.arange(EPISODES), 10)
        scores.append(over_runs(decode(code, code[mismatched(names, seed)], names)[:, 0]))
    assert np.mean([x.mean for x in scores]) < 0
    assert sum(x.low > 0 for x in scores) <= 5


def test_the_control_takes_each_sample_from_another_episode():
    chosen = mismatched(NAMES)
    assert (NAMES[chosen] != NAMES).all()
    assert sorted(chosen) == list(range(len(NAMES)))
    # The order of time stays.
    assert (chosen % STEPS == np.arange(len(NAMES)) % STEPS).all()


def test_the_control_is_of_the_same_time_where_episodes_differ_in_length():
    lengths = (3, 12, 9, 12)
    names = np.repeat(np.arange(4), lengths)
    times = np.concatenate([np.arange(n) for n in lengths])
    for seed in range(10):
        chosen = mismatched(names, seed, times)
        assert (names[chosen] != names).all() and (times[chosen] == times).all()
    # The longest alone has nothing of its time at its end: that of the last of another.
    names, times = np.repeat([0, 1], (2, 4)), np.array([0, 5, 0, 5, 10, 15])
    assert mismatched(names, 0, times).tolist() == [2, 3, 0, 1, 1, 1]


def test_of_few_episodes_each_permutation_is_there_once():
    for number, permutations in ((2, 1), (4, 6), (5, 24), (7, 500)):
        found = permutations_of(np.arange(number))
        assert found.shape == (permutations, number)
        assert number == 7 or len(np.unique(found, axis=0)) == permutations
    # So few that nothing can be found among them.
    units = np.random.default_rng(0).normal(size=(40, 200))
    variable, names = np.arange(40.0), np.repeat(np.arange(4), 10)
    found = find_selective(units, variable, permutations_of(names))
    assert found.p.min() >= 1 / 7 and not found.selective.any()


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
    stretched = x * np.linspace(0.01, 1, 10)
    layers = [x, 3 * x @ ROTATION, stretched, np.column_stack([x + 7, np.ones((60, 20))])]
    for measure, same in ((cka, 1), (rsa, 1), (procrustes, 0)):
        found = measure(layers)
        np.testing.assert_allclose(found, found.T, atol=1e-6)
        np.testing.assert_allclose(found[0, [0, 1, 3]], same, atol=1e-6, err_msg=str(measure))
        assert abs(found[0, 2] - same) > 0.05, measure


def test_a_constant_representation_is_like_nothing():
    x = RANDOM.normal(size=(20, 3))
    for measure in (cka, rsa, procrustes):
        found = measure([x, np.full((20, 2), 0.1)])
        assert np.isnan(found[0, 1]) and np.isfinite(found[0, 0]), measure


def test_the_procrustes_distance_agrees_with_scipy():
    x, y = RANDOM.normal(size=(50, 6)), RANDOM.normal(size=(50, 6))
    a, b = (z - z.mean(axis=0) for z in (x, y))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    rotation, scale = linalg.orthogonal_procrustes(b, a)
    found = procrustes([x, y])[0, 1]
    assert found == pytest.approx(np.linalg.norm(a - b @ rotation))
    # SciPy's disparity allows a scale s as well: 1 - s^2.
    assert spatial.procrustes(x, y)[2] == pytest.approx(1 - scale**2)
    assert found == pytest.approx(np.sqrt(2 - 2 * scale))
    # Of more units than samples, which are rotated into a smaller space first.
    wide = np.column_stack([x, RANDOM.normal(size=(50, 80))])
    c = wide - wide.mean(axis=0)
    c /= np.linalg.norm(c)
    padded = np.column_stack([a, np.zeros((50, 80))])
    _, scale = linalg.orthogonal_procrustes(padded, c)
    assert procrustes([x, wide])[0, 1] == pytest.approx(np.sqrt(2 - 2 * scale))


def test_similarity_of_dissimilarities_by_hand():
    # Distances of 1, 3, 2 and of 2, 3, 1: ranks 1 3 2 and 2 3 1, whose correlation is 1/2.
    one, two = np.array([[0.0], [1.0], [3.0]]), np.array([[0.0], [2.0], [3.0]])
    assert rsa([one, two])[0, 1] == pytest.approx(0.5)
    x, y = RANDOM.normal(size=(2, 30, 4))
    pairs = np.triu_indices(30, 1)
    distances = [np.linalg.norm(z[:, None] - z, axis=-1)[pairs] for z in (x, y)]
    assert rsa([x, y])[0, 1] == pytest.approx(stats.spearmanr(*distances).statistic)


@pytest.mark.parametrize("samples", [10, 40, 160])
def test_similarity_of_independent_representations_is_zero_on_average(samples):
    draws = [
        cka([RANDOM.normal(size=(samples, 30)), RANDOM.normal(size=(samples, 30))])[0, 1]
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
    assert cka([x, y])[0, 1] == pytest.approx(expected)


# Whether the distance is short, a binary variable.
NEAR = (np.median(DISTANCE) > DISTANCE).astype(float)


def test_a_binary_variable_is_classified_as_well_as_it_can_be():
    assert is_binary(NEAR) and not is_binary(DISTANCE) and not is_binary(np.ones(3))
    exact = classify(np.column_stack([NOISE, DISTANCE]), NEAR, NAMES)
    assert exact["auc"].min() > 0.99 and exact["balanced_accuracy"].min() > 0.95
    for control in (NEAR, NEAR[mismatched(NAMES)]):
        chance = classify(NOISE, control, NAMES)
        assert abs(chance["auc"].mean() - 0.5) < 0.08
    # Two normal distributions, d apart: the area is Phi(d / sqrt 2), the accuracy Phi(d / 2).
    labels = np.tile([0.0, 1.0], 2000)
    found = classify(
        labels[:, None] + RANDOM.normal(size=(4000, 1)), labels, np.arange(4000) // 100
    )
    assert found["auc"].mean() == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.03)
    assert found["balanced_accuracy"].mean() == pytest.approx(stats.norm.cdf(0.5), abs=0.03)


def test_folds_of_one_class_have_no_score():
    # Which one it is differs between episodes only, and 20 folds are one episode each.
    once = (NAMES % 2).astype(float)
    assert np.isnan(classify(NOISE, once, NAMES, EPISODES)["auc"]).all()


def test_episodes_are_averaged_first_by_hand():
    # Means of 1, 3 and 5: 3 on average, with a standard error of 2 / sqrt(3).
    values = np.array([[0.0], [2.0], [3.0], [5.0], [5.0], [5.0]])
    mean, error = over_episodes(values, np.array([0, 0, 1, 2, 2, 2]))
    assert mean == pytest.approx(3) and error == pytest.approx(2 / np.sqrt(3))
    assert np.isnan(over_episodes(values[:2], np.zeros(2))[1]).all()
    assert np.isnan(over_episodes(values[:0], np.zeros(0))[0]).all()


def test_tuning_by_hand():
    variable = np.tile([0.0, 1.0], 4)
    activity = np.array([[0, 7], [2, 7], [0, 7], [4, 7], [1, 7], [3, 7], [1, 7], [5, 7]], float)
    episodes = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    found = tuning_curves(activity, variable, episodes, bins=4)
    np.testing.assert_array_equal(found.centres, [0, 1])
    # At 0: 0 in the first and 1 in the second episode; at 1: 3 and 4.
    np.testing.assert_allclose(found.mean, [[0.5, 7], [3.5, 7]])
    np.testing.assert_allclose(found.sem, [[0.5, 0], [0.5, 0]], atol=1e-12)
    # Of a variance of 3, 2.25 lie between the bins; a constant unit has none.
    np.testing.assert_allclose(selectivity(activity, variable), [0.75, 0], atol=1e-6)
    assert (np.bincount(bins_of(DISTANCE, 10)) == len(DISTANCE) / 10).all()


def test_units_are_selective_for_what_they_follow():
    # A bump at 3 m; one that is the variable; noise; and the time in the episode, which the
    # distance depends on as well.
    bump = np.exp(-np.square((DISTANCE - 3) / 0.3))
    time = np.tile(np.arange(STEPS), EPISODES)
    units = np.column_stack([bump, DISTANCE, NOISE, time])
    found = find_selective(units, DISTANCE, permutations_of(NAMES))
    assert found.selective.tolist() == [True, True] + [False] * 9
    assert found.p[:2].max() == pytest.approx(1 / 501) and found.selectivity[1] > 0.9
    curve = tuning_curves(units, DISTANCE, NAMES)
    assert curve.centres[curve.mean[:, 0].argmax()] == pytest.approx(3, abs=0.2)


def test_slow_units_are_not_selective_by_coincidence():
    # Random walks in each episode: steps are no independent samples, episodes are.
    walks = RANDOM.normal(size=(EPISODES, STEPS, 300)).cumsum(axis=1).reshape(len(NAMES), -1)
    variable = RANDOM.normal(size=(EPISODES, STEPS)).cumsum(axis=1).ravel()
    found = find_selective(walks, variable, permutations_of(NAMES, 200))
    assert np.mean(found.p <= 0.05) < 0.1 and found.selective.sum() <= 3
    # Samples taken one by one, a third of them would be.
    shuffled = np.array([selectivity(walks, RANDOM.permutation(variable)) for _ in range(40)])
    assert np.mean(selectivity(walks, variable) > shuffled.max(axis=0)) > 0.3


def test_events_are_where_a_counter_rises_within_an_episode():
    passed = np.array([[0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 1, 1, 3, 3, 0, 5]])
    alive = np.array([[True] * 8, [True] * 6 + [False] * 2])
    episode, time = rises(passed, alive)
    assert (episode.tolist(), time.tolist()) == ([0, 0, 1, 1], [2, 5, 1, 4])
    episode, time = whole((episode, time), alive, before=2, after=1)
    assert (episode.tolist(), time.tolist()) == ([0, 0, 1], [2, 5, 4])


def test_averages_around_events_by_hand():
    # A unit that is 1 at the event and one that counts steps from it.
    ramp = np.array([-1.0, 0.0, 1.0])
    windows = np.stack([np.column_stack([[0, 1, 0], ramp + x]) for x in (0, 2, 4)])
    found = triggered_average(windows, np.array([0, 0, 3]), before=1)
    np.testing.assert_array_equal(found.lags, [-1, 0, 1])
    np.testing.assert_allclose(found.mean[:, 0], [0, 1, 0])
    # Means of 1 and 4 in the two episodes.
    np.testing.assert_allclose(found.mean[:, 1], 2.5 + ramp)
    np.testing.assert_allclose(found.sem[:, 1], 1.5)
    assert found.events == 3


def test_principal_components_agree_with_the_singular_values():
    x = RANDOM.normal(size=(40, 5)) * [5, 3, 1, 1, 1]
    scores, shares = principal_components(x)
    _, values, directions = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    expected = (x - x.mean(axis=0)) @ directions[:2].T
    np.testing.assert_allclose(np.abs(scores), np.abs(expected), atol=1e-8)
    np.testing.assert_allclose(shares, (values**2 / np.sum(values**2))[:2])
    assert principal_components(np.ones((5, 3)))[1].tolist() == [0, 0]
    assert principal_components(x[:, :1])[0].shape == (40, 1)
