"""Hold one request on its way through the stages, and the outputs of its rows as they exit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sdcompress.policies._base import Float
from sdcompress.runtime.stepwise import Carried, Rows
from sdcompress.serving.call import StageRun

__all__ = ["NO_SCORE", "Job"]

NO_SCORE = -1.0  # of rows that exited without a comparison; scores lie in [0, 1]


@dataclass(eq=False)
class Job:
    """One request of one or more rows. Its rows exit one by one; it is finished when all have.

    Attributes:
        inputs: checked inputs of the network.
        bound: by when it has to be answered, in seconds of the scheduler's clock; requests are ordered by it.
        until: when its client gives up; it is refused if it cannot be answered by then.
        deadline: when its active rows take the deepest exit that they have reached; None: never.
        min_exit: index of the first exit that a row may take.
        max_exit: index of the exit at which all rows are done.
        size: of a row, see ``runtime.cost_model.sample_size``.
        on_end: called once, when it is finished or has failed; not when it was cancelled.
        error: why it failed.
        cancelled: whether its client gave it up.
        cut: whether a row exited because of the deadline.
        covered: whether the policy alone decides, as its certificate presumes.
        level: index of the certified level that it was accepted at.
        thresholds: of that level, one for each exit but the last, float32; None: those of the policy.
        fallen_back: whether it takes the last exit because of drift.
        runs: of its rows at the stages, for a trace; None: they are not noted.
    """

    inputs: Carried
    bound: float
    deadline: float | None = None
    until: float = math.inf
    min_exit: int = 0
    max_exit: int = 2**31
    size: int = 1
    on_end: Callable[[Job], None] = field(default=lambda _: None, repr=False)
    error: Exception | None = None
    cancelled: bool = False
    cut: bool = False
    covered: bool = False
    level: int = 0
    thresholds: Sequence[np.float32] | None = None
    fallen_back: bool = False
    runs: list[StageRun] | None = None

    def __post_init__(self) -> None:
        self.rows = self._open = len(self.inputs)
        self.exit_index: npt.NDArray[np.int64] = np.full(self.rows, -1, np.int64)
        self.scores: Float = np.full(self.rows, NO_SCORE, np.float32)
        self._outputs: Float | None = None

    @property
    def finished(self) -> bool:
        """Return whether all rows have exited."""
        return self._open == 0

    @property
    def outputs(self) -> Float:
        """Return the outputs of all rows, float32 [B, ...], of the exits that they took; only once it is finished."""
        assert self._outputs is not None
        return self._outputs

    def record(self, places: Rows, outputs: Float, scores: Float | None, exit_index: int) -> None:
        """Let rows exit.

        Args:
            places: of the rows in this request.
            outputs: float32 [rows, ...].
            scores: float32 [rows]; None: nothing was compared.
            exit_index: of the exit.
        """
        if self._outputs is None:
            self._outputs = np.empty((self.rows, *outputs.shape[1:]), np.float32)
        self._outputs[places], self.exit_index[places] = outputs, exit_index
        if scores is not None:
            self.scores[places] = scores
        self._open -= len(places)
