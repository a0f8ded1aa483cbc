"""Ways to choose thresholds from the same calibration images: ours with and without a certificate, and others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.policy_fitting import fit_temperature
from sdcompress.calibration.threshold_path import exit_path, threshold_path
from sdcompress.calibration.thresholds import choose_thresholds
from sdcompress.certification.calibration_split import draw_split, tuning_count_for
from sdcompress.certification.certify import certified_drop, conformal_risk_control, excess_losses
from sdcompress.certification.groups import GroupBy, group_masks
from sdcompress.certification.power_analysis import least_samples
from sdcompress.policies import exit_index_of
from sdcompress.tasks.classification import Classification

__all__ = ["Held", "Policy", "calibrators"]

Rows = npt.NDArray[np.int64]

TASK = Classification(("a", "b"))  # signals do not depend on the names of the classes


class Policy(NamedTuple):
    """Temperatures of the exits but the last, and their thresholds."""

    temperatures: tuple[float, ...]
    thresholds: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Held:
    """Logits float32 [E, N, K] of images that training has not seen, their labels [N], and ms of each stage."""

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    stage_ms: tuple[float, ...]

    @property
    def count(self) -> int:
        """N."""
        return len(self.labels)

    @cached_property
    def answers(self) -> npt.NDArray[np.int64]:
        """The class that each exit says, [E, N]."""
        return self.logits.argmax(axis=2)

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether it is the label, [E, N]."""
        return np.asarray(self.answers == self.labels)

    def temperatures(self, rows: Rows) -> tuple[float, ...]:
        """Fitted on these rows, for the exits but the last."""
        return _temperatures(self, rows.tobytes())

    def evidence(self, rows: Rows, temperatures: tuple[float, ...], *, unlabelled: bool = False) -> Evidence:
        """What the exits do on these rows; without labels right means: as the last exit says."""
        confidences = [
            TASK.signals(found[rows], t)["max_prob"] for found, t in zip(self.logits[:-1], temperatures, strict=True)
        ]
        right = self.answers[:, rows] == self.answers[-1, rows] if unlabelled else self.right[:, rows]
        return Evidence(np.stack(confidences), (~right).astype(np.float32), self.labels[rows].astype(np.int32))

    def outcome(self, policy: Policy, rows: Rows, group_by: GroupBy = None) -> tuple[float, float, bool]:
        """True drop on these rows, mean cost as a share of the whole network's, and whether anybody leaves early.

        With groups the drop is that of the group that loses most.
        """
        evidence = _evidence(self, rows.tobytes(), policy.temperatures)
        costs = np.cumsum(self.stage_ms)
        cost = float(costs[exit_index_of(evidence.scores, policy.thresholds)].mean() / costs[-1])
        lost = excess_losses(evidence, policy.thresholds)
        groups = [lost[mask] for mask in group_masks(evidence, policy.thresholds, group_by)]
        drop = max(float(found.mean()) for found in groups if len(found))
        return drop, cost, any(t <= 1 for t in policy.thresholds)

    def oracle(self, max_drop: float) -> float:
        """What the cheapest thresholds cost that really keep the drop: found by looking at every image."""
        rows = np.arange(self.count)
        return self.outcome(naive(self, rows, max_drop), rows)[1]


@lru_cache(maxsize=4)
def _temperatures(held: Held, order: bytes) -> tuple[float, ...]:
    rows = np.frombuffer(order, np.int64)
    task = Classification(tuple(map(str, range(held.logits.shape[2]))))
    return tuple(fit_temperature(task, found[rows], held.labels[rows]) for found in held.logits[:-1])


@lru_cache(maxsize=4)  # the images that tell the truth are the same for every drop, and temperatures for many
def _evidence(held: Held, order: bytes, temperatures: tuple[float, ...]) -> Evidence:
    return held.evidence(np.frombuffer(order, np.int64), temperatures)


Calibrator = Callable[[Held, Rows, float], Policy]


def calibrators(confidence: float, group_by: GroupBy = None) -> dict[str, Calibrator]:
    """The calibrators by name; earlyon only where it is installed. With groups: those that can be told about them."""
    if group_by is not None:
        return {
            "naive": naive,
            "certified": lambda held, rows, drop: certified(held, rows, drop, 1 - confidence),
            f"certified per {group_by}": lambda held, rows, drop: certified(
                held, rows, drop, 1 - confidence, group_by=group_by
            ),
        }
    found: dict[str, Calibrator] = {
        "naive": naive,
        "certified": lambda held, rows, drop: certified(held, rows, drop, 1 - confidence),
        "unlabelled": lambda held, rows, drop: certified(held, rows, drop, 1 - confidence, unlabelled=True),
        "crc": conformal,
        "crc, signed": lambda held, rows, drop: conformal(held, rows, drop, rising=False),
    }
    if find_spec("earlyon") is not None:
        found["earlyon"] = earlyon
    return found


