"""Make the path of thresholds that a certificate tests, from no early exit to ever earlier exits."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sdcompress.calibration.thresholds import NEVER, ThresholdSearch, lagrangian_rule
from sdcompress.policies import exit_index_of

__all__ = ["exit_path", "threshold_path"]

Scores = npt.NDArray[np.float32]
Losses = npt.NDArray[np.floating]

_PRICES = 48
# neighbours on the path differ by at most this share of the whole network's cost, and by at most this loss or
# this share of the loss: coarse where the loss is near 0, fine where tests decide
_COST_STEP, _LOSS_STEP, _LOSS_SHARE = 0.04, 5e-4, 0.08
# mean losses on the path for single exits: none, then each a twelfth more than the one before
_SHARES = (0.0, *np.geomspace(2.5e-4, 0.5, 96))


def threshold_path(
    scores: Scores, loss: Losses, stage_ms: npt.ArrayLike, *, shared: bool = False
) -> tuple[tuple[float, ...], ...]:
    """Return thresholds in the order of their tests; no threshold of a step is above that of the step before.

    The path counts the excess loss of each exit over the last one, and not the loss that an exit corrects. On some
    thousand samples that difference is mostly chance, and thresholds that rely on it fail the test.

    The corners are minima of cost + price * excess loss for falling prices, by coordinate descent from the corner
    before (the frontier of Laufer-Goldshtein et al., "Efficiently Controlling Multiple Risks with Pareto Testing",
    arXiv:2210.07913). Between corners the thresholds fall in small steps through the scores of the samples.

    Args:
        scores: float32 [E-1, N], of all exits but the last.
        loss: [E, N] in [0, 1], of each exit; without targets, against the last exit's decision.
        stage_ms: [E], above 0: from one exit to the next.
        shared: one threshold for all exits.

    Returns:
        [J][E-1], each exactly representable in float32; the first step is ``NEVER`` at every exit.
    """
    costs = np.cumsum(np.asarray(stage_ms, np.float64))
    search = ThresholdSearch(scores, _excess_loss(loss), costs, allowed=0)
    path = [np.full(len(scores), NEVER, np.float32)]
    if shared:
        path += _shared(search)
        return _distinct(path)
    for price in np.geomspace(1e3, 1e-2, _PRICES) * costs[-1]:
        corner = np.minimum(path[-1], search.descend(path[-1], lagrangian_rule(float(price))))
        path += _between(path[-1], corner, search)
    return _distinct(path)


def _excess_loss(loss: Losses) -> npt.NDArray[np.float64]:
    """Return the excess loss of each exit over the last one, [E, N] in [0, 1]."""
    return np.asarray(np.maximum(np.subtract(loss, loss[-1], dtype=np.float64), 0))


def _distinct(path: list[npt.NDArray[np.float32]]) -> tuple[tuple[float, ...], ...]:
    # samples of equal score exit together, so that steps between them are equal
    return tuple(dict.fromkeys(tuple(float(value) for value in step) for step in path))


def _shared(search: ThresholdSearch) -> list[npt.NDArray[np.float32]]:
    """Return values of one threshold for all exits, in small steps of saved cost and added loss."""
    sweep = search.shared_sweep()
    if len(sweep.values) == 0:
        return []
    samples = search.loss.shape[1]
    distance = sweep.saved / (samples * search.costs[-1] * _COST_STEP) + np.maximum.accumulate(sweep.lost) / (
        samples * _LOSS_STEP
    )
    ends = np.flatnonzero(np.diff(np.floor(distance), append=np.inf))
    return [np.full(len(search.scores), sweep.values[end], np.float32) for end in ends]


def exit_path(scores: Scores, loss: Losses, least: int) -> tuple[tuple[float, ...], ...]:
    """Return a path like ``threshold_path`` for a drop that holds for the samples exited up to each exit.

    For every mean of the excess loss, from 0 on, it takes exit by exit the lowest threshold with which the samples
    exited so far keep that mean (the greedy first stage of Ringel et al., arXiv:2402.00857, for a sequence of means).
    An exit stays ``NEVER`` if too few samples would have exited by then to be certified.

    Args:
        scores: float32 [E-1, N], of all exits but the last.
        loss: [E, N] in [0, 1], of each exit; without targets, against the last exit's decision.
        least: samples that must have exited up to an exit.

    Returns:
        [J][E-1], each exactly representable in float32; the first step is ``NEVER`` at every exit.
    """
    excess = _excess_loss(loss)
    path = [np.full(len(scores), NEVER, np.float32)]
    for share in _SHARES:
        step = np.full(len(scores), NEVER, np.float32)
        exited = np.zeros(loss.shape[1], np.bool_)
        lost = 0.0
        for k, values in enumerate(scores):
            rows = np.flatnonzero(~exited & (values <= 1))  # a sample whose score is NaN does not exit
            order = rows[np.argsort(-values[rows], kind="stable")]
            sums = lost + np.cumsum(excess[k, order])
            count = int(exited.sum()) + np.arange(1, len(order) + 1)
            last = np.diff(values[order], append=np.float32(-1)) != 0  # equal scores exit together
            kept = np.flatnonzero(last & (sums <= share * count) & (count >= least))
            if len(kept):
                step[k] = values[order[kept[-1]]]
                exited[order[: kept[-1] + 1]] = True
                lost = float(sums[kept[-1]])
        path.append(np.minimum(path[-1], step))
    return _distinct(path)


def _between(
    old: npt.NDArray[np.float32], new: npt.NDArray[np.float32], search: ThresholdSearch
) -> list[npt.NDArray[np.float32]]:
    """Return the steps from one corner to the next, the last of them ``new``."""
    (old_cost, old_loss), (new_cost, new_loss) = _cost_and_loss(search, old), _cost_and_loss(search, new)
    by_cost = (old_cost - new_cost) / (_COST_STEP * search.costs[-1])
    by_loss = (new_loss - old_loss) / max(_LOSS_STEP, _LOSS_SHARE * new_loss)
    count = max(1, math.ceil(by_cost), math.ceil(by_loss))
    inside = [
        -np.sort(-values[(values >= high) & (values < low)])
        for values, low, high in zip(search.scores, old, new, strict=True)
    ]
    steps = []
    for position in range(1, count):
        step = old.copy()
        for k, values in enumerate(inside):
            if passed := len(values) * position // count:
                step[k] = values[passed - 1]
        steps.append(step)
    return [*steps, new]


def _cost_and_loss(search: ThresholdSearch, thresholds: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the mean cost and the mean loss of the samples."""
    exit_index = exit_index_of(search.scores, thresholds)
    return float(search.costs[exit_index].mean()), search.total(exit_index) / len(exit_index)
