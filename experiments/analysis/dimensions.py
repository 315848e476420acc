"""Measure how many dimensions activity fills."""

import numpy as np


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
