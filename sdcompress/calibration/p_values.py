"""p-values for "these thresholds lose more than alpha", exact or valid for every number of samples, without scipy.

Each is a number p with P(p <= u) <= u for every u whenever the true mean loss is above alpha, so that a rejection at
delta is wrong with a probability of at most delta. Which one: losses in {0, 1} have an exact test, and nothing bounds
them better; losses that can be negative (an exit also corrects mistakes of the whole network) need the betting test;
other losses in [0, 1] have Hoeffding-Bentkus.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["betting_p_value", "binomial_p_value", "hoeffding_bentkus_p_value"]

Losses = npt.NDArray[np.integer] | npt.NDArray[np.floating]


def binomial_p_value(errors: int, samples: int, alpha: float) -> float:
    """P(Bin(n, alpha) <= errors): the exact test for losses in {0, 1}.

    Summed in log space, term by term from the largest ratio, so that n = 10^6 neither overflows nor loses digits.

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


def hoeffding_bentkus_p_value(losses: Losses, alpha: float) -> float:
    """min(exp(-n h(min(R, alpha), alpha)), e P(Bin(n, alpha) <= ceil(n R))) with the mean loss R of n losses in [0, 1].

    Bates et al., "Distribution-Free, Risk-Controlling Prediction Sets", J. ACM 2021 (arXiv:2101.02703), section 3.1.2;
    as a p-value in Angelopoulos et al., "Learn then Test" (arXiv:2110.01052), proposition 1. h(a, b) is
    a ln(a / b) + (1 - a) ln((1 - a) / (1 - b)). For losses in {0, 1} the exact test needs a third fewer samples.

    Args:
        losses: [N], each in [0, 1], N > 0.
        alpha: the mean loss of the null hypothesis, in [0, 1].

    Raises:
        ValueError: if a loss is outside [0, 1].
    """
    if not ((losses >= 0) & (losses <= 1)).all():
        raise ValueError("the losses must be in [0, 1]")
    if alpha <= 0:
        return 1.0
    total, samples = math.fsum(losses), len(losses)  # exact: a mean times n may be just above an integer
    risk = min(total / samples, alpha)
    hoeffding = math.exp(-samples * _divergence(risk, alpha))
    bentkus = math.e * binomial_p_value(math.ceil(total), samples, alpha)
    return min(1.0, hoeffding, bentkus)


def _divergence(a: float, b: float) -> float:
    """KL divergence of Bernoulli(a) from Bernoulli(b), a <= b."""
    left = a * math.log(a / b) if a > 0 else 0.0
    if a >= 1:
        return left
    return left + (1 - a) * math.log((1 - a) / (1 - b)) if b < 1 else math.inf


def betting_p_value(losses: Losses, alpha: float, delta: float) -> float:
    """1 / max_i K_i with K_i = prod_{j <= i} (1 - nu_j (x_j - alpha)): for losses of at most 1 that may be negative.

    Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024 (arXiv:2010.09686);
    the bets as in the WSR bound of Bates et al. (arXiv:2101.02703), section 3.1.3:

        mu_i = (1/2 + sum_{j <= i} x_j) / (i + 1),  s_i = (1/4 + sum_{j <= i} (x_j - mu_j)^2) / (i + 1),  s_0 = 1/4
        nu_i = min(1, sqrt(2 ln(1 / delta) / (n s_{i-1})))

    A bet knows only what came before it (s_{i-1}), so K is a supermartingale where the mean is alpha or more, and by
    Ville's inequality its maximum reaches 1 / u with a probability of at most u. A bet of at most 1 on a loss of at
    most 1 leaves at least alpha of the wealth, so that it cannot be ruined: the sum of logarithms is finite.

    The p-value depends on the order. It must be fixed before the losses are seen; see ``sdcompress.calibration.parts``.

    Args:
        losses: [N] in the order fixed beforehand, each at most 1; for example the signed gap, in {-1, 0, 1}.
        alpha: the mean loss of the null hypothesis, in [0, 1].
        delta: where the test will be made, in (0, 1). It sizes the bets; the p-value is valid at every level.

    Raises:
        ValueError: if a loss is not a number or above 1.
    """
    x = np.asarray(losses, np.float64)
    if not (x <= 1).all():
        raise ValueError("the losses must be numbers of at most 1")
    if alpha <= 0 or len(x) == 0:
        return 1.0  # a mean of 0 cannot be told from one just above it
    count = np.arange(2, len(x) + 2)
    means = (0.5 + np.cumsum(x)) / count
    variances = (0.25 + np.cumsum((x - means) ** 2)) / count
    before = np.concatenate([[0.25], variances[:-1]])
    bets = np.minimum(1.0, np.sqrt(2 * math.log(1 / delta) / (len(x) * before)))
    wealth = np.cumsum(np.log1p(-bets * (x - alpha)))
    return float(np.exp(-max(0.0, float(wealth.max()))))
