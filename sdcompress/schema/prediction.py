"""What 'sdcompress predict' says of one image file."""

from __future__ import annotations

from pydantic import Field

from sdcompress.schema.base import Frozen

__all__ = ["ClassProbability", "FilePrediction"]


class ClassProbability(Frozen):
    """A class and how probable the network holds it to be."""

    label: str
    probability: float


class FilePrediction(Frozen):
    """The prediction for one file, or why there is none."""

    file: str
    top: tuple[ClassProbability, ...] = Field((), description="the most probable classes, the most probable first")
    exit: str | None = Field(None, description="name of the exit at which it left")
    prepare_ms: float | None = Field(None, description="to read, decode, resize and normalise the file")
    run_ms: float | None = Field(None, description="of the network, in a batch of one")
    error: str | None = Field(None, description="why there is no prediction")
