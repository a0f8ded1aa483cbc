"""Run a split through an engine and score every exit; the policy is scored as it runs, not simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.data.samples import Samples
from sdcompress.errors import DataError
from sdcompress.evaluate.metrics import accuracy, ece, nll, softmax
from sdcompress.runtime.engine import Engine
from sdcompress.schema.report import Evaluation, ExitScore, PolicyScore

__all__ = ["evaluate", "exit_logits"]

Progress = Callable[[int, int], None]
ENSEMBLE = "ensemble"


def exit_logits(
    engine: Engine, samples: Samples, batch: int = 256, progress: Progress | None = None
) -> npt.NDArray[np.float32]:
    """Logits of every exit for a split, float32 [E, N, K].

    Raises:
        DataError: if a label is none of the engine's classes.
    """
    check_labels(engine, samples)
    found = [engine.exits(inputs) for inputs in _batches(engine, samples, batch, progress)]
    return np.concatenate(found, axis=1)


def evaluate(
    engine: Engine,
    samples: Samples,
    *,
    kind: Literal["checkpoint", "artifact"],
    name: str,
    source: str,
    digest: str | None,
    data: str,
    split: Literal["validation", "test"],
    batch: int = 256,
    progress: Progress | None = None,
) -> Evaluation:
    """Score an engine on one split.

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
        DataError: if there are no samples or a label is none of the engine's classes.
    """
    logits = exit_logits(engine, samples, batch, progress)
    probabilities, labels = softmax(logits), samples.labels
    scores = [
        ExitScore(
            name=exit_,
            accuracy=accuracy(logits[k], labels),
            nll=nll(logits[k], labels),
            ece=ece(probabilities[k], labels),
            macs=cost.macs,
            parameters=cost.parameters,
        )
        for k, (exit_, cost) in enumerate(zip(engine.exit_names, engine.exit_costs, strict=True))
    ]
    if len(scores) > 1:
        mean = probabilities.mean(axis=0)
        chosen = np.maximum(mean[np.arange(len(labels)), labels], np.finfo(np.float64).tiny)
        scores.append(
            ExitScore(
                name=ENSEMBLE, accuracy=accuracy(mean, labels), nll=float(-np.log(chosen).mean()), ece=ece(mean, labels)
            )
        )
    return Evaluation(
        kind=kind,
        name=name,
        source=source,
        digest=digest,
        data=data,
        split=split,
        samples=len(labels),
        exits=tuple(scores),
        policy=_policy(engine, samples, batch) if engine.policy is not None else None,
    )


def check_labels(engine: Engine, samples: Samples) -> None:
    """Refuse samples that do not belong to the engine's classes.

    Raises:
        DataError: if there are none, or a label is outside 0..K-1.
    """
    classes = len(engine.classes)
    if len(samples) == 0:
        raise DataError("There are no samples to measure on.", next_step="choose a split or a data set that has some")
    low, high = int(samples.labels.min()), int(samples.labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"The labels go from {low} to {high}, but the network knows {classes} classes.",
            allowed=f"0 to {classes - 1}",
            next_step="use the data set that the network was trained on",
        )


def _policy(engine: Engine, samples: Samples, batch: int) -> PolicyScore:
    predictions = [engine(inputs) for inputs in _batches(engine, samples, batch, None)]
    logits = np.concatenate([prediction.logits for prediction in predictions])
    left = np.concatenate([prediction.exit_index for prediction in predictions])
    right = logits.argmax(axis=1) == samples.labels
    exits = range(len(engine.exit_names))
    return PolicyScore(
        accuracy=float(right.mean()),
        shares=tuple(float((left == k).mean()) for k in exits),
        exit_accuracy=tuple(float(right[left == k].mean()) if (left == k).any() else None for k in exits),
    )


def _batches(
    engine: Engine, samples: Samples, batch: int, progress: Progress | None
) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(samples), batch):
        index = np.arange(start, min(start + batch, len(samples)))
        yield engine.preprocess(samples.images(index))
        if progress:
            progress(int(index[-1]) + 1, len(samples))
