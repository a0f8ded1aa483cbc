"""The contract of an exit policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from sdcompress.tasks._signals import AGREEMENT, Float, Signals

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AGREEMENT", "SIGNALS_ATOL", "SIGNALS_RTOL", "ExitPolicy", "Float", "Gate", "Signals"]

SIGNALS_ATOL = 1e-5  # two runtimes may differ by this in a probability or in nats: float32, summed in another order
SIGNALS_RTOL = 1e-6  # and by this share of the largest signal, where one is a sum over many labels or positions

# from the signals of the exits so far to the rows that exit, bool [B]
Gate = Callable[[Sequence[Signals]], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class ExitPolicy:
    """Compute a score for each sample at an exit; a sample exits at the first exit whose score reaches its threshold.

    A subclass is a frozen dataclass whose fields are its fitted parameters: lists of numbers, as JSON has them. They go
    into the manifest; the calibration chooses thresholds, for every policy alike.

    ``needs``: names of the signals that it uses, and ``AGREEMENT`` if it is useless where exits hardly ever agree.
    ``history``: whether a score depends on earlier exits. ``shared``: one threshold for all exits instead of one each.
    ``least_exits``: the smallest number of exits with which the policy is useful. ``formula``: the score of one sample
    in numpy, of the signals that it needs, by their names, for the program in an artifact's card; empty if it needs
    more than those.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    history: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    least_exits: ClassVar[int] = 2
    formula: ClassVar[str] = ""

    @classmethod
    def fit(cls, signals: Sequence[Signals], loss: Float) -> Self:
        """Return the policy with parameters fitted on calibration samples; without parameters there is nothing to fit.

        Args:
            signals: of E exits on the same N samples.
            loss: float32 [E, N] in [0, 1], of each exit's decision; without targets, against the last exit's decision.
        """
        del signals, loss
        return cls()

    def score(self, exit_index: int, signals: Sequence[Signals]) -> Float:
        """Return the score of each row, [B], in [0, 1]; NaN where its signals are NaN, so that the row does not exit.

        Use numpy's ufuncs and arithmetic alone: the layout 'graph' traces them into ONNX nodes.

        Args:
            exit_index: of the exit.
            signals: of the exits so far on the same rows, the last of them this exit's; with ``history`` unset the
                earlier ones may be missing.
        """
        raise NotImplementedError

    def gate(self, exit_index: int, threshold: np.float32) -> Gate:
        """Return the function that says which rows exit: those whose score reaches the threshold; NaN does not.

        Override it where the same result, to the bit, takes less work at every call.

        Args:
            exit_index: of the exit.
            threshold: of the exit.
        """

        def exits_here(signals: Sequence[Signals]) -> npt.NDArray[np.bool_]:
            # as the calibration kept the scores among which it chose: a number of float64 makes a score float64
            score = np.asarray(self.score(exit_index, signals), np.float32)
            reached: npt.NDArray[np.bool_] = np.greater_equal(score, threshold)
            return reached

        return exits_here

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the fields, as the manifest writes them."""
        return asdict(self)
