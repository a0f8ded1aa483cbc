"""Compute p-values of the hypothesis "these thresholds lose more than alpha", valid for every number of samples.

A p-value p has P(p <= u) <= u for every u if the true mean loss is above alpha, so that a rejection at delta is wrong
with a probability of at most delta. Losses in {0, 1} have an exact test, which nothing improves on. Differences of
losses may be negative, where an exit corrects a mistake of the last one; they need the betting test, which takes every
bounded loss.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["betting_p_value", "binomial_p_value", "upper_bound"]

Losses = npt.NDArray[np.integer] | npt.NDArray[np.floating]

_BLOCKS = 256
_BOUND_WIDTH = 1e-6  # relative


def binomial_p_value(errors: int, samples: int, alpha: float) -> float:
    """Return P(Bin(n, alpha) <= errors), the p-value of the exact test for losses in {0, 1}.

    The sum is in log space, so that n = 10^6 neither overflows nor loses digits.

    Args:
        errors: losses of 1 among the samples, 0 to n.
        samples: n.
        alpha: the mean loss of the null hypothesis, in [0, 1].
    """
    if errors >= samples or alpha <= 0:
        return 1.0
    if errors < 0 or alpha >= 1:
        return 0.0
    k = np.arange(1, errors + 1, dtype=np.float64)
    steps = np.log((samples - k + 1) / k) + (math.log(alpha) - math.log1p(-alpha))
    terms = np.concatenate([[0.0], np.cumsum(steps)]) + samples * math.log1p(-alpha)
    largest = terms.max()
    return min(1.0, float(np.exp(largest + np.log(np.exp(terms - largest).sum()))))


def upper_bound(total: float, samples: int, delta: float, *, binary_loss: bool) -> float:
    """Return a bound that the mean loss exceeds with a probability of at most delta.

    Of losses in {0, 1} it is the exact bound of Clopper and Pearson, the alpha at which ``binomial_p_value`` is delta.
    Of losses in [0, 1] the p-value is Bentkus': e P(Bin(n, alpha) <= ceil(total)) (Annals of Probability 2004).

    Args:
        total: sum of the losses.
        samples: n, at least 1.
        delta: in (0, 1).
        binary_loss: whether every loss is 0 or 1.
    """
    errors, factor = math.ceil(round(total, 6)), 1.0 if binary_loss else math.e
    low, high = min(1.0, errors / samples), 1.0
    while high - low > _BOUND_WIDTH * high:
        middle = (low + high) / 2
        low, high = (low, middle) if factor * binomial_p_value(errors, samples, middle) <= delta else (middle, high)
    return high


def betting_p_value(losses: Losses, alpha: float, delta: float) -> float:
    """Return 1 / max_i K_i with K_i = prod_{j <= i} (1 - nu_j (x_j - alpha)), for losses of at most 1, also below 0.

    Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024 (arXiv:2010.09686),
    with bets that are sized for what is still missing to 1 / delta in the samples that are left, after Voracek and
    Orabona, "STaR-Bets" (arXiv:2505.22422). Before sample i + 1:

        v_i = max(alpha (1 - alpha), (1/4 + sum_{j <= i} (x_j - alpha)^2) / (i + 1))
        nu_{i+1} = min(1, sqrt(2 (ln(1 / delta) - ln K_i) / ((n - i) v_i)))

    Two details are ours. The floor of v is the smallest variance that losses in {-1, 0, 1} of mean alpha can have
    (E x^2 >= E x); graded losses may have less, so that their bets are smaller than they need be. Bets change before
    each of at most 256 equal blocks of samples, so that 10^5 samples take milliseconds.

    The test is valid because a bet depends only on the samples before it: K is a nonnegative supermartingale if the
    mean is alpha or more. By Ville's inequality its maximum reaches 1 / u with a probability of at most u, for every u.
    A bet of at most 1 on a loss of at most 1 leaves at least alpha of the wealth: the sum of logarithms is finite.

    The betting ends at the first block that reaches 1 / delta. So a p-value of at most delta lies just below it: how
    far below says nothing about the strength of the evidence. The bets are sized for this delta, though
    the p-value is valid at every level.

    The p-value depends on the order, which is fixed before any loss is known: see ``calibration_split``.

    Args:
        losses: [N] in the order fixed beforehand, each at most 1; for example differences of losses, in [-1, 1].
        alpha: the mean loss of the null hypothesis, in [0, 1).
        delta: level of the test, in (0, 1).

    Raises:
        ValueError: if a loss is not a number or above 1.
    """
    x = np.asarray(losses, np.float64)
    if not (x <= 1).all():
        raise ValueError("the losses must be numbers of at most 1")
    if alpha <= 0:
        return 1.0  # a mean of 0 cannot be told from one just above it
    target, log_wealth, max_log_wealth, squares = math.log(1 / delta), 0.0, 0.0, 0.25
    block = math.ceil(len(x) / _BLOCKS) or 1
    for start in range(0, len(x), block):
        variance = max(alpha * (1 - alpha), squares / (start + 1))
        bet = min(1.0, math.sqrt(2 * (target - log_wealth) / ((len(x) - start) * variance)))
        gaps = x[start : start + block] - alpha
        log_wealths = log_wealth + np.cumsum(np.log1p(-bet * gaps))
        log_wealth, max_log_wealth = float(log_wealths[-1]), max(max_log_wealth, float(log_wealths.max()))
        if max_log_wealth >= target:
            break
        squares += float(gaps @ gaps)
    return math.exp(-max_log_wealth)
