"""Evaluate every exit, their ensemble and the policy on a split; the policy is run, not simulated."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.data.lengths import sorted_by_length
from sdcompress.data.samples import Samples
from sdcompress.evaluation.exit_outcomes import Measured, batches, check_finite
from sdcompress.evaluation.paired import digest_of_targets, pack
from sdcompress.evaluation.pictures import side_by_side
from sdcompress.evaluation.strata import balanced_metric, confusion, means, stratum_scores
from sdcompress.modalities import Inputs
from sdcompress.policies._base import Float
from sdcompress.progress import Progress
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.engine import Engine
from sdcompress.schema.report import ENSEMBLE, Evaluation, ExitEvaluation, PolicyEvaluation
from sdcompress.tasks import Array, Task, metric_of, standard_error

__all__ = ["evaluate"]

Exits = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Decided:
    """Decisions for N samples: those of the policy, or of the last exit without one.

    Attributes:
        measured: losses [N], and what further metrics need.
        exit_index: int64 [N]; None without a policy.
        strata: int64 [N], of the decisions; None if the task has no confusion matrix.
    """

    measured: Measured
    exit_index: Exits | None
    strata: Exits | None


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
    """Evaluate an engine on one split: each exit, their ensemble, the policy if any, and each stratum if there are any.

    Exits that are ensembles themselves (``export.ensemble``) have no further one, which would count early heads twice.

    Args:
        engine: runs the network.
        samples: N of them.
        kind: of the source.
        name: in reports.
        source: the folder as given.
        digest: of the folder.
        data: name of the data set.
        split: of the samples.
        batch: samples at a time.
        progress: called with (samples done, all samples).

    Raises:
        DataError: if there are no samples, or they do not fit the network.
        VerificationError: if an output is not finite.
    """
    task, (samples, back) = engine.task, sorted_by_length(samples, engine.modality)
    # where exits are ensembles, the last one is that of all
    with_ensemble = not (isinstance(engine, CascadeEngine) and engine.manifest.exits_are_ensembles)
    parts: list[list[Measured]] = []
    decided: list[_Decided] = []
    for inputs, targets in batches(engine, samples, batch, progress):
        outputs = check_finite(engine.exits(inputs))
        parts.append(_rows(task, outputs, targets, with_ensemble=with_ensemble))
        decided.append(_decided(engine, inputs, outputs[-1], targets, parts[-1][len(outputs) - 1]))
    rows = [Measured.joined(row) for row in zip(*parts, strict=True)]
    measured = Measured.joined([part.measured for part in decided])
    loss = measured.loss
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
        binary_loss=task.binary_loss,
        exits=_exit_scores(engine, rows, strata),
        policy=None if exit_index is None else _policy_score(engine, exit_index, measured),
        stratum=None if strata is None else task.stratum,
        balanced_metric=balanced_metric(scores),
        strata=scores,
        confusion=() if strata is None or decided_strata is None else confusion(strata, decided_strata, len(names)),
        losses=pack(loss[back]),
        targets_sha256=digest_of_targets(samples.targets[back]),
        pictures=None if pictures is None else base64.b64encode(pictures).decode("ascii"),
    )


def _rows(task: Task, outputs: Float, targets: Array, *, with_ensemble: bool) -> list[Measured]:
    """Return the exits of a batch, and their ensemble if it exists and is asked for."""
    ensemble = task.ensemble(outputs) if len(outputs) > 1 and with_ensemble else None
    scored = [*outputs, *([] if ensemble is None else [ensemble])]
    return [Measured.of(task, each, targets) for each in scored]


def _decided(engine: Engine, inputs: Inputs, outputs: Float, targets: Array, measured: Measured) -> _Decided:
    """Return the policy's decisions; without a policy those of the last exit, whose outputs were measured."""
    task, exit_index = engine.task, None
    if engine.policy is not None:
        prediction = engine(inputs)
        outputs, exit_index = prediction.outputs, prediction.exit_index
        measured = Measured.of(task, outputs, targets)
    # a confusion matrix needs decisions that are strata, as classes are
    confusable = task.binary_loss and task.strata_names == task.outputs
    return _Decided(measured, exit_index, task.strata(task.decide(outputs)) if confusable else None)


def _joined(parts: Sequence[Exits | None]) -> Exits | None:
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if present else None


def _exit_scores(engine: Engine, rows: Sequence[Measured], strata: Exits | None) -> tuple[ExitEvaluation, ...]:
    count = len(engine.task.strata_names)
    costs = (*engine.exit_costs, None)  # the ensemble needs every head, so that it has the cost of no exit
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


def _policy_score(engine: Engine, exit_index: Exits, measured: Measured) -> PolicyEvaluation:
    loss = measured.loss
    exits_here = [exit_index == k for k in range(len(engine.exit_names))]
    return PolicyEvaluation(
        metric=metric_of(loss),
        standard_error=standard_error(loss),
        further=engine.task.summary(measured.measures),
        shares=tuple(float(mask.mean()) for mask in exits_here),
        metric_by_exit=tuple(metric_of(loss[mask]) if mask.any() else None for mask in exits_here),
    )
