"""The manifest of an artifact: the contract with everything downstream. Specified in docs/artifact.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from sdcompress.schema.backend_times import BackendTimes
from sdcompress.schema.base import Fraction, Frozen, Sha256
from sdcompress.schema.certificate import Certificate, CertifiedDrop
from sdcompress.schema.change import ParityRecord
from sdcompress.schema.engines import Engines
from sdcompress.schema.graphs import (
    DECISION,
    EXIT_INDEX,
    OUTPUTS,
    FileEntry,
    OneGraph,
    Precision,
    Segment,
    Tensor,
)
from sdcompress.schema.pruning import PruningRound

__all__ = [
    "BackendTimes",
    "Certificate",
    "CertifiedDrop",
    "Engines",
    "Exit",
    "ExitSignals",
    "FileEntry",
    "Manifest",
    "OneGraph",
    "OutputName",
    "ParityRecord",
    "Policy",
    "Provenance",
    "RegistryEntry",
    "Segment",
    "StageTimes",
    "Tensor",
]


_FILE_FIELDS = frozenset(FileEntry.model_fields)
OutputName = Annotated[str, Field(min_length=1, max_length=1000)]


class RegistryEntry(Frozen):
    """An entry of a room, and the parameters that it was made with."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    parameters: dict[str, Any] = Field({}, description="what they are depends on the entry, which checks them")

    @property
    def files(self) -> dict[str, FileEntry]:
        """The parameters that are files, such as a tokenizer; they travel with what holds this record."""
        entries = {name: value for name, value in self.parameters.items() if isinstance(value, dict)}
        return {name: FileEntry.model_validate(v) for name, v in entries.items() if v.keys() == _FILE_FIELDS}

    @model_validator(mode="after")
    def _files_are_entries(self) -> RegistryEntry:
        self.files  # noqa: B018 - raises
        return self


class ExitSignals(Frozen):
    """What a graph computes of an exit's outputs for the exit policy: names of tensors."""

    values: str = Field(description="float32 [batch, S]: one column for each signal of the task, in its order")
    decision: str = Field(description="what the exit decides, in the form of the task's targets")


class Exit(Frozen):
    """One exit: the tensor of its outputs, and its metrics on the validation split."""

    name: str
    segment: Annotated[int, Field(ge=0)] = Field(description="index of the segment after which a sample can exit")
    outputs: str = Field(description="name of the tensor, float32 [batch, ...] of the task's shape")
    metrics: dict[str, float] = Field({}, description="by name: the task's metric and its further ones, e.g. nll")
    temperature: PositiveFloat = 1.0
    signals: ExitSignals | None = Field(None, description="null: they are computed from outputs, outside the graph")

    @property
    def reads(self) -> set[str]:
        """Return the names of the tensors that an engine reads at this exit."""
        return {self.outputs} | ({self.signals.values, self.signals.decision} if self.signals else set())


class StageTimes(Frozen):
    """What the stages of a cascade take on the machine that calibrated it, by the number of rows."""

    rows: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(description="rising")
    sizes: tuple[PositiveFloat, ...] = Field(
        (),
        description="for each number of rows the mean size of a sample: the product of its axes that vary, such as the "
        "tokens with padding; empty: only the batch varies",
    )
    ms: tuple[tuple[PositiveFloat, ...], ...] = Field(description="of each stage, for each number of rows")
    move_ms: tuple[NonNegativeFloat, ...] = Field(
        description="after each exit but the last, to put one row in the place of one that has left"
    )

    @model_validator(mode="after")
    def _one_time_for_each_number_of_rows(self) -> StageTimes:
        if list(self.rows) != sorted(set(self.rows)):
            raise ValueError("the numbers of rows must rise")
        if self.sizes and len(self.sizes) != len(self.rows):
            raise ValueError("sizes need one for each number of rows")
        work = [rows * size for rows, size in zip(self.rows, self.sizes, strict=False)]
        if work != sorted(set(work)):
            raise ValueError("rows times sizes must rise")
        if any(len(times) != len(self.rows) for times in self.ms):
            raise ValueError("every stage needs one time for each number of rows")
        return self


