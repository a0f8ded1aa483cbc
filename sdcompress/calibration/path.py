"""A path of thresholds, from no early exit to ever earlier exits; made before anything is certified."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sdcompress.calibration.thresholds import NEVER, ThresholdSearch, lagrangian_rule
from sdcompress.policies import leave

__all__ = ["exit_path", "threshold_path"]

Scores = npt.NDArray[np.float32]
Losses = npt.NDArray[np.floating]

_PRICES = 48
# neighbours on the path differ by at most this share of the whole network's cost, and by at most this loss or
# this share of the loss: coarse where nothing is lost, fine where tests decide
_COST_STEP, _LOSS_STEP, _LOSS_SHARE = 0.04, 5e-4, 0.08
# mean losses on the path for single exits: none, then each a twelfth more than the one before
_SHARES = (0.0, *np.geomspace(2.5e-4, 0.5, 96))


def threshold_path(
    scores: Scores, loss: Losses, stage_ms: npt.ArrayLike, *, shared: bool = False
) -> tuple[tuple[float, ...], ...]:
    """Thresholds in the order in which they will be tested; no threshold of a step is above that of the step before.

    A mistake is what an exit loses more than the last exit. What an exit corrects is not set against it
    here: on a few thousand samples that difference is mostly luck, and thresholds that lean on it fail the test.

    The corners are minima of cost + price * mistakes for falling prices of a mistake, found by coordinate descent from
    the corner before (the frontier of Laufer-Goldshtein et al., "Efficiently Controlling Multiple Risks with Pareto
    Testing", arXiv:2210.07913). Between corners the samples that leave more are let go in the order of
    their scores, in small steps.

    Args:
        scores: float32 [E-1, N], of all exits but the last.
        loss: [E, N] in [0, 1], of each exit; without targets, against the last exit's decision.
        stage_ms: [E], above 0: from one exit to the next.
        shared: one threshold for all exits.

    Returns:
        [J][E-1], each exactly representable in float32; the first step is ``NEVER`` at every exit.
    """
    costs = np.cumsum(np.asarray(stage_ms, np.float64))
    search = ThresholdSearch(scores, _mistakes(loss), costs, allowed=0)
    path = [np.full(len(scores), NEVER, np.float32)]
    if shared:
        path += _shared(search)
        return _distinct(path)
    for price in np.geomspace(1e3, 1e-2, _PRICES) * costs[-1]:
        corner = np.minimum(path[-1], search.descend(path[-1], lagrangian_rule(float(price))))
        path += _between(path[-1], corner, search)
    return _distinct(path)


def _mistakes(loss: Losses) -> npt.NDArray[np.float64]:
    """Return the excess loss of each exit over the last one, [E, N] in [0, 1]."""
    return np.asarray(np.maximum(np.subtract(loss, loss[-1], dtype=np.float64), 0))


def _distinct(path: list[npt.NDArray[np.float32]]) -> tuple[tuple[float, ...], ...]:
    # samples of equal score leave together: a smaller step between them is none
    return tuple(dict.fromkeys(tuple(float(value) for value in step) for step in path))


def _shared(search: ThresholdSearch) -> list[npt.NDArray[np.float32]]:
    """Values of one threshold for all exits, in small steps of what they save and lose."""
    sweep = search.shared_sweep()
    if len(sweep.values) == 0:
        return []
    samples = search.loss.shape[1]
    walked = sweep.saved / (samples * search.costs[-1] * _COST_STEP) + np.maximum.accumulate(sweep.lost) / (
        samples * _LOSS_STEP
    )
    ends = np.flatnonzero(np.diff(np.floor(walked), append=np.inf))
    return [np.full(len(search.scores), sweep.values[end], np.float32) for end in ends]


def exit_path(scores: Scores, loss: Losses, least: int) -> tuple[tuple[float, ...], ...]:
    """Return a path like ``threshold_path`` for a drop that holds for the samples exited up to each exit.

    For every mean of mistakes, from none on: exit by exit the lowest threshold with which those that have left by then
    make no more (the greedy first stage of Ringel et al., arXiv:2402.00857, for a row of means instead of one). An
    exit by which too few would have left to be certified stays shut.

    Args:
        scores: float32 [E-1, N], of all exits but the last.
        loss: [E, N] in [0, 1], of each exit; without targets, against the last exit's decision.
        least: samples that must have left by an exit.

    Returns:
        [J][E-1], each exactly representable in float32; the first step is ``NEVER`` at every exit.
    """
    mistakes = _mistakes(loss)
    path = [np.full(len(scores), NEVER, np.float32)]
    for share in _SHARES:
        step = np.full(len(scores), NEVER, np.float32)
        gone = np.zeros(loss.shape[1], np.bool_)
        lost = 0.0
        for exit_, values in enumerate(scores):
            rows = np.flatnonzero(~gone & (values <= 1))  # NaN never leaves
            order = rows[np.argsort(-values[rows], kind="stable")]
            sums = lost + np.cumsum(mistakes[exit_, order])
            count = int(gone.sum()) + np.arange(1, len(order) + 1)
            last = np.diff(values[order], append=np.float32(-1)) != 0  # equal scores leave together
            kept = np.flatnonzero(last & (sums <= share * count) & (count >= least))
            if len(kept):
                step[exit_] = values[order[kept[-1]]]
                gone[order[: kept[-1] + 1]] = True
                lost = float(sums[kept[-1]])
        path.append(np.minimum(path[-1], step))
    return _distinct(path)


def _between(
    old: npt.NDArray[np.float32], new: npt.NDArray[np.float32], search: ThresholdSearch
) -> list[npt.NDArray[np.float32]]:
    """Return the steps from one corner to the next, the last of them ``new``."""
    saved, before, after = _cost(search, old) - _cost(search, new), _loss(search, old), _loss(search, new)
    by_loss = (after - before) / max(_LOSS_STEP, _LOSS_SHARE * after)
    count = max(1, math.ceil(saved / (_COST_STEP * search.costs[-1])), math.ceil(by_loss))
    inside = [
        -np.sort(-values[(values >= high) & (values < low)])
        for values, low, high in zip(search.scores, old, new, strict=True)
    ]
    steps = []
    for position in range(1, count):
        step = old.copy()
        for exit_, values in enumerate(inside):
            if taken := len(values) * position // count:
                step[exit_] = values[taken - 1]
        steps.append(step)
    return [*steps, new]


def _cost(search: ThresholdSearch, thresholds: npt.NDArray[np.float32]) -> float:
    return float(search.costs[leave(search.scores, thresholds)].mean())


def _loss(search: ThresholdSearch, thresholds: npt.NDArray[np.float32]) -> float:
    return float(search.total(leave(search.scores, thresholds)) / search.loss.shape[1])
