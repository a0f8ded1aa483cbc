"""Run the stages of an artifact one by one, so that rows of several calls can share a stage."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sdcompress.policies._base import ExitPolicy, Float, Gate, Signals
from sdcompress.runtime.backends._base import Array
from sdcompress.runtime.segments import Stage

__all__ = ["Carried", "StageResult", "Stepwise"]

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Carried:
    """Rows between two stages: what the stages behind need of them. Nothing writes to these arrays.

    Attributes:
        tensors: name -> array [B, ...].
        signals: of the exits so far, where the policy looks back.
    """

    tensors: Mapping[str, Array]
    signals: tuple[Signals, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    @property
    def shape(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Return the names and shapes of the tensors without the batch; rows of equal shape can be joined."""
        return tuple((name, array.shape[1:]) for name, array in self.tensors.items())

    def chosen(self, rows: Rows) -> Carried:
        """Return a copy of some rows; uncopied if they are all rows in their order."""
        if len(rows) == len(self) and bool((rows == np.arange(len(rows))).all()):
            return self
        return Carried(
            {name: array[rows] for name, array in self.tensors.items()},
            tuple(signals.map(lambda column: column[rows]) for signals in self.signals),
        )

    @classmethod
    def joined(cls, parts: Sequence[tuple[Carried, Rows]]) -> Carried:
        """Return rows of several batches as one batch; each row is copied once, and none if they are one whole batch.

        Args:
            parts: batches of equal ``shape``, and which of their rows, in this order.
        """
        first = parts[0][0]
        if all(carried is first for carried, _ in parts):
            return first.chosen(np.concatenate([rows for _, rows in parts]))
        ends = np.cumsum([len(rows) for _, rows in parts])
        tensors = {
            name: np.empty((int(ends[-1]), *array.shape[1:]), array.dtype) for name, array in first.tensors.items()
        }
        for (carried, rows), end in zip(parts, ends, strict=True):
            for name, tensor in tensors.items():
                tensor[end - len(rows) : end] = carried.tensors[name][rows]
        signals = tuple(
            Signals.joined([carried.signals[k].map(lambda column, rows=rows: column[rows]) for carried, rows in parts])
            for k in range(len(first.signals))
        )
        return cls(tensors, signals)


class StageResult(NamedTuple):
    """What a stage computes of B rows.

    Attributes:
        outputs: float32 [B, ...], of the exit at its end; None: they were left out.
        scores: float32 [B], which the policy compares with the exit's threshold; None at the last exit, without a
            policy, and where no row exits by it.
        exits: bool [B], which rows the policy lets exit here; all of them at the last exit.
        carried: all B rows for the next stage.
    """

    outputs: Float | None
    scores: Float | None
    exits: npt.NDArray[np.bool_]
    carried: Carried


class Stepwise:
    """The stages of an artifact, each as a call; calls may come from several threads at once.

    A row takes the same exits as in ``CascadeEngine``, whatever rows share its stages.

    Args:
        stages: one for each exit.
        temperatures: one for each exit.
        policy: None: all rows run to the last exit.
        gates: of the policy, one for each exit but the last.
        headless: the same stages; those of ``unused`` may compute no outputs of their exit.
        unused: exits that no row takes by the policy.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        temperatures: Sequence[float],
        policy: ExitPolicy | None,
        gates: Sequence[Gate],
        *,
        headless: Sequence[Stage],
        unused: Collection[int],
    ) -> None:
        self._stages, self._temperatures, self._policy, self._gates = stages, temperatures, policy, gates
        self._headless, self._unused = headless, unused

    def __len__(self) -> int:
        return len(self._stages)

    def run(self, exit_index: int, carried: Carried, *, outputs: bool = True) -> StageResult:
        """Run the stage that ends at an exit.

        Args:
            exit_index: of the exit.
            carried: at least one row; for stage 0 the checked inputs of the network, else from the stage before.
            outputs: False: leave out the outputs of an exit that no row takes by the policy, and compute no head there.

        Raises:
            ArtifactError: if a graph cannot compute these rows.
        """
        unused, last = exit_index in self._unused, exit_index == len(self._stages) - 1
        left_out = unused and not outputs
        stage, tensors = (self._headless if left_out else self._stages)[exit_index], dict(carried.tensors)
        stage.run(tensors)
        computed = None if left_out else np.asarray(tensors[stage.exit.outputs], np.float32)
        kept = {name: tensors[name] for name in stage.kept}
        # where the policy looks back, either no exit is unused, or all are: then rows never carry signals
        if self._policy is None or last or left_out or (unused and self._policy.history):
            return StageResult(computed, None, np.full(len(carried), last), Carried(kept, carried.signals))
        signals = (*carried.signals, stage.signals(tensors, self._temperatures[exit_index]))
        scores = np.asarray(self._policy.score(exit_index, signals), np.float32)
        looked_back = signals if self._policy.history else ()
        return StageResult(computed, scores, self._gates[exit_index](signals), Carried(kept, looked_back))
