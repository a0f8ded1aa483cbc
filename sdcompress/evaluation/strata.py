"""Compute the metric of each stratum, their mean, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sdcompress.schema.report import StratumEvaluation

__all__ = ["balanced_metric", "confusion", "stratum_scores"]

Strata = npt.NDArray[np.int64]
Losses = npt.NDArray[np.floating]


def stratum_scores(
    names: Sequence[str], strata: Strata, loss: Losses, last_loss: Losses | None = None
) -> tuple[StratumEvaluation, ...]:
    """Return the metric on the samples of each stratum, in their order.

    Args:
        names: of the K strata.
        strata: [N], in 0..K-1.
        loss: [N].
        last_loss: [N], of the last exit; None without a policy.
    """
    counts = np.bincount(strata, minlength=len(names))
    score, last_exit_metric = (
        None if each is None else np.bincount(strata, weights=1 - each.astype(np.float64), minlength=len(names))
        for each in (loss, last_loss)
    )
    assert score is not None
    return tuple(
        StratumEvaluation(
            name=name,
            samples=int(counts[k]),
            metric=float(score[k] / counts[k]) if counts[k] else None,
            last_exit_metric=float(last_exit_metric[k] / counts[k])
            if last_exit_metric is not None and counts[k]
            else None,
        )
        for k, name in enumerate(names)
    )


def balanced_metric(scores: Sequence[StratumEvaluation]) -> float | None:
    """Return the mean of the metrics of all strata with samples, each with the same weight; None without samples."""
    values = [score.metric for score in scores if score.metric is not None]
    return float(np.mean(values)) if values else None


def confusion(strata: Strata, decided: Strata, count: int) -> tuple[tuple[int, int, int], ...]:
    """Return the cells of the confusion matrix that are not 0: stratum, stratum of the decision, samples; row by row.

    Args:
        strata: [N], in 0..K-1.
        decided: [N], likewise.
        count: K.
    """
    cells, counts = np.unique(strata * count + decided, return_counts=True)
    return tuple((int(cell // count), int(cell % count), int(times)) for cell, times in zip(cells, counts, strict=True))
