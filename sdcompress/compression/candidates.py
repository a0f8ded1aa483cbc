"""List the ways to deploy a network, and estimate the time and the drop of each from one run of all its exits.

The estimates use a part of the validation samples that nothing is certified on, so that choosing among thousands of
candidates costs no confidence.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.exit_choice import ExitCosts
from sdcompress.calibration.threshold_path import threshold_path
from sdcompress.certification.certify import Path, excess_losses
from sdcompress.certification.power_analysis import samples_for_betting
from sdcompress.policies import exit_index_of, policy_class, scores
from sdcompress.policies._base import Signals
from sdcompress.schema.compression import Candidate
from sdcompress.schema.graphs import Ensemble

__all__ = ["DROPS", "FLOAT", "Budget", "Decided", "Outcomes", "candidates", "finalists", "subsets"]

FLOAT = "fp32"  # the precision of an export
DROPS = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # that are tried where a time is the target
_ALL_SUBSETS = 6  # early exits, up to which every subset is tried; of more, all subsets of at most three, and all exits
_FEW = 3
_MARGIN = 0.95  # of the target, that an estimate must keep: estimates err by some percent

Float = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Budget:
    """What a finalist must keep.

    Attributes:
        drops: allowed drops of the metric, the smallest first.
        target_ms: largest mean of one sample; None: as fast as possible.
        delta: level at which each finalist is tested.
        certify_samples: number of samples of the tests.
    """

    drops: tuple[float, ...]
    target_ms: float | None
    delta: float
    certify_samples: int

    def certifiable(self, differences: Float64, drop: float) -> bool:
        """Return whether a test of so many samples passes with a power of 80 % if losses differ as here."""
        values, counts = np.unique(differences, return_counts=True)
        needed = samples_for_betting(values, counts / len(differences), drop, self.delta)
        return needed is not None and needed <= self.certify_samples


class Decided(NamedTuple):
    """What an ensemble of exits says of N samples.

    Attributes:
        signals: of the samples.
        loss: float32 [N].
    """

    signals: Signals
    loss: Float


@dataclass(frozen=True)
class Outcomes:
    """What all exits of a network in one precision say of the search samples, and what they cost.

    Attributes:
        source: index of the checkpoint.
        label: of the checkpoint, in names.
        exits: names, E of them.
        precision: of the graphs.
        signals: of the E exits.
        loss: float32 [E, N].
        reach_ms: [E], up to each exit with the heads of all exits before it.
        whole_ms: of the last exit without other heads.
        decision_ms: for each policy, of one decision at each exit but the last.
        ensembles: by the indices of their exits, all that a cascade may have; empty: none is tried.
        ensemble_ms: what an exit costs that averages with those before it, beside the exit itself.
    """

    source: int
    label: str
    exits: tuple[str, ...]
    precision: str
    signals: tuple[Signals, ...]
    loss: Float
    reach_ms: Float64
    whole_ms: float
    decision_ms: Mapping[str, tuple[float, ...]]
    ensembles: Mapping[tuple[int, ...], Decided] = field(default_factory=dict)
    ensemble_ms: float = 0.0

    def candidate(
        self,
        kept: Sequence[int],
        policy: str | None,
        ensemble: Ensemble | None = None,
        *,
        max_drop: float,
        ms: float,
        drop: float,
    ) -> Candidate:
        """Return a candidate of this network; without a policy the network is truncated at the one exit."""
        exits = tuple(self.exits[k] for k in kept)
        precision = "" if self.precision == FLOAT else self.precision
        parts = [self.label, "+".join(exits), "ensemble" if ensemble else "", precision, policy]
        return Candidate(
            name="-".join(filter(None, parts)),
            source=self.source,
            layout="cascade" if policy else "single",
            exits=exits,
            precision=self.precision,
            policy=policy,
            ensemble=ensemble,
            max_drop=max_drop,
            ms=ms,
            drop=drop,
        )

    def cost(self, kept: Sequence[int], policy: str | None, ensemble: Ensemble | None = None) -> Float64:
        """Return the ms up to each kept exit, where the others have no head; a cascade decides by its policy."""
        decision_ms = self.decision_ms[policy] if policy else (0.0,) * (len(self.exits) - 1)
        averages = np.arange(1, len(kept) + 1) if ensemble else np.zeros(len(kept))
        return ExitCosts(self.reach_ms, self.whole_ms, decision_ms).to(kept) + self.ensemble_ms * averages

    def at(self, kept: Sequence[int], ensemble: Ensemble | None = None) -> tuple[list[Signals], Float]:
        """Return the signals and the losses, [K, N], at each kept exit of a cascade.

        An ensemble consists of the kept exits up to that one.
        """
        if ensemble is None:
            return [self.signals[k] for k in kept], self.loss[list(kept)]
        decided = [self.ensembles[tuple(kept[: rank + 1])] for rank in range(len(kept))]
        return [one.signals for one in decided], np.stack([one.loss for one in decided])


def candidates(
    networks: Sequence[Outcomes], reference_loss: Float, policies: Sequence[str], budget: Budget
) -> list[Candidate]:
    """Return all candidates that a test would probably certify, the best first.

    Args:
        networks: of every source in every precision.
        reference_loss: float32 [N], of the reference on the same samples.
        policies: that are tried for cascades.
        budget: what they must keep. With a target, those that keep it come first, ordered by drop, then by time.
    """
    found: list[Candidate] = []
    for network in networks:
        for index in range(len(network.exits)):
            found += _single(network, index, reference_loss, budget)
        ensembles: list[Ensemble | None] = [None, "geometric"] if network.ensembles else [None]
        choices = product(subsets(len(network.exits)), policies, ensembles)
        for kept, policy, ensemble in choices:
            if len(kept) >= policy_class(policy).least_exits:
                found += _cascade(network, kept, policy, ensemble, reference_loss=reference_loss, budget=budget)
    return sorted(found, key=lambda one: _rank(one, budget))


def finalists(ranked: Sequence[Candidate], count: int) -> list[Candidate]:
    """Return the first candidates, with one policy for each choice of network, exits, ensemble and precision.

    If all of them exit early, the best that does not takes the place of the last: without early exit there is less to
    go wrong, and the estimate of a truncated network is the better one.
    """
    best = dict[tuple[object, ...], Candidate]()
    for one in ranked:
        best.setdefault((one.source, one.layout, one.exits, one.ensemble, one.precision), one)
    chosen = list(best.values())
    first, rest = chosen[:count], chosen[count:]
    if first and all(one.layout == "cascade" for one in first):
        plain = next((one for one in rest if one.layout == "single"), None)
        first = [*first[: count - 1], plain] if plain and count > 1 else first
    return first


def _rank(one: Candidate, budget: Budget) -> tuple[object, ...]:
    if budget.target_ms is None:
        return (one.ms, one.max_drop, one.name)
    late = one.ms > _MARGIN * budget.target_ms
    return (late, one.ms if late else one.max_drop, one.drop, one.ms, one.name)


def subsets(exits: int) -> Iterator[tuple[int, ...]]:
    """Yield the exits of every cascade that is tried: some early exits, and a later one at which the network ends."""
    for last in range(exits - 1, 0, -1):
        most = last if last <= _ALL_SUBSETS else _FEW
        for count in range(1, most + 1):
            yield from ((*kept, last) for kept in combinations(range(last), count))
        if most < last:
            yield tuple(range(last + 1))


def _single(network: Outcomes, index: int, reference_loss: Float, budget: Budget) -> Iterator[Candidate]:
    differences = np.subtract(network.loss[index], reference_loss, dtype=np.float64)
    drop = next((drop for drop in budget.drops if budget.certifiable(differences, drop)), None)
    if drop is not None:
        ms = float(network.cost([index], None)[0])
        yield network.candidate([index], None, max_drop=drop, ms=ms, drop=float(differences.mean()))


def _cascade(
    network: Outcomes,
    kept: Sequence[int],
    policy: str,
    ensemble: Ensemble | None,
    *,
    reference_loss: Float,
    budget: Budget,
) -> Iterator[Candidate]:
    """Yield the candidate with the fastest thresholds of the first drop that keeps the target."""
    signals, loss = network.at(kept, ensemble)
    costs = network.cost(kept, policy, ensemble)
    fitted = policy_class(policy).fit(signals, loss)
    evidence = Evidence(scores(fitted, signals), loss, reference_loss=reference_loss)
    path = threshold_path(evidence.scores, loss, np.diff(costs, prepend=0.0), shared=fitted.shared)[1:]
    fastest = None
    for drop in budget.drops:
        count = _certifiable_steps(evidence, path, drop, budget)
        if count == 0:
            continue
        thresholds = path[count - 1]
        ms = float(costs[exit_index_of(evidence.scores, thresholds)].mean())
        lost = float(excess_losses(evidence, thresholds).mean())
        fastest = network.candidate(kept, policy, ensemble, max_drop=drop, ms=ms, drop=lost)
        if budget.target_ms is None or ms <= _MARGIN * budget.target_ms:
            break
    if fastest:
        yield fastest


def _certifiable_steps(evidence: Evidence, path: Path, drop: float, budget: Budget) -> int:
    """Return the number of steps before the first that would probably be rejected; losses rise along the path."""

    def rejected(step: tuple[float, ...]) -> bool:
        return not budget.certifiable(excess_losses(evidence, step), drop)

    return bisect_left(path, True, key=rejected)
