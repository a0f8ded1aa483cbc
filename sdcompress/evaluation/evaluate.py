"""Run a split through an engine and score every exit; the policy is scored as it runs, not simulated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.data.samples import Samples
from sdcompress.errors import DataError, VerificationError
from sdcompress.evaluation.classes import balanced_accuracy, class_scores, confusion
from sdcompress.evaluation.paired import digest_of_labels, pack
from sdcompress.modalities import Inputs
from sdcompress.policies._base import Float, Signals
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine
from sdcompress.schema.report import ENSEMBLE, Evaluation, ExitScore, PolicyScore
from sdcompress.tasks._probabilities import calibration_error, log_softmax

__all__ = ["ENSEMBLE", "batches", "evaluate", "exit_logits", "exit_signals"]


@dataclass(frozen=True)
class _Answers:
    """What is kept of N samples under R scores (the exits and, where there are several, their mean).

    Attributes:
        right: whether the class is the label, [R, N].
        confidence: the largest probability, [R, N].
        log_likelihood: of the label, [R, N].
    """

    right: npt.NDArray[np.bool_]
    confidence: npt.NDArray[np.float64]
    log_likelihood: npt.NDArray[np.float64]

    @classmethod
    def to(cls, logits: Float, labels: npt.NDArray[np.int64]) -> _Answers:
        """Of logits [E, N, K]."""
        scores = log_softmax(logits)
        if len(scores) > 1:
            # never above 0: rounding makes a mean of certain exits likelier than certain
            mean = np.minimum(np.logaddexp.reduce(scores, axis=0) - np.log(len(scores)), 0.0)
            scores = np.concatenate([scores, mean[None]])
        return cls(
            scores.argmax(axis=2) == labels, np.exp(scores.max(axis=2)), scores[:, np.arange(len(labels)), labels]
        )


def exit_logits(
    engine: Engine, samples: Samples, *, batch: int = 256, labelled: bool = True, progress: Progress | None = None
) -> Float:
    """The logits of every exit for all samples, float32 [E, N, K].

    Args:
        engine: what is run.
        samples: N images and labels.
        batch: images at a time.
        labelled: whether the labels must be of this network's classes; they are not looked at otherwise.
        progress: called with (images done, all images).

    Raises:
        DataError: if the samples are none, or not of this network's classes and size.
        VerificationError: if a logit is not finite.
    """
    found = batches(engine, samples, batch, progress, labelled=labelled)
    return np.concatenate([_finite(engine.exits(inputs)) for inputs, _ in found], axis=1)


def exit_signals(
    engine: Engine,
    samples: Samples,
    temperatures: Sequence[float] | None = None,
    *,
    batch: int = 256,
    labelled: bool = True,
    progress: Progress | None = None,
) -> tuple[Signals, ...]:
    """The signals of every exit for all samples, [N] each; logits are never held for more than one batch.

    Args:
        engine: what is run.
        samples: N images and labels.
        temperatures: one for each exit; None: those of the artifact.
        batch: images at a time.
        labelled: whether the labels must be of this network's classes; they are not looked at otherwise.
        progress: called with (images done, all images).

    Raises:
        DataError: if the samples are none, or not of this network's classes and size.
        VerificationError: if a logit is not finite.
    """
    parts = []
    for inputs, _ in batches(engine, samples, batch, progress, labelled=labelled):
        found = engine.signals(inputs, temperatures)
        _check_finite(np.stack([sum(exit_.columns.values()) for exit_ in found]))
        parts.append(found)
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
    split: Literal["validation", "test", "own"],
    batch: int = 256,
    progress: Progress | None = None,
) -> Evaluation:
    """Score an engine on one split: each exit, the mean of their probabilities, the policy if any, and each class.

    Args:
        engine: what is scored.
        samples: N images and labels.
        kind: what the engine was opened from.
        name: in reports.
        source: the folder as given.
        digest: of the folder.
        data: the data set's name.
        split: which split the samples are.
        batch: images at a time.
        progress: called with (images done, all images).

    Raises:
        DataError: if the samples are none, or not of this network's classes and size.
        VerificationError: if a logit is not finite.
    """
    parts: list[_Answers] = []
    last: list[npt.NDArray[np.int64]] = []
    by_policy: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for inputs, labels in batches(engine, samples, batch, progress):
        logits = _finite(engine.exits(inputs))
        parts.append(_Answers.to(logits, labels))
        last.append(logits[-1].argmax(axis=1))
        if engine.policy is not None:
            found = engine(inputs)
            by_policy.append((found.exit_index, found.decision))
    last_answers = np.concatenate(last)
    left, answers = map(np.concatenate, zip(*by_policy, strict=True)) if by_policy else (None, last_answers)
    right = answers == samples.targets
    scores = class_scores(engine.task.outputs, samples.targets, answers, None if left is None else last_answers)
    return Evaluation(
        kind=kind,
        name=name,
        source=source,
        digest=digest,
        data=data,
        split=split,
        samples=len(samples),
        exits=_exit_scores(engine, parts),
        policy=None if left is None else _policy_score(engine, left, right),
        balanced_accuracy=balanced_accuracy(scores),
        classes=scores,
        confusion=confusion(samples.targets, answers, len(engine.task.outputs)),
        right=pack(right),
        labels_sha256=digest_of_labels(samples.targets),
    )


def _exit_scores(engine: Engine, parts: list[_Answers]) -> tuple[ExitScore, ...]:
    right = np.concatenate([part.right for part in parts], axis=1)
    confidence = np.concatenate([part.confidence for part in parts], axis=1)
    log_likelihood = np.concatenate([part.log_likelihood for part in parts], axis=1)
    costs = (*engine.exit_costs, None)  # the ensemble needs every head: no exit's cost is its cost
    return tuple(
        ExitScore(
            name=name,
            accuracy=float(right[row].mean()),
            nll=float(-log_likelihood[row].mean()),
            ece=calibration_error(confidence[row], right[row]),
            macs=cost.macs if cost else None,
            parameters=cost.parameters if cost else None,
        )
        for row, (name, cost) in enumerate(zip((*engine.exit_names, ENSEMBLE)[: len(right)], costs, strict=False))
    )


def _policy_score(engine: Engine, left: npt.NDArray[np.int64], right: npt.NDArray[np.bool_]) -> PolicyScore:
    at = [left == position for position in range(len(engine.exit_names))]
    return PolicyScore(
        accuracy=float(right.mean()),
        shares=tuple(float(here.mean()) for here in at),
        exit_accuracy=tuple(float(right[here].mean()) if here.any() else None for here in at),
    )


def batches(
    engine: Engine, samples: Samples, batch: int, progress: Progress | None = None, *, labelled: bool = True
) -> Iterator[tuple[Inputs, npt.NDArray[np.int64]]]:
    """Inputs [b, C, H, W] and labels [b], batch by batch, once both are known to fit the network.

    Args:
        engine: that will be run on them.
        samples: N images and labels.
        batch: images at a time.
        progress: called with (images done, all images).
        labelled: whether the labels must be of this network's classes; they are not looked at otherwise.

    Raises:
        DataError: if the samples are none, or not of this network's classes and size.
    """
    _check_labels(engine, samples, labelled=labelled)
    for start in range(0, len(samples), batch):
        rows = np.arange(start, min(start + batch, len(samples)))
        yield engine.modality.collate(samples.examples(rows)), samples.targets[rows]
        if progress:
            progress(int(rows[-1]) + 1, len(samples))


def _check_labels(engine: Engine, samples: Samples, *, labelled: bool) -> None:
    classes = len(engine.task.outputs)
    if len(samples) == 0:
        raise DataError("There are no samples to measure on.", next_step="choose a split or a data set that has some")
    if not labelled:
        return
    low, high = int(samples.targets.min()), int(samples.targets.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"The labels go from {low} to {high}, but the network knows {classes} classes.",
            allowed=f"0 to {classes - 1}",
            next_step="use the data set that the network was trained on",
        )


def _finite(logits: Float) -> Float:
    _check_finite(logits.sum(axis=2, dtype=np.float64))
    return logits


def _check_finite(found: npt.NDArray[np.floating]) -> None:
    """Refuse numbers [E, B] of which one is not finite."""
    broken = found.shape[1] - np.count_nonzero(np.isfinite(found).all(axis=0))
    if broken:
        raise VerificationError(
            f"The network's logits are not finite for {broken} of {found.shape[1]} images.",
            allowed="finite logits",
            next_step="the weights are broken: look at the losses of its training, or evaluate an earlier checkpoint",
        )
