"""Choose by measured time which exits of a cascade are worth what they cost, and whether early exit is at all."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.stage_timing import compared_ms, interleaved_ms, timing_inputs
from sdcompress.calibration.thresholds import NEVER, choose_thresholds
from sdcompress.data.samples import Samples
from sdcompress.policies import exit_index_of
from sdcompress.policies._base import ExitPolicy
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Policy

__all__ = ["ExitCosts", "KeptExits", "exit_costs", "faster_form", "kept_exits", "paying_exits"]

_LEAST_GAIN = 0.01  # share of the mean time, below which a change may be noise
_MOST_SAMPLES = 5000  # thresholds are chosen some E^2 / 2 times, and so many samples tell which exits pay

Float64 = npt.NDArray[np.float64]
Path = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ExitCosts:
    """What the exits of a network cost if only some of them are kept.

    Attributes:
        reach_ms: [E], up to each exit with the heads of all exits before it.
        whole_ms: of the last exit without other heads.
        decision_ms: [E-1], of one decision at each exit but the last.
    """

    reach_ms: Float64
    whole_ms: float
    decision_ms: tuple[float, ...]

    @property
    def head_ms(self) -> float:
        """Return what an early exit costs a sample that passes it: its head, and one more graph."""
        return max(0.0, float(self.reach_ms[-1]) - self.whole_ms) / max(1, len(self.reach_ms) - 1)

    def to(self, kept: Sequence[int]) -> Float64:
        """Return the ms up to each kept exit, rising; the others have no head, and nothing is decided there."""
        passed = np.array([exit_ - rank for rank, exit_ in enumerate(kept)])  # exits before it that are not kept
        decisions = np.cumsum([*(self.decision_ms[k] for k in kept[:-1]), 0.0])
        reach_ms = np.maximum.accumulate(np.maximum(self.reach_ms[list(kept)] - passed * self.head_ms, 1e-3))
        return np.asarray(reach_ms + decisions)


def exit_costs(
    engine: CascadeEngine, samples: Samples, stage_ms: Sequence[float], decision_ms: Sequence[float]
) -> ExitCosts:
    """Measure the whole network without the heads of early exits, in turns with all of them.

    Args:
        engine: of a cascade.
        samples: source of the examples.
        stage_ms: [E], from one exit to the next.
        decision_ms: [E-1], of one decision at each exit but the last.
    """
    reach_ms = np.cumsum(np.asarray(stage_ms, np.float64))
    without_exits = engine.with_policy(_never_exiting(stage_ms))
    with_heads_ms, without_ms = interleaved_ms(
        [partial(engine.forced, exit=-1), without_exits], timing_inputs(engine, samples)
    )
    return ExitCosts(reach_ms, float(reach_ms[-1] * without_ms / with_heads_ms), tuple(decision_ms))


class KeptExits(NamedTuple):
    """The exits that samples may take.

    Attributes:
        indices: of K exits, the last included.
        stage_ms: [K], from one of them to the next.
        exits: E, of all.
    """

    indices: tuple[int, ...]
    stage_ms: tuple[float, ...]
    exits: int

    def of(self, evidence: Evidence) -> Evidence:
        """Return scores and losses at these exits."""
        return Evidence(evidence.scores[list(self.indices[:-1])], evidence.loss[list(self.indices)])

    def widened(self, path: Path) -> Path:
        """Return thresholds of these exits as those of all, ``NEVER`` at the others."""
        rank = {exit_: place for place, exit_ in enumerate(self.indices[:-1])}
        return tuple(tuple(step[rank[k]] if k in rank else NEVER for k in range(self.exits - 1)) for step in path)


def kept_exits(
    engine: CascadeEngine,
    samples: Samples,
    evidence: Evidence,
    policy: ExitPolicy,
    *,
    settings: recipe.Calibrate,
    stage_ms: tuple[float, ...],
    decision_ms: tuple[float, ...],
) -> KeptExits:
    """Return the exits that pay; all of them where the policy or the groups of the drop need all.

    Args:
        engine: of a cascade.
        samples: that the evidence is of, which certify nothing.
        evidence: of the policy.
        policy: fitted.
        settings: of the calibration.
        stage_ms: [E], from one exit to the next.
        decision_ms: [E-1], of one decision at each exit but the last.
    """
    exits = len(stage_ms)
    tied = policy.history or policy.shared or settings.group_by == "exit"
    if settings.drop_slow_exits and not tied and exits > 2:
        costs = exit_costs(engine, samples, stage_ms, decision_ms)
        kept = paying_exits(evidence, costs, settings.max_drop)
        if len(kept) < exits:
            return KeptExits(kept, tuple(np.diff(costs.to(kept), prepend=0.0).tolist()), exits)
    return KeptExits(tuple(range(exits)), stage_ms, exits)


def paying_exits(evidence: Evidence, costs: ExitCosts, max_drop: float) -> tuple[int, ...]:
    """Return the exits that are worth their cost, by indices: one early exit at least, and the last.

    As long as the cascade without one of its exits takes less time with this drop, the exit without which it takes
    least is left out.

    Args:
        evidence: scores and losses of samples.
        costs: of the exits.
        max_drop: of the metric, on these samples, or on evenly spread ones of more than ``_MOST_SAMPLES``.
    """
    spread = np.linspace(0, len(evidence) - 1, min(_MOST_SAMPLES, len(evidence))).astype(np.int64)
    evidence = Evidence(evidence.scores[:, spread], evidence.loss[:, spread])

    def mean_ms(kept: tuple[int, ...]) -> float:
        few, reach_ms = KeptExits(kept, (), len(costs.reach_ms)).of(evidence), costs.to(kept)
        thresholds = choose_thresholds(few.scores, few.loss, np.diff(reach_ms, prepend=0.0), max_drop)
        return float(reach_ms[exit_index_of(few.scores, thresholds)].mean())

    kept = tuple(range(len(costs.reach_ms)))
    ms = mean_ms(kept)
    while len(kept) > 2:
        fewer = {mean_ms(one): one for k in kept[:-1] if (one := tuple(exit_ for exit_ in kept if exit_ != k))}
        if min(fewer) >= (1 - _LEAST_GAIN) * ms:
            break
        ms, kept = min(fewer.items())
    return kept


def faster_form(
    policy: Policy,
    without_exits: Policy,
    engine: CascadeEngine,
    samples: Samples,
    temperatures: Sequence[float],
    *,
    exit_index: npt.NDArray[np.int64],
    settings: recipe.Calibrate,
) -> Policy:
    """Return the policy with the measured time of the whole network, or no early exit where that is faster.

    Args:
        policy: with its overhead.
        without_exits: the same without early exit.
        engine: of the artifact.
        samples: N samples, those that the shares of the policy count.
        temperatures: of every exit.
        exit_index: exit of each sample under the policy, int64 [N].
        settings: of the calibration.
    """
    if not policy.exits_early:
        return policy
    calls = [engine.with_policy(one, temperatures) for one in (policy, without_exits)]
    early, whole = compared_ms(calls, engine, samples, exit_index, usual_ms=policy.mean_ms)
    whole_ms = policy.mean_ms * float(whole / early)
    if not settings.drop_slow_exits or whole > (1 - _LEAST_GAIN) * early:
        return policy.model_copy(update={"whole_ms": whole_ms})
    warnings.warn(
        f"Early exit is disabled, because the whole network is faster on this machine: {whole_ms:.3f} ms against "
        f"{policy.mean_ms:.3f} ms. To keep the thresholds: calibrate.drop_slow_exits=false. A larger drop may pay.",
        stacklevel=2,
    )
    measured = {"whole_ms": whole_ms, "rejected_ms": policy.mean_ms, "overhead": whole_ms / policy.reach_ms[-1]}
    return without_exits.model_copy(update=measured)


def _never_exiting(stage_ms: Sequence[float]) -> Policy:
    exits = len(stage_ms)
    return Policy(
        name="fixed",
        thresholds=(NEVER,) * (exits - 1),
        max_drop=0.0,
        samples=1,
        metric=None,
        reference_metric=None,
        shares=(0.0,) * (exits - 1) + (1.0,),
        stage_ms=tuple(stage_ms),
    )
