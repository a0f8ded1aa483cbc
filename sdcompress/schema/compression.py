"""What a search for the best way to deploy found: the record of ``compress``. docs/compress.md explains it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from sdcompress.schema.base import Fraction, Frozen, Sha256
from sdcompress.schema.graphs import Ensemble
from sdcompress.schema.recipe_compression import Compress
from sdcompress.schema.report import BenchReport, Machine

__all__ = ["Candidate", "Compression", "Finalist", "SearchedSource"]


class Candidate(Frozen):
    """One way to deploy a network, estimated from measured stage times and from outputs of its exits."""

    name: str
    source: NonNegativeInt = Field(description="index of its checkpoint")
    layout: Literal["single", "cascade", "if"]
    exits: tuple[str, ...] = Field(min_length=1, description="that it keeps, the last of them where it ends")
    precision: str = Field(description="fp32, or another of 'sdcompress list precisions'")
    policy: str | None = Field(None, description="of a cascade")
    ensemble: Ensemble | None = Field(None, description="of the exits of a cascade, as export.ensemble; None: none")
    merged_from: str | None = Field(None, description="of the layout if: the name of the cascade")
    max_drop: Fraction = Field(description="of the metric, that it shall be certified for")
    ms: PositiveFloat = Field(description="estimated mean of one sample")
    drop: float = Field(description="of the metric against the reference, on the samples of the search")


class Finalist(Frozen):
    """A candidate that was built."""

    candidate: Candidate
    state: Literal["certified", "not certified", "failed"]
    reason: str = Field("", description="why it failed")
    folder: str | None = Field(None, description="of the artifact, below that of the search")
    digest: Sha256 | None = None
    drop: float | None = Field(None, description="of the metric against the reference, on the certification samples")
    p_value: Fraction | None = Field(None, description="of a single network's test; of a cascade in its certificate")
    bytes: NonNegativeInt = 0

    @property
    def measured_as(self) -> str:
        """Return its name in the benchmark, which names the one graph of an artifact apart from its segments."""
        return f"{self.candidate.name} (one graph)" if self.candidate.merged_from else self.candidate.name


class SearchedSource(Frozen):
    """A checkpoint that was searched."""

    path: str
    weights: Sha256
    exits: tuple[str, ...]


class Compression(Frozen):
    """All candidates of a search, those that were built, and the best."""

    schema_version: Literal[1] = 1
    created: str
    command: str
    data: str
    metric_name: str
    settings: Compress
    sources: tuple[SearchedSource, ...]
    search_samples: PositiveInt = Field(description="validation samples that the estimates are made on")
    certify_samples: PositiveInt = Field(description="the other validation samples, on which finalists are certified")
    delta: Fraction = Field(description="level of each test: all of them together keep the confidence")
    searches: PositiveInt = Field(
        1, description="of its folder so far, this one included: each tested on the same validation samples"
    )
    reference: str = Field(description="name of the reference in the benchmark: the first source, whole, in float32")
    reference_metric: Fraction = Field(description="on the certification samples")
    candidates: tuple[Candidate, ...] = Field(description="all, the fastest first")
    finalists: tuple[Finalist, ...]
    bench: BenchReport
    best: str | None = Field(
        None, description="name of the best finalist; None: the reference is not beaten, or no target is met"
    )
    machine: Machine

    @property
    def winner(self) -> Finalist | None:
        """Return the best finalist."""
        return next((one for one in self.finalists if one.candidate.name == self.best), None)

    def mean_ms(self, name: str) -> float | None:
        """Return the measured mean of a finalist or of the reference; None: it was not measured."""
        measured = {one.candidate.name: one.measured_as for one in self.finalists}.get(name, name)
        return next((one.latency.mean_ms for one in self.bench.records if one.name == measured), None)
