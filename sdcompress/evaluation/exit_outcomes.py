"""Run samples through an engine and return outputs, signals or losses of all its exits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sdcompress.data.lengths import sorted_by_length
from sdcompress.data.samples import Samples, row_batches
from sdcompress.errors import DataError, VerificationError
from sdcompress.modalities import Inputs
from sdcompress.policies._base import Float, Signals
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine
from sdcompress.tasks import Array, Task, metric_of

__all__ = [
    "ExitOutcomes",
    "Measured",
    "batches",
    "check_finite",
    "exit_losses",
    "exit_outcomes",
    "exit_outputs",
    "last_decisions",
]


@dataclass(frozen=True)
class Measured:
    """Losses and measures of N samples at one exit, or at the exits' ensemble; what is kept instead of outputs.

    Attributes:
        loss: float32 [N].
        measures: [N, ...] each, from which the task computes further metrics.
    """

    loss: Float
    measures: dict[str, Array]

    @classmethod
    def of(cls, task: Task, outputs: Array, targets: Array) -> Measured:
        """Return losses and measures of the outputs of a batch, [B, ...]."""
        return cls(task.loss(task.decide(outputs), targets), task.measures(outputs, targets))

    @classmethod
    def joined(cls, parts: Sequence[Measured]) -> Measured:
        """Concatenate several batches."""
        names = parts[0].measures
        measures = {name: np.concatenate([part.measures[name] for part in parts]) for name in names}
        return cls(np.concatenate([part.loss for part in parts]), measures)

    def metrics(self, task: Task) -> dict[str, float]:
        """Return the metric and further metrics of the task, by name."""
        return {task.metric: metric_of(self.loss), **task.summary(self.measures)}


class ExitOutcomes(NamedTuple):
    """What E exits say of N samples.

    Attributes:
        signals: of each exit.
        loss: float32 [E, N], of the exits' decisions against the targets, the last exit's decisions or a reference's.
        disagreement: float32 [E-1, N], of the early exits' decisions against those of the last exit.
    """

    signals: tuple[Signals, ...]
    loss: Float
    disagreement: Float


def exit_outputs(engine: Engine, samples: Samples, *, batch: int = 256, progress: Progress | None = None) -> Float:
    """Return the outputs of every exit for all samples, float32 [E, N, ...].

    Args:
        engine: runs the network.
        samples: N of them.
        batch: samples at a time.
        progress: called with (samples done, all samples).

    Raises:
        DataError: if there are no samples, or they do not fit the network.
        VerificationError: if an output is not finite.
    """
    samples, back = sorted_by_length(samples, engine.modality)
    parts = batches(engine, samples, batch, progress)
    return np.concatenate([check_finite(engine.exits(inputs)) for inputs, _ in parts], axis=1)[:, back]


def last_decisions(engine: Engine, samples: Samples, *, labelled: bool, progress: Progress | None = None) -> Array:
    """Return the decisions of the last exit for all samples, [N, ...]; other decisions of one batch are in memory.

    Args:
        engine: runs the network.
        samples: N of them.
        labelled: check that the targets fit the task; False: they are not used.
        progress: called with (samples done, all samples).

    Raises:
        DataError: if there are no samples, or they do not fit the network.
        VerificationError: if an output is not finite.
    """
    samples, back = sorted_by_length(samples, engine.modality)
    parts = _signal_batches(engine, samples, None, progress, labelled=labelled)
    return np.concatenate([signals[-1].decision for signals, _ in parts])[back]


def exit_outcomes(
    engine: Engine,
    samples: Samples,
    temperatures: Sequence[float] | None = None,
    *,
    unlabelled: bool = False,
    reference: Array | None = None,
    progress: Progress | None = None,
) -> ExitOutcomes:
    """Return the signals of all exits, and the losses of their decisions.

    Of decisions that are large, such as masks, no more than one batch is in memory; see ``Signals.condensed``.

    Args:
        engine: runs the artifact's graphs.
        samples: N of them.
        temperatures: of every exit; None: those of the artifact.
        unlabelled: take losses against the last exit's decisions, or the reference; targets are not used.
        reference: decisions of another network, [N, ...].
        progress: called with (samples done, all samples).

    Raises:
        DataError, VerificationError: as ``last_decisions``.
    """
    samples, back = sorted_by_length(samples, engine.modality)
    order = np.arange(len(samples))
    order[back] = order.copy()
    parts, losses, disagreement, done = [], [], [], 0
    for signals, targets in _signal_batches(engine, samples, temperatures, progress, labelled=not unlabelled):
        rows = order[done : done + len(targets)]
        others = signals[-1].decision if reference is None else reference[rows]
        losses.append(exit_losses(engine.task, signals, others if unlabelled else targets))
        same = unlabelled and reference is None
        disagreement.append(losses[-1][:-1] if same else _against_last(engine.task, signals))
        parts.append(Signals.condensed(signals))
        done += len(targets)
    joined = (Signals.joined(exit_).map(itemgetter(back)) for exit_ in zip(*parts, strict=True))
    return ExitOutcomes(
        tuple(joined), np.concatenate(losses, axis=1)[:, back], np.concatenate(disagreement, axis=1)[:, back]
    )


def _against_last(task: Task, signals: Sequence[Signals]) -> Float:
    if len(signals) == 1:
        return np.empty((0, len(signals[0])), np.float32)
    return exit_losses(task, signals[:-1], signals[-1].decision)


def _signal_batches(
    engine: Engine,
    samples: Samples,
    temperatures: Sequence[float] | None,
    progress: Progress | None,
    *,
    labelled: bool,
) -> Iterator[tuple[tuple[Signals, ...], Array]]:
    """Yield the signals of every exit and the targets, batch by batch, after a check that the signals are finite."""
    for inputs, targets in batches(engine, samples, 256, progress, labelled=labelled):
        signals = engine.signals(inputs, temperatures)
        _check_sums(np.stack([sum(exit_.columns.values()) for exit_ in signals]))
        yield signals, targets


def exit_losses(task: Task, signals: Sequence[Signals], targets: Array) -> Float:
    """Return the losses of all exits' decisions, float32 [E, N] in [0, 1].

    Args:
        task: of the network.
        signals: of the E exits.
        targets: [N, ...], or the decisions of a reference.
    """
    return np.stack([task.loss(exit_.decision, targets) for exit_ in signals])


def batches(
    engine: Engine, samples: Samples, batch: int, progress: Progress | None = None, *, labelled: bool = True
) -> Iterator[tuple[Inputs, Array]]:
    """Yield inputs and targets batch by batch, after a check that both fit the network.

    Args:
        engine: prepares the inputs.
        samples: N of them.
        batch: samples at a time.
        progress: called with (samples done, all samples).
        labelled: check that the targets fit the task; False: they are not used.

    Raises:
        DataError: if there are no samples, or they do not fit the network.
    """
    batch = engine.task.batch_size(batch, len(engine.exit_names))
    if len(samples) == 0:
        raise DataError("There are no samples to measure on.", next_step="choose a split or a data set that has some")
    if labelled:
        engine.task.check_targets(samples.targets)
    for rows in row_batches(len(samples), batch):
        yield engine.modality.collate(samples.examples(rows)), samples.targets[rows]
        if progress:
            progress(int(rows[-1]) + 1, len(samples))


def check_finite(outputs: Float) -> Float:
    """Return the outputs [E, B, ...], once every one is finite.

    Raises:
        VerificationError: if one is not.
    """
    _check_sums(outputs.sum(axis=tuple(range(2, outputs.ndim)), dtype=np.float64))
    return outputs


def _check_sums(sums: npt.NDArray[np.floating]) -> None:
    """Refuse sums [E, B] that are not all finite."""
    broken = sums.shape[1] - np.count_nonzero(np.isfinite(sums).all(axis=0))
    if broken:
        raise VerificationError(
            f"The network's outputs are not finite for {broken} of {sums.shape[1]} samples.",
            allowed="finite outputs",
            next_step="the weights are broken: look at the losses of its training, or evaluate an earlier checkpoint",
        )
