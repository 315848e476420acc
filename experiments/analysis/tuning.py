"""Measure how the activity of units depends on a variable."""

import dataclasses
import itertools
import math

import numpy as np
from scipy import stats

from experiments.analysis.decoding import partners
from experiments.analysis.episodes import over_episodes

CHUNK = 20
"""Permutations of a test that are computed at once."""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Activity of units by bins of a variable.

    Attributes:
        centres: float[bins], mean of the variable in each bin.
        mean: float[bins, units], mean activity over episodes.
        sem: float[bins, units], its standard error over episodes.
    """

    centres: np.ndarray
    mean: np.ndarray
    sem: np.ndarray


def bins_of(variable: np.ndarray, bins: int = 10) -> np.ndarray:
    """Return int[n], bins of equally many samples each; fewer where values are often the same."""
    edges = np.unique(np.quantile(variable, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.unique(np.digitize(variable, edges), return_inverse=True)[1]


def tuning_curves(
    activity: np.ndarray, variable: np.ndarray, episodes: np.ndarray, bins: int = 10
) -> Tuning:
    """Return the mean activity of units in bins of a variable.

    Args:
        activity: float[n, units].
        variable: float[n].
        episodes: int[n], the episode of each sample.
        bins: their largest number; see `bins_of`.
    """
    labels = bins_of(variable, bins)
    inside = [labels == i for i in range(labels.max() + 1)]
    means, errors = zip(*(over_episodes(activity[i], episodes[i]) for i in inside), strict=True)
    return Tuning(np.array([variable[i].mean() for i in inside]), np.array(means), np.array(errors))


def selectivity(activity: np.ndarray, variable: np.ndarray, bins: int = 10) -> np.ndarray:
    """Return float[units], the share of each unit's variance that lies between bins of a variable:

        eta^2 = sum_b n_b (mean_b - mean)^2 / sum_i (x_i - mean)^2,

    0 for a unit that is constant.
    """
    return _selectivity(_standard(activity), bins_of(variable, bins)[None])[0]


@dataclasses.dataclass(frozen=True)
class Selective:
    """A test of units.

    Attributes:
        selectivity: float[units]; see `selectivity`.
        p: float[units], the chance of as much by coincidence.
        selective: bool[units], at a false discovery rate of 0.05 among these units.
    """

    selectivity: np.ndarray
    p: np.ndarray
    selective: np.ndarray


def permutations_of(
    episodes: np.ndarray, number: int = 500, seed: int = 0, times: np.ndarray | None = None
) -> np.ndarray:
    """Return int[m, n], for each of m permutations of episodes and each sample the index of a
    sample of another episode, at the same time in it (see `partners`).

    Of few episodes there are few permutations, (E - 1)! of E, each of which is there once.

    Args:
        episodes: int[n], the episode of each sample; at least 2.
        number: the largest m.
        seed: of the permutations.
        times: see `partners`.
    """
    others = len(np.unique(episodes)) - 1
    if math.factorial(others) <= number:
        orders = [np.array([0, *rest]) for rest in itertools.permutations(range(1, others + 1))]
    else:
        generator = np.random.default_rng(seed)
        orders = [generator.permutation(others + 1) for _ in range(number)]
    partner = partners(episodes, times)
    return np.stack([partner(order) for order in orders])


def find_selective(
    activity: np.ndarray, variable: np.ndarray, permuted: np.ndarray, bins: int = 10
) -> Selective:
    """Test which units are selective for a variable.

    Permutations give each episode the variable of another one: what depends on the time within an
    episode alone is not selective. With S the selectivity and S_1 ... S_m that under permutations,

        p = (1 + number of S_i >= S) / (1 + m).

    p is at least 1 / (1 + m), so that of very many units a few selective ones are not found: with
    500 permutations, at least one in 25 has to be. With five episodes, of which there are 24
    permutations, at least four in five have to be; with four episodes, none is found.

    Source: Phipson and Smyth 2010 (p); Benjamini and Hochberg 1995 (false discovery rate).

    Args:
        activity: float[n, units].
        variable: float[n].
        permuted: int[m, n]; see `permutations_of`.
        bins: see `bins_of`.
    """
    standard = _standard(activity)
    labels = bins_of(variable, bins)
    observed = _selectivity(standard, labels[None])[0]
    above = np.zeros(len(observed))
    for first in range(0, len(permuted), CHUNK):
        others = labels[permuted[first : first + CHUNK]]
        # Rounding makes equal numbers differ.
        above += (_selectivity(standard, others) >= observed - 1e-6).sum(axis=0)
    p = (1 + above) / (1 + len(permuted))
    return Selective(observed, p, stats.false_discovery_control(p) <= 0.05)


def _standard(activity: np.ndarray) -> np.ndarray:
    """Return float32[n, units] of mean 0 and variance 1, 0 for units that are constant."""
    centred = activity - activity.mean(axis=0, dtype=float)
    spread = centred.std(axis=0)
    varies = spread > 1e-6 * np.abs(activity).max(axis=0)
    return np.where(varies, centred / np.where(varies, spread, 1), 0).astype(np.float32)


def _selectivity(standard: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return float[m, units] for standardised activity float32[n, units] and bins int[m, n]."""
    number = labels.max() + 1
    inside = (labels[:, None] == np.arange(number)[:, None]).astype(np.float32)
    counts = inside.sum(axis=-1)
    sums = inside.reshape(-1, inside.shape[-1]) @ standard
    squares = np.square(sums.reshape(len(labels), number, -1))
    return (squares / np.maximum(counts, 1)[..., None]).sum(axis=1) / len(standard)
