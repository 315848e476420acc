"""PPO's formulas once more, in NumPy and float64, from the papers and by another way than ours.

Nothing here is imported from `vnl_ppo`: what both agree on is right, or wrong twice.
"""

import math

import numpy as np


def lambda_returns(r, v_next, termination, end, discounting, gae_lambda):
    """The lambda-return of each step as its definition: a weighted mean of n-step returns.

    G^lambda = (1 - lambda) sum_n lambda^(n-1) G^(n) + lambda^(L-1) G^(L), with L the steps that are
    left of the episode or of the unroll (Sutton and Barto 2018, equation 12.3).

    Args: all [T]; `v_next` is the value of the observation that each step led to.
    """
    length = len(r)
    returns = np.zeros(length)
    for t in range(length):
        last = next((k for k in range(t, length) if end[k]), length - 1)
        n_step, rewards = [], 0.0
        for n, k in enumerate(range(t, last + 1)):
            rewards += discounting**n * r[k]
            after = 0.0 if termination[k] else v_next[k]
            n_step.append(rewards + discounting ** (n + 1) * after)
        *shorter, longest = n_step
        weights = [(1 - gae_lambda) * gae_lambda**n for n in range(len(shorter))]
        returns[t] = np.dot(weights, shorter) + gae_lambda ** len(shorter) * longest
    return returns


def advantages(r, v, v_next, termination, end, discounting, gae_lambda):
    """A = G^lambda - v; all [T] or [T, N]."""
    r, v, v_next = (np.asarray(x, np.float64) for x in (r, v, v_next))
    if r.ndim == 1:
        return lambda_returns(r, v_next, termination, end, discounting, gae_lambda) - v
    columns = zip(*(np.moveaxis(x, 1, 0) for x in (r, v, v_next, termination, end)), strict=True)
    return np.stack([advantages(*c, discounting, gae_lambda) for c in columns], axis=1)


def normal_log_prob(mean, scale, x):
    """[..., A] each -> [...]: of independent normals."""
    z = (x - mean) / scale
    return (-0.5 * z**2 - np.log(scale) - 0.5 * math.log(2 * math.pi)).sum(-1)


def log_derivative_of_tanh(x):
    """log(1 - tanh(x)^2), as -2 log cosh x with the exponential kept small."""
    return -2 * (np.abs(x) + np.log1p(np.exp(-2 * np.abs(x))) - math.log(2))


def tanh_normal_log_prob(mean, scale, raw):
    """The density of tanh(raw), by change of variables."""
    return normal_log_prob(mean, scale, raw) - log_derivative_of_tanh(raw).sum(-1)


def tanh_normal_entropy(mean, scale):
    """[..., A] -> [...], E[-log p] by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    raw = mean[..., None] + scale[..., None] * nodes
    correction = (log_derivative_of_tanh(raw) * weights).sum(-1) / math.sqrt(2 * math.pi)
    return (0.5 * math.log(2 * math.pi * math.e) + np.log(scale) + correction).sum(-1)


def normal_kl(mean, scale, other_mean, other_scale):
    """KL(first || second) of independent normals, [..., A] -> [...]."""
    ratio = (scale / other_scale) ** 2
    return (0.5 * (ratio + ((mean - other_mean) / other_scale) ** 2 - 1 - np.log(ratio))).sum(-1)


def ppo_loss_parts(log_prob, old_log_prob, advantage, value, old_value, epsilon, standardize):
    """Equation 7 of Schulman et al. 2017 case by case, and what is reported beside it; all [B]."""
    targets = old_value + advantage
    if standardize:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    ratios = np.exp(log_prob - old_log_prob)
    objective = []
    for ratio, a in zip(ratios, advantage, strict=True):
        if a >= 0:
            objective.append(a * min(ratio, 1 + epsilon))
        else:
            objective.append(a * max(ratio, 1 - epsilon))
    return {
        "policy_loss": -np.mean(objective),
        "squared_error": np.mean((value - targets) ** 2),
        "approx_kl": np.mean(ratios - 1 - (log_prob - old_log_prob)),
        "clip_fraction": np.mean((ratios < 1 - epsilon) | (ratios > 1 + epsilon)),
        "ratio": np.mean(ratios),
    }
