"""Decode variables from activity: by ridge regression, or by logistic regression if binary."""

from collections.abc import Callable, Iterator

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ALPHAS = np.logspace(-4, 6, 11)
"""Penalties that are tried; each fold takes the best of its training part."""
STRENGTHS = (1e-4, 1e-2, 1.0)
"""Inverse penalties that are tried by logistic regression."""


def decode(
    activity: np.ndarray, variables: np.ndarray, episodes: np.ndarray, folds: int = 5
) -> np.ndarray:
    """Return how well variables can be read from activity, on episodes that were not fitted.

    A linear map is fitted by ridge regression (Hoerl and Kennard 1970), whose penalty is chosen by
    generalised cross-validation within the training part. With y the variable and p its prediction,

        R^2 = 1 - sum (y - p)^2 / sum (y - m)^2

    over the test part, where m is the mean of the training part: 0 is as good as knowing nothing
    but m. (Relative to the mean of the test part, it would explode where the few episodes of a fold
    hardly vary.)

    Args:
        activity: float[n, units].
        variables: float[n, k].
        episodes: int[n], the episode of each sample. All samples of an episode are in one fold:
            neighbouring steps are alike, and would let a decoder look up the answer.
        folds: number of test parts.

    Returns:
        float[folds, k], R^2 of each fold; NaN for a variable that is m throughout the fold.

    Raises:
        ValueError: there are fewer episodes than folds, or a number is not finite.
    """
    activity = _scaled(activity)
    scores = np.full((folds, variables.shape[1]), np.nan)
    for fold, (train, test) in enumerate(_folds(activity, variables, episodes, folds)):
        decoder = make_pipeline(_centre(), RidgeCV(ALPHAS, alpha_per_target=True))
        decoder.fit(activity[train], variables[train])
        predicted = decoder.predict(activity[test]).reshape(len(test), -1)
        error = np.square(variables[test] - predicted).mean(axis=0)
        spread = np.square(variables[test] - variables[train].mean(axis=0)).mean(axis=0)
        varies = spread > 1e-12
        scores[fold, varies] = 1 - error[varies] / spread[varies]
    return scores


def is_binary(variable: np.ndarray) -> bool:
    """Return whether a variable float[n] has exactly two values."""
    return len(np.unique(variable)) == 2


def classify(
    activity: np.ndarray, variable: np.ndarray, episodes: np.ndarray, folds: int = 5
) -> dict[str, np.ndarray]:
    """Return how well a binary variable is read from activity, on episodes that were not fitted.

    A logistic regression is fitted, in which both classes have the same weight, and whose penalty
    is chosen by cross-validation within the training part, by episode too.

    Args:
        activity: float[n, units].
        variable: float[n], of two values.
        episodes: int[n], the episode of each sample.
        folds: number of test parts.

    Returns:
        float[folds] by name, with a chance of 0.5; NaN for folds with a single class. `auc` is the
        area under the receiver operating characteristic, `balanced_accuracy` the mean over classes
        of the share of their samples that is right.

    Raises:
        ValueError: as `decode`.
    """
    scores = {name: np.full(folds, np.nan) for name in ("auc", "balanced_accuracy")}
    labels, activity = variable == variable.max(), _scaled(activity)
    for fold, (train, test) in enumerate(_folds(activity, variable, episodes, folds)):
        if not (is_binary(labels[train]) and is_binary(labels[test])):
            continue
        model = make_pipeline(_centre(), LogisticRegression(class_weight="balanced", max_iter=1000))
        inner = _with_both(labels[train], episodes[train])
        if inner:
            strengths = {"logisticregression__C": STRENGTHS}
            model = GridSearchCV(model, strengths, scoring="roc_auc", cv=inner)
        model.fit(activity[train], labels[train])
        scores["auc"][fold] = roc_auc_score(labels[test], model.decision_function(activity[test]))
        predicted = model.predict(activity[test])
        scores["balanced_accuracy"][fold] = balanced_accuracy_score(labels[test], predicted)
    return scores


def _scaled(activity: np.ndarray) -> np.ndarray:
    """Return activity with a variance over units and samples of 1. Units are not scaled one by one:
    one that is almost always silent would be blown up, and ruin predictions when it is not."""
    spread = (activity - activity.mean(axis=0)).std()
    return activity / spread if spread > 0 else activity


def _centre() -> StandardScaler:
    return StandardScaler(with_std=False)


def _with_both(labels: np.ndarray, episodes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return up to 3 folds by episode, those whose two parts have both classes."""
    number = min(3, len(np.unique(episodes)))
    splits = GroupKFold(number).split(labels, groups=episodes) if number > 1 else []
    return [s for s in splits if all(is_binary(labels[part]) for part in s)]


def _folds(
    activity: np.ndarray, variables: np.ndarray, episodes: np.ndarray, folds: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return the samples to fit and those to test of each fold; see `decode` for errors."""
    if len(np.unique(episodes)) < folds:
        raise ValueError(
            f"there are {len(np.unique(episodes))} episodes; {folds} folds need at least as many"
        )
    for name, x in (("activity", activity), ("variables", variables)):
        if not np.isfinite(x).all():
            raise ValueError(f"{name} has numbers that are not finite")
    return GroupKFold(folds).split(activity, groups=episodes)


def mismatched(episodes: np.ndarray, seed: int = 0, times: np.ndarray | None = None) -> np.ndarray:
    """Return int[n], for each sample the index of one of another episode, at the same time in it.

    Variables at these indices are the control of `decode`: they have the statistics of the right
    ones and belong to other activity.

    Args:
        episodes: int[n], the episode of each sample; at least 2.
        seed: of the order of episodes.
        times: see `partners`.
    """
    order = np.random.default_rng(seed).permutation(len(np.unique(episodes)))
    return partners(episodes, times)(order)


def partners(
    episodes: np.ndarray, times: np.ndarray | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that gives each of n samples a sample of another one of E episodes.

    It takes an order of the episodes, a permutation int[E] of 0 to E - 1, and returns indices of
    samples, int[n]. A sample gets that of the nearest time in the episode before its own, in a
    circle; if that episode is over by then, in the one before that, and so on. Only what is later
    than all other episodes gets another time, the last.

    Args:
        episodes: int[n], the episode of each sample.
        times: float[n], the time of each sample, ascending in each episode; None if the first of
            each episode are at one time, and so on.
    """
    names, own = np.unique(episodes, return_inverse=True)
    inside = [np.flatnonzero(own == i) for i in range(len(names))]
    if times is None:
        times = np.empty(len(episodes))
        for here in inside:
            times[here] = np.arange(len(here))
    steps = np.concatenate([np.diff(times[here]) for here in inside])
    step = np.median(steps) if len(steps) else 0
    nearest = np.empty((len(names), len(episodes)), int)
    for i, there in enumerate(inside):
        between = (times[there][1:] + times[there][:-1]) / 2
        nearest[i] = there[np.searchsorted(between, times)]
    lasts = np.abs(times[nearest] - times) <= step / 2
    every = np.arange(len(episodes))

    def of(order: np.ndarray) -> np.ndarray:
        place = np.argsort(order)
        back = np.arange(1, len(names))[:, None]
        others = order[(place[own] - back) % len(names)]
        chosen = others[lasts[others, every].argmax(axis=0), every]
        return nearest[chosen, every]

    return of
