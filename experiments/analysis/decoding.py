"""Decode variables from activity by cross-validated ridge regression."""

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ALPHAS = np.logspace(-2, 6, 17)
"""Penalties that are tried; each fold takes the best of its training part."""


def decode(
    activity: np.ndarray, variables: np.ndarray, episodes: np.ndarray, folds: int = 5
) -> np.ndarray:
    """Return how well variables can be read from activity, on episodes that were not fitted.

    A linear map is fitted by ridge regression (Hoerl and Kennard 1970), whose penalty is chosen by
    generalised cross-validation within the training part. With y the variable and p its prediction
    on the test part,

        R^2 = 1 - sum (y - p)^2 / sum (y - mean(y))^2.

    Args:
        activity: float[n, units].
        variables: float[n, k].
        episodes: int[n], the episode of each sample. All samples of an episode are in one fold:
            neighbouring steps are alike, and would let a decoder look up the answer.
        folds: number of test parts.

    Returns:
        float[folds, k], R^2 of each fold; NaN for a variable that is constant in the fold.

    Raises:
        ValueError: there are fewer episodes than folds, or a number is not finite.
    """
    if len(np.unique(episodes)) < folds:
        raise ValueError(
            f"there are {len(np.unique(episodes))} episodes; {folds} folds need at least as many"
        )
    for name, x in (("activity", activity), ("variables", variables)):
        if not np.isfinite(x).all():
            raise ValueError(f"{name} has numbers that are not finite")
    scores = np.full((folds, variables.shape[1]), np.nan)
    for fold, (train, test) in enumerate(GroupKFold(folds).split(activity, groups=episodes)):
        decoder = make_pipeline(StandardScaler(), RidgeCV(ALPHAS, alpha_per_target=True))
        decoder.fit(activity[train], variables[train])
        predicted = decoder.predict(activity[test]).reshape(len(test), -1)
        spread = np.square(variables[test] - variables[test].mean(axis=0)).sum(axis=0)
        error = np.square(variables[test] - predicted).sum(axis=0)
        varies = spread > 1e-12 * len(test)
        scores[fold, varies] = 1 - error[varies] / spread[varies]
    return scores


def mismatched(episodes: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return int[n], for each sample the index of one of another episode, in order of time.

    Variables at these indices are the control of `decode`: they have the statistics of the right
    ones and belong to other activity.
    """
    names = np.random.default_rng(seed).permutation(np.unique(episodes))
    chosen = np.empty(len(episodes), int)
    for name, other in zip(names, np.roll(names, 1), strict=True):
        here, there = np.flatnonzero(episodes == name), np.flatnonzero(episodes == other)
        chosen[here] = np.resize(there, len(here))
    return chosen
