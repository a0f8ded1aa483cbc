"""What an artifact's exits do on a split and on a machine: the record of ``explain``. docs/explain.md explains it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat

from sdcompress.schema.base import Fraction, Frozen, Interval, Sha256
from sdcompress.schema.report import Machine

__all__ = [
    "BreakEven",
    "ExitFigures",
    "Explanation",
    "Interval",
    "OperatingPoint",
    "Overthinking",
    "PolicyFigures",
    "ReliabilityBin",
    "Risk",
    "RiskStep",
    "Stratum",
    "Truncation",
]

Split = Literal["validation", "test"]


class ReliabilityBin(Frozen):
    """Samples whose confidence is in (low, high], of which there are some."""

    low: Fraction
    high: Fraction
    samples: int
    confidence: Fraction = Field(description="mean")
    metric: Fraction = Field(description="the metric")


class ExitFigures(Frozen):
    """One exit on all samples, and what became of those that left there."""

    name: str
    metric: Fraction = Field(description="the metric, of all samples")
    standard_error: NonNegativeFloat | None = Field(
        None, description="of the metric; None: losses are 0 or 1, and it is a proportion"
    )
    ece: Fraction | None = Field(
        description="expected calibration error of the confidence, 15 equal-width bins; None: the task has no "
        "confidence, or a loss between 0 and 1"
    )
    reliability: tuple[ReliabilityBin, ...]
    auroc: Fraction | None = Field(
        description="probability that a right decision has a higher score than a wrong one; the policy's score, at the "
        "last exit its confidence; None: all are right, or none is, or the loss is not 0 or 1"
    )
    aurc: Fraction | None = Field(description="mean loss over all coverages, most certain first; same score")
    macs: int = Field(description="multiply-accumulates for one sample that leaves here")
    ms: Interval | None = Field(description="until here, no confidence computed; None where leaving saves nothing")
    share: Fraction | None = Field(description="of the samples, that left here by the policy; None without one")
    exited_metric: Fraction | None = Field(description="of those")


class OperatingPoint(Frozen):
    """Thresholds (or an oracle) and what they give."""

    thresholds: tuple[float, ...] | None = Field(description="one for each exit but the last; None: no thresholds")
    metric: Fraction = Field(description="the metric")
    standard_error: NonNegativeFloat | None = Field(
        None, description="of the metric; None: losses are 0 or 1, and it is a proportion"
    )
    shares: tuple[Fraction, ...] = Field(description="of the samples, that left at each exit")
    mean_ms: float | None
    mean_macs: float


class Truncation(Frozen):
    """The network that ends at an exit, against the policy; both on the same samples and in the same turns."""

    exit: str
    metric: Fraction = Field(description="the metric")
    ms: float = Field(description="until this exit in the cascade; without the heads before it, it may take less")
    saving_ms: Interval = Field(description="how much less the policy takes on average; below 0: it takes more")
    difference: Interval = Field(description="the policy's metric less this one's; 95 % interval, paired")


class BreakEven(Frozen):
    """What an early exit may cost to be worth having, by the policy's shares and the measured ms."""

    exit: str
    reached: Fraction = Field(description="share of the samples that get here")
    ms: Interval = Field(
        description="the most that head and hand-over may take, for each sample that gets here; below 0: the exit "
        "loses even if they were for nothing"
    )


class PolicyFigures(Frozen):
    """The artifact's policy on these samples, and whether it is worth having here."""

    point: OperatingPoint
    mean_ms: Interval | None
    truncations: tuple[Truncation, ...] = Field((), description="one for each exit; none where nothing was measured")
    rival: str | None = Field(None, description="the fastest exit whose metric is at least the policy's, if any")
    verdict: Literal["wins", "no difference", "loses"] | None = Field(
        None,
        description="by measured ms against the rival; where there is none, against the last exit. No difference: "
        "the interval of the saving holds 0",
    )
    break_even: tuple[BreakEven, ...] = Field(
        (), description="of each early exit that samples get to; none if not measured"
    )


class Stratum(Frozen):
    """The samples of one stratum, in classification of one class."""

    name: str
    samples: int
    shares: tuple[Fraction, ...] = Field(description="of its samples, that left at each exit")
    metric: Fraction = Field(description="the metric, of the policy")
    last_exit_metric: Fraction = Field(description="of the last exit")


class Overthinking(Frozen):
    """Samples that an earlier exit decides best already (Kaya et al., arXiv:1810.07052)."""

    wasteful: Fraction = Field(description="share of samples that lose least at an exit before the one where they left")
    wasted_ms: float | None = Field(description="ms after that exit, mean over all samples")
    destructive: Fraction = Field(description="share of samples that lose more where they left than earlier")


class RiskStep(Frozen):
    """One step of a certificate's path, on the samples that were tested."""

    step: int
    thresholds: tuple[float, ...]
    loss: float = Field(description="mean, as measured; below 0: the exits correct more than they lose")
    bound: Fraction = Field(description="the largest mean loss that the test does not reject at delta")
    mean_ms: float


class Risk(Frozen):
    """The certificate's test, step by step; computed from its evidence."""

    loss: str = Field(description="drop of the metric, by its name, or disagreement")
    test: Literal["betting", "binomial"]
    max_drop: Fraction
    delta: float = Field(description="each bound alone is too low with at most this probability")
    group_by: str | None = Field(
        None,
        description="loss and bound are those of the worst group: a class or another stratum; for 'exit' the samples "
        "that exit at an exit or before it",
    )
    reference: Sha256 | None = Field(
        None, description="artifact whose last exit losses are counted from; None: its own"
    )
    samples: int
    certified: int = Field(description="the last certified step; 0: none")
    chosen: int = Field(description="the step that the policy uses; 0: no early exit")
    steps: tuple[RiskStep, ...]


class Explanation(Frozen):
    """What the exits of one artifact do on one split, and what they cost on this machine."""

    schema_version: Literal[2] = 2
    created: str
    command: str
    source: str = Field(description="folder as given")
    digest: Sha256
    layout: str
    exits_are_ensembles: bool = Field(False, description="an exit's outputs are the mean of the exits up to it")
    policy_name: str | None = Field(description="of the policy; None without one")
    guarantee: str | None = Field(description="of the policy; None without one")
    data: str
    split: Split
    samples: int
    metric_name: str = Field(description="what the task calls 1 - mean loss, e.g. accuracy")
    binary_loss: bool = Field(description="whether every loss is 0 or 1, so that the metric is a proportion")
    stratum: str | None = Field(description="what the task calls a stratum, e.g. class; None: it has none")
    machine: Machine
    threads: int
    turns_ms: tuple[tuple[float, ...], ...] = Field(
        description="ms until each exit, one row for each turn of the measurement; none where leaving saves nothing"
    )
    decision_ms: float | None = Field(description="what it takes to decide at one exit whether a sample leaves")
    exits: tuple[ExitFigures, ...]
    policy: PolicyFigures | None
    strata: tuple[Stratum, ...] = Field(description="those that have samples; none without a policy")
    curve: tuple[OperatingPoint, ...] = Field(description="the path of thresholds, safest first")
    curve_split: Split | None = Field(description="on which the path was made; None without a curve")
    curve_samples: int = Field(0, description="on which the path was made")
    overthinking: Overthinking | None = Field(description="of the whole network; None with one exit")
    policy_overthinking: Overthinking | None = Field(description="under the policy; None without one")
    oracle: OperatingPoint | None = Field(description="every sample leaves at the first exit with its least loss")
    risk: Risk | None = Field(None, description="None: the artifact has no certificate")
