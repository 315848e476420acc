"""Compute means of independent values with 95 % confidence intervals."""

import math
from collections.abc import Mapping

import numpy as np
from scipy import stats


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of n independent values and half the width of its 95 % interval.

    The interval is Student's: t(0.975, n - 1) s / sqrt(n), with the sample deviation s.

    Args:
        values: float[n], n of at least 2.
    """
    n = len(values)
    spread = np.std(values.astype(np.float64), ddof=1) / math.sqrt(n)
    return float(values.mean(dtype=np.float64)), float(stats.t.ppf(0.975, n - 1) * spread)


def over_seeds(metrics: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Average the metrics of agents that differ by their seed.

    Args:
        metrics: float[S] by name, a value for each of S agents, NaN if it has none.

    Returns:
        the mean of the known values by name, NaN if there is none; and, of two values or more, both
        ends of its 95 % interval as `low95/<name>` and `high95/<name>`.
    """
    averaged: dict[str, float] = {}
    for name, values in metrics.items():
        known = values[~np.isnan(values)]
        averaged[name] = float(known.mean()) if len(known) else math.nan
        if len(known) > 1:
            mean, half = interval(known)
            averaged |= {f"low95/{name}": mean - half, f"high95/{name}": mean + half}
    return averaged
