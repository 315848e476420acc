"""Compare conditions over independent runs: means, intervals, and the share that one reaches."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vnl_ppo.intervals import interval


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95 % interval; NaN where there are too few values for one."""

    mean: float
    low: float
    high: float


def over_runs(values: Sequence[float]) -> Estimate:
    """Return the mean over independent runs, with Student's interval."""
    if len(values) < 2:
        return Estimate(float(values[0]) if len(values) else math.nan, math.nan, math.nan)
    mean, half = interval(np.asarray(values))
    return Estimate(mean, mean - half, mean + half)


def share(
    seeing: Sequence[float],
    blind: Sequence[float],
    told: Sequence[float],
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Return how much of what knowing is worth an animal gets by seeing.

        share = (mean(seeing) - mean(blind)) / (mean(told) - mean(blind))

    The interval is the percentile bootstrap's (Efron 1979), over runs, which are resampled within
    each condition.

    Args:
        seeing, blind, told: float[n], a number of each run; n may differ between them.
        resamples: of the bootstrap.
        seed: of its random numbers.
    """
    of = lambda s, b, t: (s - b) / (t - b)
    mean = of(*(np.mean(x) for x in (seeing, blind, told)))
    generator = np.random.default_rng(seed)
    drawn = [
        generator.choice(np.asarray(x, float), (resamples, len(x))).mean(axis=1)
        for x in (seeing, blind, told)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.percentile(of(*drawn), (2.5, 97.5))
    return Estimate(float(mean), float(low), float(high))
