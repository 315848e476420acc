"""Compare representations of the same samples: layers, checkpoints, seeds, encoders, animals.

Each function takes L representations float[n, units], whose units may differ in number, and returns
float[L, L]; NaN for one that is constant.
"""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import pdist
from scipy.stats import rankdata


def cka(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Return similarities by debiased linear CKA.

    It is 1 for representations that are equal up to rotation and isotropic scale, and has mean 0
    for independent ones, however few samples there are (at least 4).

    Source: Kornblith et al. 2019, arXiv:1905.00414; the unbiased estimate of HSIC is that of Song
    et al. 2012, "Feature selection via dependence maximization", equation 5.
    """
    grams = [_gram(x) for x in layers]
    hsic = np.array([[_hsic(k, m) for m in grams] for k in grams])
    own = np.where(_varies(layers), np.diag(hsic), np.nan)
    return hsic / np.sqrt(np.outer(own, own))


def rsa(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Return similarities by representational similarity analysis: Spearman's correlation of the
    Euclidean distances between all pairs of samples.

    Source: Kriegeskorte et al. 2008, "Representational similarity analysis".
    """
    ranks = rankdata([pdist(np.asarray(x, float)) for x in layers], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.atleast_2d(np.corrcoef(ranks))


def procrustes(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Return distances after the best rotation.

    With X and Y centred and scaled to a Frobenius norm of 1, and Q orthogonal,

        d = min_Q |X - Y Q| = sqrt(2 - 2 |X' Y|_nuclear),

    from 0 for representations that are equal up to rotation and isotropic scale to sqrt(2).

    Source: Schoenemann 1966; Williams et al. 2021, "Generalized shape metrics on neural
    representations", arXiv:2110.14739.
    """
    shapes = [_shape(x) for x in layers]
    norms = np.array([[np.linalg.norm(x.T @ y, "nuc") for y in shapes] for x in shapes])
    varies = _varies(layers)
    return np.where(np.outer(varies, varies), np.sqrt(2 * np.clip(1 - norms, 0, None)), np.nan)


def _varies(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Return bool[L], which representations are not constant."""
    return np.array([bool(np.ptp(x, axis=0).any()) for x in layers])


def _gram(x: np.ndarray) -> np.ndarray:
    """Return the products of all pairs of samples, with 0 for those of a sample with itself."""
    # Of centred samples: the result is the same, and rounding errs less.
    x = np.asarray(x, float) - np.mean(x, axis=0, dtype=float)
    gram = x @ x.T
    np.fill_diagonal(gram, 0)
    return gram


def _hsic(k: np.ndarray, m: np.ndarray) -> float:
    n = len(k)
    ends = k.sum() * m.sum() / ((n - 1) * (n - 2))
    crossed = 2 / (n - 2) * (k.sum(axis=0) @ m.sum(axis=0))
    return ((k * m).sum() + ends - crossed) / (n * (n - 3))


def _shape(x: np.ndarray) -> np.ndarray:
    """Return float[n, min(n, units)], the samples centred, scaled, and rotated into the space that
    they span, in which products of many units cost no more than those of n."""
    centred = np.asarray(x, float) - np.mean(x, axis=0, dtype=float)
    rotated: np.ndarray = np.asarray(np.linalg.qr(centred.T, mode="r"))
    return rotated.T / (np.linalg.norm(centred) or 1.0)
