"""Measure how many dimensions activity fills."""

import numpy as np
from sklearn.decomposition import PCA


def participation_ratio(activity: np.ndarray) -> float:
    """Return the effective number of dimensions of activity.

    With the eigenvalues l of the covariance of the units,

        PR = (sum l)^2 / sum l^2,

    between 1 (all on a line) and the number of units (the same variance in all directions).

    Source: Gao et al. 2017, "A theory of multineuronal dimensionality, dynamics and measurement".

    Args:
        activity: float[n, units].
    """
    centred = activity - activity.mean(axis=0)
    # Of the two products, which have the same eigenvalues, the smaller one.
    short = centred if len(centred) < centred.shape[1] else centred.T
    product = short @ short.T
    total = np.trace(product)
    return float(total**2 / np.square(product).sum()) if total > 0 else 0.0


def principal_components(activity: np.ndarray, number: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores float[n, k] of the first principal components and their shares of the
    variance float[k], k being at most `number`; zeros for activity that is constant.

    Args:
        activity: float[n, units].
        number: of components.
    """
    number = min(number, *activity.shape)
    if not np.ptp(activity, axis=0).any():
        return np.zeros((len(activity), number)), np.zeros(number)
    pca = PCA(number, random_state=0)
    return pca.fit_transform(activity), pca.explained_variance_ratio_
