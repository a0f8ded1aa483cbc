"""The record of a training step on disk: what a checkpoint holds and what it was made from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from sdcompress.schema.base import Frozen, Sha256
from sdcompress.schema.manifest import FileEntry, Preprocess
from sdcompress.schema.recipe import Recipe

__all__ = ["TrainingState"]


class TrainingState(Frozen):
    """``state.json`` of a checkpoint. ``digest`` is the SHA-256 of all other fields."""

    schema_version: Literal[1] = 1
    recipe: Recipe
    epoch: Annotated[int, Field(ge=0)] = Field(description="whole epochs done")
    step: Annotated[int, Field(ge=0)] = Field(description="optimiser steps done")
    finished: bool
    samples: PositiveInt = Field(description="training images")
    classes: tuple[str, ...]
    image: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(description="C, H, W of the network's input")
    preprocess: Preprocess
    data_fingerprint: Sha256
    data_layout: Sha256 | None = Field(None, description="of names and split: with it a run may lose a file and go on")
    method_sha256: Sha256 | None = Field(None, description="of the user's own method file")
    weights: FileEntry = Field(description="what is evaluated and exported: the average where EMA is on")
    training: FileEntry = Field(description="optimiser, method state and raw weights: what exact resume needs")
    optimizer: dict[str, Any] = Field(description="the optimiser's numbers that are not tensors")
    scaler: dict[str, int | float] = Field({}, description="loss scale of fp16 and its counters")
    versions: dict[str, str] = Field({})
    digest: Sha256
