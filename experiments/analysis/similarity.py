"""Compare two representations of the same samples."""

import numpy as np


def cka(one: np.ndarray, two: np.ndarray) -> float:
    """Return the similarity of two representations by debiased linear CKA.

    It is 1 for representations that are equal up to rotation and isotropic scale, and has mean 0
    for independent ones, however few samples there are.

    Source: Kornblith et al. 2019, arXiv:1905.00414; the unbiased estimate of HSIC is that of Song
    et al. 2012, "Feature selection via dependence maximization", equation 5.

    Args:
        one: float[n, units], n of at least 4.
        two: float[n, other units].
    """
    first, second = _gram(one), _gram(two)
    return float(_hsic(first, second) / np.sqrt(_hsic(first, first) * _hsic(second, second)))


def _gram(x: np.ndarray) -> np.ndarray:
    """Return the products of all pairs of samples, with 0 for those of a sample with itself."""
    gram = x @ x.T
    np.fill_diagonal(gram, 0)
    return gram


def _hsic(k: np.ndarray, m: np.ndarray) -> float:
    n = len(k)
    ends = k.sum() * m.sum() / ((n - 1) * (n - 2))
    crossed = 2 / (n - 2) * (k.sum(axis=0) @ m.sum(axis=0))
    return ((k * m).sum() + ends - crossed) / (n * (n - 3))