class Policy(Frozen):
    """The exit rule: a sample exits at the first exit k whose score is at least thresholds[k].

    ``name`` computes the score from the exit's signals, which depend on the exit's temperature. The last exit takes
    whatever is left. A threshold above 1 never fires.
    """

    name: str = Field("max_prob", description="of 'sdcompress list policies'")
    parameters: dict[str, Any] = Field({}, description="fitted by the calibration; what they are depends on the policy")
    thresholds: tuple[float, ...] = Field(description="one for each exit but the last")
    max_drop: Fraction = Field(
        description="how much of the metric could be lost against the last exit, or what the certificate names"
    )
    guarantee: Literal["none", "certified", "no certificate", "in expectation"] = Field(
        "none",
        description="'none': chosen on the calibration samples, no statistical certificate. 'certified': see the "
        "certificate. 'no certificate': one was asked for and not found; early exit is disabled. "
        "'in expectation': the mean over calibrations keeps the drop, this one may lose more; nothing is certified",
    )
    split: str = "validation"
    samples: PositiveInt
    metric: Fraction | None = Field(description="the task's metric, on the calibration samples; null without targets")
    reference_metric: Fraction | None = Field(
        description="of the last exit, or of what the certificate is measured against, on the same samples"
    )
    shares: tuple[Fraction, ...] = Field(description="share of the calibration samples that exited at each exit")
    disagreement: Fraction | None = Field(
        None, description="mean loss of their decisions against those of the last exit; null: not measured"
    )
    stage_ms: tuple[PositiveFloat, ...] = Field(description="measured ms of each segment at batch 1 when calibrated")
    decision_ms: tuple[NonNegativeFloat, ...] = Field(
        (), description="measured ms to decide at each exit but the last, at batch 1; empty: not measured"
    )
    overhead: PositiveFloat = Field(
        1.0,
        description="measured mean latency under the policy, divided by the sum of the stage and decision times that "
        "its samples need: the cost of going from stage to stage, and of caches; less where an exit is never taken, "
        "because its head is left out",
    )
    exit_ms: tuple[PositiveFloat | None, ...] = Field(
        (),
        description="measured mean ms of the calibration samples that exit at each exit, one at a time under the "
        "policy; null: none of the timed ones exited there; empty: not measured",
    )
    whole_ms: PositiveFloat | None = Field(
        None, description="measured mean ms of the whole network without early exits, at batch 1; null: not measured"
    )
    rejected_ms: PositiveFloat | None = Field(
        None, description="mean ms of thresholds that were given up for the whole network, which is faster; null: none"
    )
    stage_times: StageTimes | None = Field(None, description="null: not measured in batches")
    backend: str = Field("onnxruntime", description="that it was chosen on")
    device: str = Field("cpu", description="likewise")
    plans: Sha256 | None = Field(None, description="of engines: the digest of the list of their plans' SHA-256")

    @model_validator(mode="after")
    def _nobody_leaves_without_a_certificate(self) -> Policy:
        if self.guarantee == "no certificate" and self.exits_early:
            raise ValueError("a policy without the certificate that was asked for may have no threshold that fires")
        return self

    @property
    def exits_early(self) -> bool:
        """Return whether a score can reach a threshold; if none can, all samples run to the last exit."""
        return any(threshold <= 1 for threshold in self.thresholds)

    @property
    def mean_ms(self) -> float:
        """Return the predicted mean ms of one sample, at the exit shares of the calibration samples."""
        return self.expected_ms(self.shares)

    def expected_ms(self, shares: Sequence[float]) -> float:
        """Return the predicted mean ms of one sample at these shares of the exits, [E].

        An exit takes what its calibration samples took; where none was timed, its stages and decisions times
        ``overhead``.
        """
        reached = (self.overhead * ms for ms in self.reach_ms)
        measured = self.exit_ms or (None,) * len(self.shares)
        times = (ms if exact is None else exact for exact, ms in zip(measured, reached, strict=True))
        return sum(share * ms for share, ms in zip(shares, times, strict=True))

    @property
    def reach_ms(self) -> tuple[float, ...]:
        """Return the ms until each exit, by the measured stages and decisions."""
        spent = (self.stage_ms, self.decision_ms)
        return tuple(sum(ms for each in spent for ms in each[: exit_ + 1]) for exit_ in range(len(self.stage_ms)))


