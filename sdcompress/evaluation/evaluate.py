"""Run a split through an engine and score every exit; the policy is scored as it runs, not simulated."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.data.samples import Samples
from sdcompress.errors import DataError, VerificationError
from sdcompress.evaluation.measured import Measured
from sdcompress.evaluation.paired import digest_of_targets, pack
from sdcompress.evaluation.pictures import side_by_side
from sdcompress.evaluation.strata import balanced_metric, confusion, means, stratum_scores
from sdcompress.modalities import Inputs
from sdcompress.policies._base import Float, Signals
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine
from sdcompress.schema.report import ENSEMBLE, Evaluation, ExitEvaluation, PolicyEvaluation
from sdcompress.tasks import Array, Task, metric_of, standard_error

__all__ = ["ENSEMBLE", "batches", "evaluate", "exit_outputs", "exit_signals"]


Exits = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Decided:
    """What users get of N samples: by the policy, or of the last exit without one.

    Attributes:
        loss: float32 [N].
        exit_index: int64 [N]; None without a policy.
        strata: int64 [N], of the decisions; None if the task has none.
    """

    loss: Float
    exit_index: Exits | None
    strata: Exits | None


def exit_outputs(
    engine: Engine, samples: Samples, *, batch: int = 256, labelled: bool = True, progress: Progress | None = None
) -> Float:
    """Return the outputs of every exit for all samples, float32 [E, N, ...].

    Args:
        engine: what is run.
        samples: N of them.
        batch: samples at a time.
        labelled: whether the targets must be of this network's task; they are not looked at otherwise.
        progress: called with (samples done, all samples).

    Raises:
        DataError: if there are no samples, or they do not fit the network.
        VerificationError: if an output is not finite.
    """
    parts = batches(engine, samples, batch, progress, labelled=labelled)
    return np.concatenate([_finite(engine.exits(inputs)) for inputs, _ in parts], axis=1)


def exit_signals(
    engine: Engine,
    samples: Samples,
    temperatures: Sequence[float] | None = None,
    *,
    batch: int = 256,
    labelled: bool = True,
    progress: Progress | None = None,
) -> tuple[Signals, ...]:
    """Return the signals of every exit for all samples, [N] each; outputs are never held for more than one batch.

    Args:
        engine: what is run.
        samples: N of them.
        temperatures: one for each exit; None: those of the artifact.
        batch: samples at a time.
        labelled: whether the targets must be of this network's task; they are not looked at otherwise.
        progress: called with (samples done, all samples).

    Raises:
        DataError: if there are no samples, or they do not fit the network.
        VerificationError: if an output is not finite.
    """
    parts = []
    for inputs, _ in batches(engine, samples, batch, progress, labelled=labelled):
        signals = engine.signals(inputs, temperatures)
        _check_finite(np.stack([sum(exit_.columns.values()) for exit_ in signals]))
        parts.append(signals)
    return tuple(map(Signals.joined, zip(*parts, strict=True)))


def evaluate(
    engine: Engine,
    samples: Samples,
    *,
    kind: Literal["checkpoint", "artifact"],
    name: str,
    source: str,
    digest: str | None,
    data: str,
    split: Literal["validation", "test", "external"],
    batch: int = 256,
    progress: Progress | None = None,
) -> Evaluation:
    """Score an engine on one split: each exit, their ensemble, the policy if any, and each stratum if there are any.

    Args:
        engine: what is scored.
        samples: N of them.
        kind: what the engine was opened from.
        name: in reports.
        source: the folder as given.
        digest: of the folder.
        data: the data set's name.
        split: which split the samples are.
        batch: samples at a time.
        progress: called with (samples done, all samples).

    Raises:
        DataError: if there are no samples, or they do not fit the network.
        VerificationError: if an output is not finite.
    """
    task = engine.task
    parts: list[list[Measured]] = []
    decided: list[_Decided] = []
    for inputs, targets in batches(engine, samples, batch, progress):
        outputs = _finite(engine.exits(inputs))
        parts.append(_rows(task, outputs, targets))
        decided.append(_decided(engine, inputs, outputs[-1], targets))
    rows = [Measured.joined(row) for row in zip(*parts, strict=True)]
    loss = np.concatenate([part.loss for part in decided])
    exit_index = _joined([part.exit_index for part in decided])
    strata, names = task.strata(samples.targets), task.strata_names
    decided_strata = _joined([part.strata for part in decided])
    exit_loss = [row.loss for row in rows[: len(engine.exit_names)]]
    scores = () if strata is None else stratum_scores(names, strata, loss, exit_loss, exit_index)
    pictures = side_by_side(engine, samples)
    return Evaluation(
        kind=kind,
        name=name,
        source=source,
        digest=digest,
        data=data,
        split=split,
        samples=len(samples),
        metric_name=task.metric,
        exits=_exit_scores(engine, rows, strata),
        policy=None if exit_index is None else _policy_score(engine, exit_index, loss),
        stratum=None if strata is None else task.stratum,
        balanced_metric=balanced_metric(scores),
        strata=scores,
        confusion=() if strata is None or decided_strata is None else confusion(strata, decided_strata, len(names)),
        losses=pack(loss),
        targets_sha256=digest_of_targets(samples.targets),
        pictures=None if pictures is None else base64.b64encode(pictures).decode("ascii"),
    )


def _rows(task: Task, outputs: Float, targets: Array) -> list[Measured]:
    """The exits' rows of a batch, then that of their ensemble where there are several exits and the task has one."""
    ensemble = task.ensemble(outputs) if len(outputs) > 1 else None
    scored = [*outputs, *([] if ensemble is None else [ensemble])]
    return [Measured.of(task, each, targets) for each in scored]


