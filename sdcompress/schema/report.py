"""The records of what was measured and predicted. Markdown, HTML and plots are drawn from them."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator, model_validator

from sdcompress.schema.base import Fraction, Frozen, Sha256

__all__ = [
    "ENSEMBLE",
    "BackendComparison",
    "BenchRecord",
    "BenchReport",
    "CertificateVerdict",
    "Comparison",
    "Evaluation",
    "ExitEvaluation",
    "ExitTiming",
    "ExitVerdict",
    "FilePrediction",
    "Latency",
    "Machine",
    "OutputValue",
    "Percentile",
    "PlanRow",
    "PolicyEvaluation",
    "Report",
    "ReportRow",
    "SampleSizePlan",
    "StratumEvaluation",
    "VerifyReport",
]

ENSEMBLE = "ensemble"  # the name of an ExitEvaluation that is of no exit


class ExitEvaluation(Frozen):
    """One exit (or the mean of all exits, named 'ensemble') on one split."""

    name: str
    metric: Fraction = Field(description="the metric")
    standard_error: NonNegativeFloat | None = Field(
        None, description="of the metric; None: losses are 0 or 1, and it is a proportion"
    )
    balanced_metric: Fraction | None = Field(None, description="mean of the metric over the strata that have samples")
    further: dict[str, FiniteFloat] = Field({}, description="further metrics of the task, by name, e.g. nll and ece")
    macs: int | None = Field(None, description="multiply-accumulates for one sample that leaves here")
    parameters: int | None = Field(None, description="parameters of the network truncated at this exit")


class PolicyEvaluation(Frozen):
    """The early-exit policy as it runs."""

    metric: Fraction = Field(description="the metric")
    standard_error: NonNegativeFloat | None = Field(
        None, description="of the metric; None: losses are 0 or 1, and it is a proportion"
    )
    further: dict[str, FiniteFloat] = Field({}, description="further metrics of the task, by name, e.g. nll and ece")
    shares: tuple[Fraction, ...] = Field(description="share of samples that left at each exit")
    metric_by_exit: tuple[Fraction | None, ...] = Field(description="the metric of those that left there")


class StratumEvaluation(Frozen):
    """The samples of one stratum, in classification of one class."""

    name: str
    samples: NonNegativeInt
    metric: Fraction | None = Field(
        description="the metric, of the policy, or of the last exit without one; None: there are no samples"
    )
    last_exit_metric: Fraction | None = Field(None, description="of the last exit; None without a policy")
    metric_by_exit: tuple[Fraction, ...] = Field((), description="the metric at each exit; empty: there are no samples")
    shares: tuple[Fraction, ...] = Field(
        (), description="of its samples that left at each exit; empty without a policy"
    )


Cell: TypeAlias = tuple[NonNegativeInt, NonNegativeInt, PositiveInt]


class Evaluation(Frozen):
    """Scores of a checkpoint or an artifact on one split."""

    kind: Literal["checkpoint", "artifact"]
    name: str
    source: str = Field(description="folder as given")
    digest: Sha256 | None = Field(None, description="the artifact's, or the SHA-256 of the checkpoint's weights")
    data: str
    split: Literal["validation", "test", "external"] = Field(description="external: samples that the user named")
    samples: PositiveInt
    metric_name: str = Field(description="what the task calls 1 - mean loss, e.g. accuracy")
    binary_loss: bool = Field(description="whether every loss is 0 or 1, so that the metric is a proportion")
    exits: tuple[ExitEvaluation, ...] = Field(description="shallow to deep, then the ensemble where there is one")
    policy: PolicyEvaluation | None = None
    stratum: str | None = Field(None, description="what the task calls a stratum, e.g. class; None: it has none")
    balanced_metric: Fraction | None = Field(
        None, description="mean of the metrics of the strata, of the policy, or of the last exit without one"
    )
    strata: tuple[StratumEvaluation, ...] = Field((), description="in the order of the task; empty: it has none")
    confusion: tuple[Cell, ...] = Field(
        (),
        description="cells of the confusion matrix that are not 0: stratum of the target, stratum of the decision "
        "(positions in strata), samples; empty: decisions are no strata",
    )
    losses: str | None = Field(
        None,
        description="base64 of the losses, by the policy, or of the last exit without one, in the order of the split: "
        "a bit for each, the highest of a byte first, where all are 0 or 1; else little-endian float32",
    )
    targets_sha256: Sha256 | None = Field(None, description="of the targets in that order, little-endian")
    pictures: Annotated[str, Field(max_length=2**24)] | None = Field(
        None, description="base64 of a PNG file: for a few samples the input, the target and the decision of each exit"
    )

    @model_validator(mode="after")
    def _fits_the_samples(self) -> Evaluation:
        if self.losses is not None and _bytes_in(self.losses) not in {-(-self.samples // 8), 4 * self.samples}:
            raise ValueError(f"'losses' does not hold {self.samples} bits or float32 in base64")
        if any(max(stratum, decided) >= len(self.strata) for stratum, decided, _ in self.confusion):
            raise ValueError(f"'confusion' names a stratum beyond the {len(self.strata)} of 'strata'")
        counts = [0] * len(self.strata)
        for stratum, _, samples in self.confusion:
            counts[stratum] += samples
        sizes = [one.samples for one in self.strata]
        if (self.confusion and counts != sizes) or (sizes and sum(sizes) != self.samples):
            raise ValueError(f"'confusion' does not add up to the samples of 'strata' and to {self.samples} in all")
        if any((one.metric is None) != (one.samples == 0) for one in self.strata):
            raise ValueError("'strata' has a metric for exactly those that have samples")
        return self

    @field_validator("pictures")
    @classmethod
    def _is_png(cls, text: str | None) -> str | None:
        if text is not None and (_bytes_in(text) < 0 or not base64.b64decode(text).startswith(b"\x89PNG\r\n\x1a\n")):
            raise ValueError("it is no PNG file in base64")
        return text

    @model_validator(mode="after")
    def _one_entry_for_every_exit(self) -> Evaluation:
        exits = [exit_.name for exit_ in self.exits if exit_.name != ENSEMBLE]
        if not exits or exits != [exit_.name for exit_ in self.exits[: len(exits)]]:
            raise ValueError("an evaluation needs an exit, and the ensemble after all exits")
        if self.policy and not len(self.policy.shares) == len(self.policy.metric_by_exit) == len(exits):
            raise ValueError("the policy needs one of shares and of metric_by_exit for each exit")
        return self


def _bytes_in(text: str) -> int:
    try:
        return len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return -1


class Percentile(Frozen):
    """One percentile; value and interval are None below the sample floor of an honest estimate."""

    percent: float
    value_ms: float | None
    low_ms: float | None = Field(None, description="lower end of the 99 % order-statistic interval")
    high_ms: float | None = None
    needs: int = Field(description="samples needed before this percentile is reported")


class Latency(Frozen):
    """Time of a call, closed loop, nothing trimmed."""

    samples: int
    mean_ms: float
    min_ms: float
    max_ms: float
    cv: float = Field(description="standard deviation / mean")
    over_three_medians: int = Field(description="calls slower than three times the median")
    percentiles: tuple[Percentile, ...]


class ExitTiming(Frozen):
    """Calls of one sample that left at this exit, and calls forced to it."""

    name: str
    share: Fraction
    p50_ms: float | None = Field(description="of the calls that left here by themselves; None if too few")
    mean_ms: FiniteFloat | None = Field(None, description="likewise; None if there were none")
    forced_p50_ms: float = Field(description="of calls forced to leave here")
    forced_mean_ms: FiniteFloat | None = Field(None, description="likewise")


class BenchRecord(Frozen):
    """One artifact in one scenario at one batch size."""

    name: str
    source: str
    digest: Sha256 | None
    layout: str
    backend: str | None = Field(None, description="that ran it; None: that of the whole benchmark")
    scenario: Literal["single-stream", "offline"]
    batch: int
    latency: Latency = Field(description="of the run alone, from prepared inputs to answers")
    preparation: Latency | None = Field(None, description="of making one call's inputs from raw examples in memory")
    end_to_end_ms: FiniteFloat | None = Field(None, description="mean of a call with the preparation of its inputs")
    samples_per_second: float = Field(description="of the run alone")
    load_ms: float = Field(description="opening the artifact, hashes included")
    first_ms: float = Field(description="the first call")
    metric: Fraction | None = Field(None, description="the metric, on the samples of this run")
    exits: tuple[ExitTiming, ...] = ()
    worst_path: Latency | None = Field(None, description="forced to the last exit")
    predicted_ms: float | None = Field(
        None, description="mean that calibration predicted for this backend, at the exit shares of its samples, ms"
    )
    predicted_at_shares_ms: float | None = Field(None, description="likewise, at the exit shares of this run")
    mixture_residual: float | None = Field(
        None, description="mean / sum(share * forced mean of the inputs that left there by themselves) - 1"
    )
    stable: bool
    reasons: tuple[str, ...] = Field((), description="why it is not stable")
    raw_ms: tuple[float, ...] = Field((), description="every measured call in order, ms")


class Comparison(Frozen):
    """How many times faster than the reference, measured in turn with it (A B A B ...)."""

    name: str
    reference: str
    scenario: Literal["single-stream", "offline"]
    batch: int
    speedup_p50: float = Field(description="reference p50 / p50: above 1 is faster")
    low: float = Field(description="95 % bootstrap interval over the interleaved rounds")
    high: float
    speedup_mean: float = Field(description="reference mean / mean; p50 shows an early exit's commonest path only")
    mean_low: float
    mean_high: float
    speedup_end_to_end: FiniteFloat | None = Field(None, description="of the means with the preparation of the inputs")
    end_to_end_low: FiniteFloat | None = None
    end_to_end_high: FiniteFloat | None = None
    rounds: int
    verdict: Literal["faster", "slower", "no difference"] = Field(
        description="of the means, which decide what a stream of samples costs; no difference: the interval holds 1"
    )


class Machine(Frozen):
    """What the figures were measured on."""

    cpu: str
    cores: int
    quota: float | None = Field(None, description="cores that the control groups allow; None where they set no limit")
    isa: tuple[str, ...]
    memory_gib: float
    gpu: str | None
    os: str
    python: str
    governor: str | None = None
    busy_cores: float | None = Field(None, description="cores that other work kept busy just before the run")
    versions: dict[str, str]


class BackendComparison(Frozen):
    """One artifact on several backends, measured in turn, in one scenario at one batch size."""

    name: str = Field(description="of the artifact")
    scenario: Literal["single-stream", "offline"]
    batch: int
    mean_ms: dict[str, FiniteFloat] = Field(description="backend -> mean of the run, the fastest first")
    speedup: FiniteFloat = Field(description="mean of the second / mean of the fastest")
    low: FiniteFloat = Field(description="95 % bootstrap interval over the interleaved rounds")
    high: FiniteFloat
    verdict: Literal["faster", "slower", "no difference"]


class BenchReport(Frozen):
    """All records of one 'bench' call."""

    schema_version: Literal[2] = 2
    created: str
    command: str
    machine: Machine
    threads: int
    backend: str = Field("onnxruntime", description="several with commas between them")
    device: str
    input: str = Field(description="where the examples came from, and how many different ones")
    preparation: str | None = Field(None, description="from what inputs were prepared; None: it was not measured")
    warmup_ms: float
    duration_s: float
    clock: Literal["wall", "thread"] = Field("wall", description="thread: processor time of the calling thread")
    records: tuple[BenchRecord, ...]
    comparisons: tuple[Comparison, ...] = ()
    backend_comparisons: tuple[BackendComparison, ...] = Field((), description="empty: there was one backend")
    left_out: dict[str, str] = Field({}, description="of backend 'all': backend -> why it was not measured")

    @model_validator(mode="after")
    def _the_same_percentiles(self) -> BenchReport:
        if len({tuple(each.percent for each in record.latency.percentiles) for record in self.records}) > 1:
            raise ValueError("all records need the same percentiles")
        return self


class ReportRow(Frozen):
    """One deployable network: its metric and its costs."""

    name: str
    layout: str
    digest: Sha256 | None
    guarantee: str | None = Field(None, description="of the exit policy, in words; None without a policy")
    test_metric: Fraction | None = Field(description="the metric")
    validation_metric: Fraction | None
    macs: float | None = Field(description="mean for one sample, over the exit shares")
    parameters: int
    bytes: int
    p50_ms: float | None
    p99_ms: float | None
    mean_ms: float | None = None
    preparation_ms: float | None = Field(None, description="mean, of making the input of one sample")
    end_to_end_ms: float | None = Field(None, description="mean, with preparation")
    stable: bool | None = Field(None, description="of the latency; None where it was not measured")
    speedup: float | None = Field(description="of the mean over the reference's, single-stream")
    speedup_low: float | None = None
    speedup_high: float | None = None
    speedup_end_to_end: float | None = Field(None, description="of the mean with preparation")
    end_to_end_low: float | None = None
    end_to_end_high: float | None = None


class Report(Frozen):
    """Results of a run: the table, the figures behind it, and the machine that measured."""

    schema_version: Literal[2] = 2
    title: str
    created: str
    command: str
    recipe: dict[str, Any] | None = None
    metric_name: str = Field(description="what the task calls 1 - mean loss, e.g. accuracy")
    reference: str | None = Field(None, description="the row that speed-ups are against")
    rows: tuple[ReportRow, ...]
    evaluations: tuple[Evaluation, ...] = ()
    benches: tuple[BenchReport, ...] = ()
    training: dict[str, tuple[dict[str, float], ...]] = Field({}, description="metrics.jsonl of each run, by name")
    notes: tuple[str, ...] = ()


class ExitVerdict(Frozen):
    """One exit of an artifact, run on its golden samples."""

    name: str
    max_abs_diff: float = Field(description="largest absolute difference of an output from the checkpoint's")
    batch_max_abs_diff: float = Field(description="largest difference between samples run together and one by one")
    tolerance: float
    flips: int = Field(description="samples whose decision changed")


class CertificateVerdict(Frozen):
    """A certificate whose tests were made again from its evidence, with the same results."""

    loss: str
    group_by: str | None = Field(None, description="in every group of which it holds: exit, class or another stratum")
    reference: Sha256 | None = Field(None, description="artifact against whose last exit it holds; None: its own")
    confidence: Fraction
    samples: int = Field(description="samples that were tested")
    tests: int = Field(description="p-values that were computed again")
    certified: tuple[Fraction, ...] = Field(description="the drops for which some thresholds are certified")


class SignatureVerdict(Frozen):
    """Who signed an artifact as it stands."""

    key: str = Field(description="file of the key or of the certificates, as given")
    kind: Literal["key", "certificate"]
    signer: str = Field(description="the public key's SHA-256, or the subject of the signer's certificate")


class VerifyReport(Frozen):
    """An artifact that is intact and computes on this machine what its checkpoint computed."""

    schema_version: Literal[1] = 1
    source: str = Field(description="folder as given")
    digest: Sha256
    layout: str
    files: int = Field(description="files whose bytes were checked")
    samples: int = Field(description="golden samples that were run")
    backend: str = Field("onnxruntime", description="that ran them")
    device: str = "cpu"
    exits: tuple[ExitVerdict, ...]
    certificate: CertificateVerdict | None = Field(None, description="None: the artifact has no certificate")
    one_graph: Literal["graph", "if"] | None = Field(
        None, description="gives the segments' answers; None: there is none"
    )
    signature: SignatureVerdict | None = Field(None, description="None: none was asked for")
    proved: tuple[str, ...] = Field((), description="what was worked out again here, as sentences")
    claimed: tuple[str, ...] = Field((), description="statements of the artifact that nothing here can prove")


class PlanRow(Frozen):
    """One speed, and the samples that would certify it."""

    mean_ms: float | None = Field(description="by the stages as measured; None where losses are assumed")
    mean_loss: Fraction = Field(
        description="mean of what the exits where samples leave lose against the reference; of the group that needs "
        "most samples"
    )
    mean_gain: Fraction = Field(description="mean of what these exits gain")
    samples_needed: int | None = Field(
        description="calibration samples in all; None: more than a million, or out of reach"
    )


class SampleSizePlan(Frozen):
    """How many calibration samples a certificate needs."""

    schema_version: Literal[1] = 1
    source: str = Field(description="folder as given")
    max_drop: Fraction
    confidence: Fraction
    loss: str = Field(description="drop of the metric, by its name, or disagreement")
    group_by: str | None = Field(
        None, description="in every group of which it shall hold: exit, class or another stratum"
    )
    smallest_stratum: str | None = Field(None, description="of strata: the one with the fewest calibration samples")
    power: Fraction = Field(description="share of calibrations that find the certificate with the planned number")
    samples: int = Field(description="calibration samples that there are")
    tuning_samples: int = Field(description="of them, those that this plan was made on; they certify nothing")
    minimum_samples: int = Field(description="samples below which calibration refuses: not even without a loss")
    assumed: tuple[PlanRow, ...]
    observed: tuple[PlanRow, ...] = Field(description="along the path of thresholds, from careful to fast")


class OutputValue(Frozen):
    """A number that the network gives, such as the probability of a class."""

    name: str
    value: float


class FilePrediction(Frozen):
    """The prediction for one raw example in a file, or why there is none."""

    file: str = Field(description="its path; of a file with many examples also the line, as in reviews.csv:3")
    stated: tuple[OutputValue, ...] = Field(
        (), description="as the task states it: the most probable classes, or the labels that it has"
    )
    kind: str = Field("output", description="what the names are, e.g. class")
    unit: str = Field("value", description="what the values are, e.g. probability")
    exit: str | None = Field(None, description="name of the exit at which it left")
    prepare_ms: float | None = Field(None, description="to read the file and make inputs of it")
    run_ms: float | None = Field(None, description="of the network, in a batch of one")
    picture: str | None = Field(None, description="file that the decision was drawn into, if that was asked for")
    error: str | None = Field(None, description="why there is no prediction")
