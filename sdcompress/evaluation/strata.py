"""Compute the metric of each stratum, their mean, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sdcompress.schema.report import StratumEvaluation

__all__ = ["balanced_metric", "confusion", "means", "shares_by_stratum", "stratum_scores"]

Strata = npt.NDArray[np.int64]
Losses = npt.NDArray[np.floating]


def stratum_scores(
    names: Sequence[str],
    strata: Strata,
    loss: Losses,
    exit_loss: Sequence[Losses] = (),
    exit_index: npt.NDArray[np.int64] | None = None,
) -> tuple[StratumEvaluation, ...]:
    """Return the metric on the samples of each stratum, in their order.

    Args:
        names: of the K strata.
        strata: [N], in 0..K-1.
        loss: [N], of the policy, or of the last exit without one.
        exit_loss: [N] each, of every exit.
        exit_index: [N], of the policy; None: there is none.
    """
    count = len(names)
    counts = np.bincount(strata, minlength=count)
    score, exit_scores = means(strata, loss, count), [means(strata, one, count) for one in exit_loss]
    shares = None if exit_index is None else shares_by_stratum(exit_index, strata, len(exit_loss), count)
    return tuple(
        StratumEvaluation(
            name=name,
            samples=int(counts[k]),
            metric=float(score[k]),
            last_exit_metric=None if shares is None else float(exit_scores[-1][k]),
            metric_by_exit=tuple(float(one[k]) for one in exit_scores),
            shares=() if shares is None else tuple(shares[k].tolist()),
        )
        if counts[k]
        else StratumEvaluation(name=name, samples=0, metric=None)
        for k, name in enumerate(names)
    )


def shares_by_stratum(exit_index: Strata, strata: Strata, exits: int, count: int) -> npt.NDArray[np.float64]:
    """Return the share of each stratum's samples at each exit, [K, E]; NaN for a stratum without samples."""
    counts = np.bincount(strata * exits + exit_index, minlength=count * exits).reshape(count, exits)
    with np.errstate(invalid="ignore"):
        return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def means(strata: Strata, loss: Losses, count: int) -> npt.NDArray[np.float64]:
    """Return the metric on the samples of each stratum, [K]; NaN where there are none.

    Args:
        strata: [N], in 0..K-1.
        loss: [N].
        count: K.
    """
    counts, sums = np.bincount(strata, minlength=count), np.bincount(strata, 1 - loss.astype(np.float64), count)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / counts)


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
