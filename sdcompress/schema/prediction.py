"""What 'sdcompress predict' says of one raw example in a file."""

from __future__ import annotations

from pydantic import Field

from sdcompress.schema.base import Frozen

__all__ = ["FilePrediction", "OutputValue"]


class OutputValue(Frozen):
    """A number that the network gives, such as the probability of a class."""

    name: str
    value: float


class FilePrediction(Frozen):
    """The prediction for one raw example, or why there is none."""

    file: str = Field(description="its path; of a file with many examples also the line, as in reviews.csv:3")
    stated: tuple[OutputValue, ...] = Field(
        (), description="as the task states it: the most probable classes, or the labels that it has"
    )
    kind: str = Field("output", description="what the names are, e.g. class")
    unit: str = Field("value", description="what the values are, e.g. probability")
    exit: str | None = Field(None, description="name of the exit at which it left")
    prepare_ms: float | None = Field(None, description="to read the file and make inputs of it")
    run_ms: float | None = Field(None, description="of the network, in a batch of one")
    error: str | None = Field(None, description="why there is no prediction")
