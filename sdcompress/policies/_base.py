"""The contract of an exit policy, and the signals that it judges by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from sdcompress.tasks._base import Float, Signals

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SIGNALS_ATOL", "ExitPolicy", "Float", "Gate", "Signals"]

SIGNALS_ATOL = 1e-5  # two runtimes may be so far apart in a probability or in nats: float32, summed in another order


# from the signals of the exits so far to the rows that leave, bool [B]
Gate = Callable[[Sequence[Signals]], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class ExitPolicy:
    """When a sample leaves: at the first exit whose score is at least that exit's threshold, both float32.

    A subclass is a frozen dataclass whose fields are its fitted parameters: lists of numbers, as JSON has them. They go
    into the manifest; thresholds are chosen by the calibration, for every policy alike.

    ``needs``: names of the signals that it judges by. ``history``: whether a score looks at earlier exits.
    ``shared``: one threshold for all exits instead of one each.
    ``least_exits``: with fewer the policy is of no use. ``formula``: the score of one sample in numpy, of the
    signals that it needs, by their names, for the program in an artifact's card; empty where it needs more than those.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    history: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    least_exits: ClassVar[int] = 2
    formula: ClassVar[str] = ""

    @classmethod
    def fit(cls, signals: Sequence[Signals], loss: Float) -> Self:
        """Set the parameters on calibration samples; nothing to do for a policy without any.

        Args:
            signals: of E exits on the same N samples.
            loss: float32 [E, N] in [0, 1], of each exit's decision; without targets, against the last exit's decision.
        """
        del signals, loss
        return cls()

    def score(self, exit_: int, signals: Sequence[Signals]) -> Float:
        """How sure the exit is, [B], in [0, 1]; NaN where its signals are NaN, which never leaves.

        Written with numpy's ufuncs and arithmetic alone: the layout 'graph' traces them into ONNX nodes.

        Args:
            exit_: the exit's position.
            signals: of the exits so far on the same rows, the last of them this exit's; with ``history`` unset the
                earlier ones may be missing.
        """
        raise NotImplementedError

    def gate(self, exit_: int, least: np.float32) -> Gate:
        """Which rows leave: those whose score is at least so much. NaN is not at least anything.

        For a policy that can tell the same, to the bit, with less work at every call.

        Args:
            exit_: the exit's position.
            least: the threshold.
        """

        def leaves(signals: Sequence[Signals]) -> npt.NDArray[np.bool_]:
            leaving: npt.NDArray[np.bool_] = np.greater_equal(self.score(exit_, signals), least)
            return leaving

        return leaves

    @property
    def parameters(self) -> dict[str, Any]:
        """The fields, as the manifest writes them."""
        return asdict(self)
