"""How often each test finds a certificate: bets of one size, bets that recalculate, and the test that is shipped.

Recalculating bets (STaR-Bets, arXiv:2505.22422) aim at what is still missing to 1 / delta in the samples that are left,
instead of at all of it in all samples. The shipped test is that with a floor under the variance that it bets by, and in
blocks. Each is valid: a bet knows only what came before it. The test that takes the mean for normal is not valid; it
says about how much any test could find.
"""

from __future__ import annotations

import argparse
import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from record import Record

from sdcompress.certification.p_values import betting_p_value

ALPHA, DELTA = 0.01, 0.05
# shares of samples that only the last exit has right, and that only the earlier one has; at the null their gap is alpha
MIXES = ((0.001, 0.0), (0.0025, 0.0), (0.005, 0.0), (0.004, 0.002), (0.008, 0.004), (0.012, 0.007), (0.03, 0.025))
NULLS = ((0.01, 0.0), (0.02, 0.01), (0.05, 0.04))

Rejected = npt.NDArray[np.bool_]


def one_size(x: npt.NDArray[np.float64], cap: float) -> Rejected:
    """Bets that aim at the whole goal in all samples, by the variance so far (arXiv:2101.02703, section 3.1.3)."""
    samples = x.shape[1]
    count = np.arange(2, samples + 2)
    means = (0.5 + x.cumsum(axis=1)) / count
    spreads = (0.25 + ((x - means) ** 2).cumsum(axis=1)) / count
    before = np.concatenate([np.full((len(x), 1), 0.25), spreads[:, :-1]], axis=1)
    bets = np.minimum(cap, np.sqrt(2 * math.log(1 / DELTA) / (samples * before)))
    return np.asarray(np.log1p(-bets * (x - ALPHA)).cumsum(axis=1).max(axis=1) >= math.log(1 / DELTA))


def recalculating(x: npt.NDArray[np.float64], cap: float, floor: float) -> Rejected:
    """Bets sized anew before every sample; none any more where the goal is reached."""
    rows, samples = x.shape
    goal = math.log(1 / DELTA)
    wealth, done = np.zeros(rows), np.zeros(rows, bool)
    squares = np.full(rows, 0.25)
    for at in range(samples):
        missing = np.maximum(goal - wealth, 0)
        bets = np.minimum(cap, np.sqrt(2 * missing / ((samples - at) * np.maximum(squares / (at + 1), floor))))
        wealth = wealth + np.log1p(-bets * (x[:, at] - ALPHA))
        done |= wealth >= goal
        wealth = np.where(done, goal, wealth)
        squares += (x[:, at] - ALPHA) ** 2
    return done


def shipped(x: npt.NDArray[np.float64]) -> Rejected:
    """What ``sdcompress calibrate`` computes."""
    return np.array([betting_p_value(row, ALPHA, DELTA) <= DELTA for row in x])


def normal(x: npt.NDArray[np.float64]) -> Rejected:
    """The mean taken for normal: rejects too often, most of all where losses are rare."""
    deviations = np.maximum(x.std(axis=1), 1e-9) / math.sqrt(x.shape[1])
    return np.asarray((x.mean(axis=1) - ALPHA) / deviations <= NormalDist().inv_cdf(DELTA))


FLOOR = ALPHA * (1 - ALPHA)
TESTS = {
    "one size, cap 1": lambda x: one_size(x, 1.0),
    "one size, cap 3/4": lambda x: one_size(x, 0.75),
    "recalculating": lambda x: recalculating(x, 1.0, 0.0),
    "recalculating, cap 3/4": lambda x: recalculating(x, 0.75, 0.0),
    "recalculating, floor": lambda x: recalculating(x, 1.0, FLOOR),
    "recalculating, floor, blocks (shipped)": shipped,
    "normal (not valid)": normal,
}


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--runs", type=int, default=1000)
    read.add_argument("--samples", type=int, nargs="+", default=[450, 1000, 2000, 3750])
    given = read.parse_args()
    record = Record("power")
    rng = np.random.default_rng(0)
    figures: dict[str, dict[str, float]] = {}
    cases = [(mix, n, given.runs) for mix in MIXES for n in given.samples] + [
        (mix, 1500, 4 * given.runs) for mix in NULLS
    ]
    for (lost, gained), samples, runs in cases:
        draws = rng.random((runs, samples))
        x = (draws < lost).astype(np.float64) - (draws > 1 - gained)
        name = f"lost {lost:.2%}, gained {gained:.2%}, n {samples}" + (" (null)" if lost - gained >= ALPHA else "")
        figures[name] = {test: round(float(made(x).mean()), 4) for test, made in TESTS.items()}
        print(name, figures[name], flush=True)
    record.write(figures, alpha=ALPHA, delta=DELTA, runs=given.runs, runs_at_the_null=4 * given.runs)


if __name__ == "__main__":
    main()