class Provenance(Frozen):
    """Where the artifact comes from."""

    created: str = Field(description="UTC, ISO 8601")
    recipe: dict[str, Any] = Field(description="the resolved recipe")
    recipe_sha256: Sha256
    weights_sha256: Sha256
    data_fingerprint: Sha256
    parent: Sha256 | None = Field(None, description="digest of the artifact that this one was made from")
    pruned: tuple[PruningRound, ...] = Field((), description="each time that the network was pruned, the first first")
    teacher_sha256: Sha256 | None = Field(
        None, description="of the weights of the trained network that taught; null: there was none"
    )
    command: str = ""
    git_commit: str | None = None
    versions: dict[str, str] = Field({})


class Manifest(Frozen):
    """What an artifact is. ``digest`` is the SHA-256 of all other fields and names the artifact."""

    schema_version: Literal[2] = 2
    task: RegistryEntry = Field(description="what the outputs mean; of 'sdcompress list tasks'")
    outputs: Annotated[tuple[OutputName, ...], Field(min_length=1)] = Field(
        description="what each output stands for; all different"
    )
    modality: RegistryEntry = Field(description="how raw examples become inputs")
    inputs: Annotated[tuple[Tensor, ...], Field(min_length=1)] = Field(description="of the network, as modality says")
    layout: Literal["single", "cascade", "all"]
    segments: Annotated[tuple[Segment, ...], Field(min_length=1)]
    exits: Annotated[tuple[Exit, ...], Field(min_length=1)]
    policy: Policy | None = None
    certificate: Certificate | None = None
    one_graph: OneGraph | None = None
    engines: tuple[Engines, ...] = Field((), description="TensorRT engines; of one machine each")
    backend_times: tuple[BackendTimes, ...] = Field(
        (), description="measured by 'bench --record': one for each machine, device and number of threads"
    )
    golden: FileEntry
    card: FileEntry
    parity: tuple[ParityRecord, ...]
    provenance: Provenance
    digest: Sha256

    @field_validator("outputs")
    @classmethod
    def _different(cls, outputs: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(outputs)) != len(outputs):
            raise ValueError("two outputs have one name")
        return outputs

    @field_validator("exits")
    @classmethod
    def _in_order(cls, exits: tuple[Exit, ...]) -> tuple[Exit, ...]:
        order = [exit_.segment for exit_ in exits]
        if order != sorted(order) or len({exit_.name for exit_ in exits}) != len(exits):
            raise ValueError("exits must be in the order of their segments, with unique names")
        return exits

    @model_validator(mode="after")
    def _policy_fits(self) -> Manifest:
        if any(exit_.segment >= len(self.segments) for exit_ in self.exits):
            raise ValueError("an exit names a segment that does not exist")
        if self.policy is not None:
            _check_lengths(self.policy, len(self.exits))
        if self.one_graph is not None:
            if self.policy is None or self.layout != "cascade":
                raise ValueError("one graph that exits by itself needs a cascade and its policy")
            _check_one_graph(self.one_graph, self.inputs, len(self.exits))
        if any(len(built.plans) != len(self.segments) for built in self.engines):
            raise ValueError("engines need one plan for each segment")
        if len({times.place for times in self.backend_times}) != len(self.backend_times):
            raise ValueError("backend_times of one machine, device and number of threads stand there twice")
        return self

    @model_validator(mode="after")
    def _certificate_fits(self) -> Manifest:
        certificate, exits = self.certificate, len(self.exits)
        if certificate is None:
            return self
        if self.policy is None:
            raise ValueError("a certificate is about a policy, and there is none")
        if any(len(step) != exits - 1 for step in certificate.path) or len(certificate.temperatures) != exits:
            raise ValueError("the certificate is not about this number of exits")
        if any(level.certified >= len(certificate.path) for level in certificate.levels):
            raise ValueError("the certificate names a step that its path does not have")
        if any(len(level.shares) not in {0, exits} for level in certificate.levels):
            raise ValueError("a level of the certificate needs one of shares for each exit, or none at all")
        return self

    def live_tensors(self, exit_: int) -> tuple[Tensor, ...]:
        """Return the tensors that are still needed when no sample exits at an exit, by its index."""
        done = self.exits[exit_].segment + 1
        made = (*self.inputs, *(tensor for segment in self.segments[:done] for tensor in segment.outputs))
        needed = {tensor.name for segment in self.segments[done:] for tensor in segment.inputs}
        needed |= {name for later in self.exits[exit_ + 1 :] for name in later.reads}
        return tuple(tensor for tensor in made if tensor.name in needed)

    def segments_between(self, first: int, last: int) -> range:
        """Return the indices of the segments that run from the exit before ``first`` on, up to exit ``last``.

        Args:
            first: index of an exit; 0: from the inputs on.
            last: index of the same exit or a later one.
        """
        start = self.exits[first - 1].segment + 1 if first else 0
        return range(start, self.exits[last].segment + 1)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Return the precisions of its graphs, each once, sorted."""
        return tuple(sorted({segment.precision for segment in self.segments}))

    @property
    def exits_are_ensembles(self) -> bool:
        """Return whether an exit's outputs are the geometric mean of the exits up to it (``export.ensemble``)."""
        section = self.provenance.recipe.get("export")  # anybody may have written the recipe
        return isinstance(section, dict) and section.get("ensemble") == "geometric"

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Return every file of the artifact but the manifest."""
        evidence = (self.certificate.evidence,) if self.certificate else ()
        whole = (self.one_graph,) if self.one_graph else ()
        built = tuple(file for engines in self.engines for file in engines.files)
        return (*self.segments, self.golden, self.card, *self.modality.files.values(), *evidence, *whole, *built)


def _check_lengths(policy: Policy, exits: int) -> None:
    if len(policy.thresholds) != exits - 1:
        raise ValueError("the policy needs one threshold for each exit but the last")
    if len(policy.shares) != exits or len(policy.stage_ms) != exits:
        raise ValueError("the policy needs one of shares and of stage_ms for each exit")
    if len(policy.exit_ms) not in {0, exits}:
        raise ValueError("the policy needs one of exit_ms for each exit, or none at all")
    if len(policy.decision_ms) not in {0, exits - 1}:
        raise ValueError("the policy needs one of decision_ms for each exit but the last, or none at all")
    times = policy.stage_times
    if times is not None and (len(times.ms) != exits or len(times.move_ms) != exits - 1):
        raise ValueError("stage_times need ms for each exit, and move_ms for each but the last")


def _check_one_graph(one_graph: OneGraph, inputs: tuple[Tensor, ...], exits: int) -> None:
    names = [tensor.name for tensor in one_graph.outputs]
    if [tensor.name for tensor in one_graph.inputs] != [tensor.name for tensor in inputs]:
        raise ValueError("one graph takes the network's inputs")
    if names != [OUTPUTS, DECISION, EXIT_INDEX]:
        raise ValueError(f"one graph gives {OUTPUTS}, {DECISION} and {EXIT_INDEX}")
    if len(one_graph.times) != exits:
        raise ValueError("one graph needs a time for each exit")
