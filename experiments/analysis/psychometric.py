"""Fit the probability of success against a variable."""

import dataclasses

import numpy as np
from scipy import optimize, stats


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a probability (Wilson 1927)."""
    found = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


@dataclasses.dataclass(frozen=True)
class Logistic:
    """A fitted curve p(x) = 1 / (1 + exp(-slope (x - threshold))).

    Attributes:
        threshold: where p is 0.5.
        slope: negative where success becomes rarer as x grows.
    """

    threshold: float
    slope: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return p at each x."""
        return 1 / (1 + np.exp(-self.slope * (x - self.threshold)))


def fit_logistic(x: np.ndarray, successes: np.ndarray, trials: np.ndarray) -> Logistic | None:
    """Fit a logistic curve by maximum likelihood.

    Args:
        x: float[n], the variable.
        successes, trials: int[n], of how many trials how many succeeded.

    Returns:
        the curve; None where the data do not determine it: all succeed, none does, or the best
        threshold lies outside of the values that were tried.
    """
    share = successes / trials
    if share.min() > 0.5 or share.max() < 0.5:
        return None
    scale = float(x.max() - x.min())
    centre = float(x.mean())

    def loss(parameters: np.ndarray) -> float:
        logits = parameters[0] + parameters[1] * (x - centre) / scale
        return float((trials * np.logaddexp(0, logits) - successes * logits).sum())

    # A slope beyond 50 ranges is a step.
    best = optimize.minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-200, 200), (-50, 50)])
    offset, slope = best.x
    if slope == 0 or not x.min() <= (threshold := centre - scale * offset / slope) <= x.max():
        return None
    return Logistic(float(threshold), float(slope / scale))