def _decided(engine: Engine, inputs: Inputs, last_outputs: Float, targets: Array) -> _Decided:
    task, exit_index = engine.task, None
    if engine.policy is not None:
        prediction = engine(inputs)
        last_outputs, exit_index = prediction.outputs, prediction.exit_index
    decisions = task.decide(last_outputs)
    return _Decided(task.loss(decisions, targets), exit_index, task.strata(decisions))


def _joined(parts: Sequence[Exits | None]) -> Exits | None:
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if present else None


def _exit_scores(engine: Engine, rows: Sequence[Measured], strata: Exits | None) -> tuple[ExitEvaluation, ...]:
    count = len(engine.task.strata_names)
    costs = (*engine.exit_costs, None)  # the ensemble needs every head: no exit's cost is its cost
    return tuple(
        ExitEvaluation(
            name=name,
            metric=metric_of(row.loss),
            standard_error=standard_error(row.loss),
            balanced_metric=None if strata is None else float(np.nanmean(means(strata, row.loss, count))),
            further=engine.task.summary(row.measures),
            macs=cost.macs if cost else None,
            parameters=cost.parameters if cost else None,
        )
        for row, name, cost in zip(rows, (*engine.exit_names, ENSEMBLE), costs, strict=False)
    )


def _policy_score(engine: Engine, exit_index: Exits, loss: Float) -> PolicyEvaluation:
    leaving = [exit_index == position for position in range(len(engine.exit_names))]
    return PolicyEvaluation(
        metric=metric_of(loss),
        standard_error=standard_error(loss),
        shares=tuple(float(mask.mean()) for mask in leaving),
        metric_by_exit=tuple(metric_of(loss[mask]) if mask.any() else None for mask in leaving),
    )


def batches(
    engine: Engine, samples: Samples, batch: int, progress: Progress | None = None, *, labelled: bool = True
) -> Iterator[tuple[Inputs, Array]]:
    """Inputs and targets, batch by batch, once both are known to fit the network.

    Args:
        engine: that will be run on them.
        samples: N of them.
        batch: samples at a time; fewer where each has many outputs.
        progress: called with (samples done, all samples).
        labelled: whether the targets must be of this network's task; they are not looked at otherwise.

    Raises:
        DataError: if there are no samples, or they do not fit the network.
    """
    batch = engine.task.batch_size(batch, len(engine.exit_names))
    if len(samples) == 0:
        raise DataError("There are no samples to measure on.", next_step="choose a split or a data set that has some")
    if labelled:
        engine.task.check_targets(samples.targets)
    for start in range(0, len(samples), batch):
        rows = np.arange(start, min(start + batch, len(samples)))
        yield engine.modality.collate(samples.examples(rows)), samples.targets[rows]
        if progress:
            progress(int(rows[-1]) + 1, len(samples))


def _finite(outputs: Float) -> Float:
    _check_finite(outputs.sum(axis=tuple(range(2, outputs.ndim)), dtype=np.float64))
    return outputs


def _check_finite(sums: npt.NDArray[np.floating]) -> None:
    """Refuse numbers [E, B] of which one is not finite."""
    broken = sums.shape[1] - np.count_nonzero(np.isfinite(sums).all(axis=0))
    if broken:
        raise VerificationError(
            f"The network's outputs are not finite for {broken} of {sums.shape[1]} samples.",
            allowed="finite outputs",
            next_step="the weights are broken: look at the losses of its training, or evaluate an earlier checkpoint",
        )
