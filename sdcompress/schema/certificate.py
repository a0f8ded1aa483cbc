"""What is certified of an exit policy, as the manifest lists it. Specified in docs/artifact.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from sdcompress.schema.base import Fraction, Frozen, Sha256
from sdcompress.schema.graphs import FileEntry

__all__ = ["Certificate", "CertifiedDrop"]


class CertifiedDrop(Frozen):
    """What the tests say of one wish: the steps of the path that keep it, and the p-values that say so."""

    max_drop: Annotated[float, Field(gt=0, lt=1)] = Field(description="the mean loss that is tested against, alpha")
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(description="probability of an error that this wish may use up")
    certified: Annotated[int, Field(ge=0)] = Field(description="the last step of the path that is certified; 0: none")
    p_values: tuple[Fraction, ...] = Field(
        description="of path[1], path[2], ...: the rejected, then the one that is not"
    )

    @model_validator(mode="after")
    def _every_certified_step_was_tested(self) -> CertifiedDrop:
        if len(self.p_values) < self.certified:
            raise ValueError("a certified step needs its p-value")
        return self


class Certificate(Frozen):
    """Which thresholds keep the loss within a bound on new samples, with what confidence, and the evidence for it.

    Made by fixed-sequence testing on samples that had no part in making the path. See docs/certificates.md.
    """

    confidence: Annotated[float, Field(ge=0.5, lt=1)] = Field(description="that all of the certified bounds hold")
    loss: Literal["accuracy drop", "disagreement"]
    test: Literal["betting", "binomial"]
    per: Literal["exit", "class"] | None = Field(
        None, description="the bounds hold in every group: of a class, or of what has left by an exit; null: over all"
    )
    against: Sha256 | None = Field(
        None,
        description="digest of the artifact whose last exit it is measured against: path[1] tests what is lost if "
        "nobody leaves; null: its own last exit, to which nothing is lost then",
    )
    levels: Annotated[tuple[CertifiedDrop, ...], Field(min_length=1)]
    path: Annotated[tuple[tuple[float, ...], ...], Field(min_length=1)] = Field(
        description="thresholds of every step, safest first; at path[0] nobody leaves"
    )
    temperatures: tuple[PositiveFloat, ...] = Field(description="of every exit, when it was certified")
    policy: str = Field("max_prob", description="the kind of policy")
    parameters: dict[str, Any] = Field({}, description="its parameters, fitted on the shape samples")
    graphs: Sha256 = Field(description="digest of the list of the segments' SHA-256")
    wiring: Sha256 = Field(description="digest of the input, the segments' tensors and which of them an exit reads")
    backend: str
    device: str
    plans: Sha256 | None = Field(
        None, description="of engines: the digest of the list of their plans' SHA-256; null: the segments were run"
    )
    precision: tuple[str, ...] = Field(description="of every segment")
    data_fingerprint: Sha256 = Field(description="of the data set and its split, or of the images of one's own")
    own_images: Literal["apart", "not compared"] | None = Field(
        None,
        description="made on images of the user's own: apart from the training images, or not compared with them; "
        "null: on the data set's validation split",
    )
    seed: Sha256 = Field(description="drew the parts and the order; a hash of the fingerprint and the graphs")
    shape_samples: PositiveInt = Field(description="samples that made temperatures and path")
    certify_samples: PositiveInt = Field(description="samples that were only tested")
    evidence: FileEntry = Field(description="what each exit did on each of those samples, in the order of the tests")

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        return {name: value for name, value in fields.items() if value is not None or name not in {"plans", "against"}}
