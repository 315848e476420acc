"""Compare conditions over independent runs: means, intervals, shares, and steps to a level."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

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
    each condition; with three runs or so it is too narrow. One run of a condition has no spread to
    resample, so there is no interval then.

    Args:
        seeing, blind, told: float[n], a number of each run; n may differ between them.
        resamples: of the bootstrap.
        seed: of its random numbers.
    """
    of = lambda s, b, t: (s - b) / (t - b)
    mean = of(*(np.mean(x) for x in (seeing, blind, told)))
    if min(len(seeing), len(blind), len(told)) < 2:
        return Estimate(float(mean), math.nan, math.nan)
    generator = np.random.default_rng(seed)
    drawn = [
        generator.choice(np.asarray(x, float), (resamples, len(x))).mean(axis=1)
        for x in (seeing, blind, told)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.percentile(of(*drawn), (2.5, 97.5))
    return Estimate(float(mean), float(low), float(high))


def steps_to(curves: Sequence[Mapping[int, float]], level: float) -> dict[str, Any]:
    """Return after how many steps learning curves first reach a level.

    Args:
        curves: of each run, a measure by environment steps; curves are straight between points.
        level: of the measure.

    Returns:
        mean and interval over runs, where one that never gets there counts with all of its steps;
        `per_seed`, with None for such a run; and `never`, their number.
    """
    each = [_crossing(curve, level) for curve in curves]
    spent = [max(x) if n is None else n for x, n in zip(curves, each, strict=True)]
    own = {"per_seed": each, "never": each.count(None)}
    return {**dataclasses.asdict(over_runs(spent)), **own}


def _crossing(curve: Mapping[int, float], level: float) -> float | None:
    points = sorted(curve.items())
    for (start, low), (end, high) in zip([points[0], *points[:-1]], points, strict=True):
        if high >= level:
            return end if low >= level else start + (end - start) * (level - low) / (high - low)
    return None


def written_steps(found: Mapping[str, Any]) -> str:
    """Return a result of `steps_to` as a table shows it."""
    never = found["never"]
    steps = f"{found['mean']:,.0f} [{found['low']:,.0f}, {found['high']:,.0f}]"
    return steps + f", never: {never} of {len(found['per_seed'])}" * bool(never)
