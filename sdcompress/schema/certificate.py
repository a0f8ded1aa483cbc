"""What is certified of an exit policy, as the manifest lists it. Specified in docs/artifact.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from sdcompress.schema.base import Fraction, Frozen, Sha256
from sdcompress.schema.graphs import FileEntry

__all__ = ["Certificate", "CertifiedDrop"]


class CertifiedDrop(Frozen):
    """The tests of one target drop: how many steps of the path keep it, and their p-values."""

    max_drop: Annotated[float, Field(gt=0, lt=1)] = Field(description="the bound on the mean loss, alpha")
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(description="probability of an error that this drop may use up")
    certified: Annotated[int, Field(ge=0)] = Field(description="the last step of the path that is certified; 0: none")
    p_values: tuple[Fraction, ...] = Field(
        description="of path[1], path[2], ...: the rejected, then the one that is not"
    )
    shares: tuple[Fraction, ...] = Field(
        (), description="share of the tested samples that exit at each exit at the last certified step; empty: unknown"
    )
    disagreement: Fraction | None = Field(
        None, description="mean loss of their decisions there against those of the last exit; null: unknown"
    )

    @model_validator(mode="after")
    def _every_certified_step_was_tested(self) -> CertifiedDrop:
        if len(self.p_values) < self.certified:
            raise ValueError("a certified step needs its p-value")
        return self


class Certificate(Frozen):
    """Which thresholds keep the loss within a bound on new samples, with what confidence, and the evidence.

    A drop is the loss of the task's metric against the reference: the mean loss of the decisions less the reference's.
    A disagreement is the mean loss of the decisions against the reference's decisions, which the drop cannot exceed.

    Made by fixed-sequence testing on samples that had no part in making the path. See docs/certificates.md.
    """

    confidence: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        description="that all of the certified bounds hold, also those of other artifacts that it was chosen from"
    )
    loss: Literal["drop", "disagreement"]
    test: Literal["betting", "binomial"]
    group_by: Literal["exit", "stratum"] | None = Field(
        None,
        description="the bounds hold in every stratum, or, for each exit k, among the samples that exit at k "
        "or before; null: over all",
    )
    reference: Sha256 | None = Field(
        None,
        description="digest of the artifact whose last exit is the reference: path[1] tests what is lost without early "
        "exit; null: its own last exit, to which nothing is lost then",
    )
    levels: Annotated[tuple[CertifiedDrop, ...], Field(min_length=1)]
    path: Annotated[tuple[tuple[float, ...], ...], Field(min_length=1)] = Field(
        description="thresholds of every step, safest first; path[0] has no early exit"
    )
    temperatures: tuple[PositiveFloat, ...] = Field(description="of every exit, when it was certified")
    policy: str = Field("max_prob", description="the kind of policy")
    parameters: dict[str, Any] = Field({}, description="its parameters, fitted on the tuning samples")
    graphs: Sha256 = Field(description="digest of the list of the segments' SHA-256")
    interface: Sha256 = Field(description="digest of the inputs, the segments' tensors and which of them an exit reads")
    backend: str
    device: str
    plans: Sha256 | None = Field(
        None, description="of engines: the digest of the list of their plans' SHA-256; null: the segments were run"
    )
    precision: tuple[str, ...] = Field(description="of every segment")
    data_fingerprint: Sha256 = Field(description="of the data set and its split, or of the user's own samples")
    external: Literal["disjoint", "not compared"] | None = Field(
        None,
        description="made on unlabelled samples of the user: disjoint from the training samples, or not compared with "
        "them; null: on the data set's validation split",
    )
    seed: Sha256 = Field(description="drew the parts and the order; a hash of the fingerprint and the graphs")
    tuning_samples: PositiveInt = Field(description="samples that made temperatures and path")
    certify_samples: PositiveInt = Field(description="samples that were only tested")
    evidence: FileEntry = Field(description="what each exit did on each of those samples, in the order of the tests")
