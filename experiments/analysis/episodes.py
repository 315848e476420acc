"""Average over episodes, whose steps are not independent of each other."""

import numpy as np
from scipy import stats


def over_episodes(values: np.ndarray, episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over episodes of each episode's mean, and its standard error.

    Args:
        values: float[n, ...].
        episodes: int[n], the episode of each sample.

    Returns:
        float[...], and float[...]; the error is NaN with a single episode, both without any.
    """
    names = np.unique(episodes)
    if not len(names):
        nothing = np.full(values.shape[1:], np.nan)
        return nothing, nothing
    means = np.stack([values[episodes == name].mean(axis=0) for name in names])
    error = stats.sem(means, axis=0) if len(names) > 1 else np.full(means.shape[1:], np.nan)
    return means.mean(axis=0), error
