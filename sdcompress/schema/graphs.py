"""The files of an artifact that compute, as its manifest lists them. Specified in docs/artifact.md."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from sdcompress.schema.base import Frozen, Sha256

__all__ = [
    "DECISION",
    "EXIT_INDEX",
    "OUTPUTS",
    "Dtype",
    "Ensemble",
    "FileEntry",
    "Layout",
    "OneGraph",
    "PathTime",
    "Precision",
    "Segment",
    "Tensor",
]

Layout = Literal["single", "cascade", "all", "graph", "if"]  # what an export can be asked for
Ensemble = Literal["geometric"]
# of a tensor between graphs, as numpy writes it: what every backend can hand on
Dtype = Literal["float16", "float32", "float64", "bfloat16", "bool", "int8", "uint8", "int32", "int64"]
# of the weights and of most of the arithmetic
Precision = Literal["fp32", "fp16", "bf16", "int8", "uint8", "fp8"]

OUTPUTS, DECISION, EXIT_INDEX = "outputs", "decision", "exit_index"  # outputs of a OneGraph, in this order


class Tensor(Frozen):
    """A named tensor at a border; a dynamic axis by its name."""

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]
    below: PositiveInt | None = Field(None, description="of indices, such as those of categories: all are below it")


class FileEntry(Frozen):
    """A file of the artifact, by its name inside the folder."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$")]
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class Segment(FileEntry):
    """One graph of the chain. Its inputs are the network's inputs or outputs of earlier segments, by name."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    precision: Precision = "fp32"
    macs: Annotated[int, Field(ge=0)] = Field(
        description="multiply-accumulates for one sample, of 16 positions along an axis that varies, such as tokens"
    )
    parameters: Annotated[int, Field(ge=0)]


class PathTime(Frozen):
    """The time to one exit of a ``OneGraph``: real samples that exit there, one at a time, on one thread."""

    exit: str
    samples: Annotated[int, Field(ge=0)] = Field(description="different ones; 0: none was at hand")
    rounds: Annotated[int, Field(ge=0)] = 0
    ms: PositiveFloat | None = Field(None, description="median over the rounds")
    full_depth_ms: PositiveFloat | None = Field(
        None, description="of the same samples, in the same graph, if none leaves"
    )
    no_exits_ms: PositiveFloat | None = Field(None, description="of the same samples, in the network without exits")
    wins_vs_full_depth: Annotated[int, Field(ge=0)] = Field(0, description="rounds in which ms < full_depth_ms")
    wins_vs_no_exits: Annotated[int, Field(ge=0)] = Field(0, description="rounds in which ms < no_exits_ms")


class OneGraph(Segment):
    """The whole cascade in one graph that exits by itself, with thresholds and policy in it.

    It gives ``outputs`` [batch, ...] and ``decision`` [batch, ...] of the task, and ``exit_index`` int64 [batch].
    ``macs`` are those of a sample that runs to the end.
    """

    kind: Literal["graph", "if"] = Field(description="'graph': any batch, rows exit one by one; 'if': a batch of 1")
    samples: PositiveInt = Field(description="real samples on which it was compared with the segments")
    batches: tuple[PositiveInt, ...]
    whole_validation_split: bool = Field(
        False, description="it was compared on every validation sample, so on all that certified the segments"
    )
    max_abs_diff: NonNegativeFloat = Field(description="largest difference of an output from the segments'")
    near_threshold: Annotated[int, Field(ge=0)] = Field(
        description="samples that exited elsewhere, because their score is within 1e-5 of a threshold, or were decided "
        "otherwise by outputs within the tolerance"
    )
    machine: str = Field(description="processor on which the times were measured")
    busy_cores: float | None = Field(description="cores that others kept busy before; null: the system does not say")
    times: tuple[PathTime, ...] = Field(description="of every exit")
    mean_ms: PositiveFloat = Field(description="of one sample, over the samples that it was compared on")
    segments_ms: PositiveFloat = Field(description="of the same samples in the segments, in turns with it")

    def is_faster_on(self, processor: str) -> bool:
        """Return whether it was faster than the segments on this processor."""
        return self.machine == processor and self.mean_ms < self.segments_ms
