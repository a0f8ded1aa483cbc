"""Test at every moment whether a mean is above its bound: e-processes, valid however long one watches.

A test for a fixed number of samples gives false alarms sooner or later if it is repeated after each of them. The wealth
of a gambler who bets that the mean is above its bound cannot grow if it is not: if it ever reaches 1 / delta, that had
a probability of at most delta (Ville's inequality). Podkopaev and Ramdas, "Tracking the risk of a deployed model"
(arXiv:2110.06177); Timans et al., "On continuous monitoring of risk violations" (arXiv:2506.16416).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["AT_ONCE", "ODDS", "EProcess"]

# of the alternatives; each bet is the best one for a mean whose odds are so many times those of the bound
ODDS = (1.5, 2.0, 4.0)
AT_ONCE = 0.5  # share of the wealth that is bet from the first observation on


class EProcess:
    """The wealth of bets that some of H means is above its bound; it begins at 1.

    The bet on an alternative whose odds are w times those of the bound m multiplies its stake by
    (1 + (w - 1) x) / (1 + (w - 1) m) when a value x in [0, 1] comes. If the mean of x, given all that came before, is
    at most m, the stake does not grow in expectation. For x in {0, 1} it is the likelihood ratio of the alternative.

    Half of the wealth is bet from the start, on all means and alternatives alike. The rest waits, and a share of
    1 / ``lifetime`` of it joins the bets with every observation, so that a change after a long quiet time finds stakes
    that have not been lost. After a lifetime the share is 1 / n of the n observations so far, so that something is left
    to join however long it lasts. Every mixture of such bets is one.

    Args:
        means: H.
        lifetime: observations after which a change should still be found fast; later ones are found the more slowly,
            by the logarithm of their number. The bound on false alarms does not depend on it.
    """

    def __init__(self, means: int = 1, *, lifetime: float = 100_000) -> None:
        self._odds = np.log(ODDS)
        self._gain = np.array(ODDS) - 1
        self._stakes = np.full((means, len(ODDS)), AT_ONCE / (means * len(ODDS)))
        self._waiting, self._lifetime, self._observations = 1 - AT_ONCE, lifetime, 0
        self.largest = 1.0

    @property
    def wealth(self) -> float:
        """Return the wealth now."""
        return float(self._waiting + self._stakes.sum())

    def value(self, value: float, bound: float) -> None:
        """Bet on one value of the only mean.

        Args:
            value: in [0, 1].
            bound: on its mean, in (0, 1), known before the value.

        Raises:
            ValueError: if the value is not in [0, 1].
        """
        if not 0 <= value <= 1:
            raise ValueError("the value must be a number in [0, 1]")
        self._multiply((1 + self._gain * value) / (1 + self._gain * bound), 1)

    def counts(self, ones: npt.ArrayLike, rows: npt.ArrayLike, bounds: npt.ArrayLike) -> None:
        """Bet on a block of values in {0, 1} of every mean.

        The stakes of the block are those before it, so that it must end at a number of rows that was fixed before. The
        bounds may differ from row to row, if those of a row are known before its values.

        Args:
            ones: how many values are 1 among the rows with the same bounds, [H] or [L, H].
            rows: how many values there are, of each mean; [L] for L different bounds.
            bounds: on the means, [H] or [L, H] in (0, 1].
        """
        ones, bounds = (np.atleast_2d(np.asarray(values, np.float64))[:, :, None] for values in (ones, bounds))
        of_each = np.reshape(np.asarray(rows, np.int64), (-1, 1, 1))
        logarithms = ones * self._odds - of_each * np.log1p(self._gain * bounds)
        self._multiply(np.exp(logarithms.sum(axis=0)), int(of_each.sum()))

    def _multiply(self, factors: npt.NDArray[np.float64], rows: int) -> None:
        self._stakes *= factors
        joins = self._waiting * (1 - (1 - 1 / max(self._lifetime, self._observations)) ** rows)
        self._waiting -= joins
        self._observations += rows
        self._stakes += joins / self._stakes.size
        self.largest = max(self.largest, self.wealth)