def naive(held: Held, rows: Rows, max_drop: float) -> Policy:
    """The cheapest thresholds that keep the drop on the calibration images, all of which choose."""
    temperatures = held.temperatures(rows)
    evidence = held.evidence(rows, temperatures)
    return Policy(temperatures, choose_thresholds(evidence.scores, evidence.loss, held.stage_ms, max_drop))


class Parts(NamedTuple):
    """What the tuning part decides, and what the tests may see of the rest."""

    temperatures: tuple[float, ...]
    tuning: Evidence
    path: tuple[tuple[float, ...], ...]
    certify: Evidence


def parts(held: Held, rows: Rows, *, unlabelled: bool = False) -> Parts:
    """As ``sdcompress calibrate --confidence`` parts them; the rows are in random order already."""
    return _parts(held, rows.tobytes(), unlabelled)


@lru_cache(maxsize=2)  # the same for every drop and every calibrator of a split
def _parts(held: Held, order: bytes, unlabelled: bool) -> Parts:
    rows = np.frombuffer(order, np.int64)
    size = len(draw_split(len(rows), "0").tuning)
    tuning, certify = rows[:size], rows[size:]
    temperatures = (1.0,) * (len(held.logits) - 1) if unlabelled else held.temperatures(tuning)
    seen = held.evidence(tuning, temperatures, unlabelled=unlabelled)
    path = threshold_path(seen.scores, seen.loss, held.stage_ms)
    return Parts(temperatures, seen, path, held.evidence(certify, temperatures, unlabelled=unlabelled))


def certified(
    held: Held, rows: Rows, max_drop: float, delta: float, *, unlabelled: bool = False, group_by: GroupBy = None
) -> Policy:
    """As ``sdcompress calibrate --confidence``, with or without ``--unlabelled`` and ``--group-by``."""
    made = parts(held, rows, unlabelled=unlabelled)
    path = made.path
    if group_by == "exit":
        least = tuning_count_for(2 * least_samples(max_drop, delta))
        path = exit_path(made.tuning.scores, made.tuning.loss, least)
    level = certified_drop(
        made.certify, path, "binomial" if unlabelled else "betting", max_drop, delta, group_by=group_by
    )
    return Policy(made.temperatures, path[level.certified])


def conformal(held: Held, rows: Rows, max_drop: float, *, rising: bool = True) -> Policy:
    """Conformal risk control on the same path and parts: the loss is kept in expectation.

    Args:
        held: the images.
        rows: for calibration.
        max_drop: the wish.
        rising: losses made monotone sample by sample, as the theorem asks; else the signed gap as it is, as people do.
    """
    made = parts(held, rows)
    found = np.stack([excess_losses(made.certify, thresholds) for thresholds in made.path[1:]])
    if rising:
        return Policy(made.temperatures, made.path[conformal_risk_control(found, max_drop)])
    broken = np.flatnonzero((found.sum(axis=1) + 1) / (found.shape[1] + 1) > max_drop)
    return Policy(made.temperatures, made.path[broken[0] if len(broken) else len(found)])


def earlyon(held: Held, rows: Rows, max_drop: float) -> Policy:
    """The ``calibrate_thresholds`` of earlyon itself, fed with logits for images; without temperatures, its default."""
    import torch
    from earlyon.core.thresholds import calibrate_thresholds
    from earlyon.core.types import EarlyExitConfig, ExitPoint

    exits = len(held.logits) - 1
    names = [f"exit{k}" for k in range(exits)]
    costs = np.cumsum(held.stage_ms)

    class Replay(torch.nn.Module):
        """Says of a batch of logits [B, E, K] what the network said."""

        def __init__(self) -> None:
            super().__init__()
            points = [ExitPoint(name=name, layer_name=name, in_channels=1) for name in names]
            self.config = EarlyExitConfig("replay", held.logits.shape[2], points)
            self._flops_at = dict(zip(names, costs / costs[-1], strict=False))

        def forward(self, batch: Any, mode: str) -> list[Any]:  # noqa: ARG002 - the caller's word
            return list(batch.unbind(1))

    batch = torch.from_numpy(np.ascontiguousarray(held.logits[:, rows].transpose(1, 0, 2)))
    loader = [(batch, torch.from_numpy(held.labels[rows]))]
    found = calibrate_thresholds(Replay(), loader, target_accuracy_drop=max_drop)
    thresholds = [t if on else 2.0 for t, on in zip(found.thresholds, found.enabled_exits, strict=True)]
    return Policy((1.0,) * exits, tuple(thresholds))
