"""The record of a training step on disk: what a checkpoint holds and what it was made from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from sdcompress.schema.base import Frozen, Sha256
from sdcompress.schema.manifest import FileEntry, RegistryEntry
from sdcompress.schema.pruning import Pruned
from sdcompress.schema.recipe import Recipe

__all__ = ["Extension", "LoadedWeights", "Teacher", "TrainingState"]


class Extension(Frozen):
    """A training that was made longer: up to ``step`` its rates followed the schedule of ``epochs`` epochs."""

    epochs: PositiveInt = Field(description="of the training that was made longer")
    step: Annotated[int, Field(ge=0)] = Field(description="at which it was")
    weights_sha256: Sha256 = Field(description="of its checkpoint")


class LoadedWeights(Frozen):
    """The weights that a training began with, and what became of each tensor."""

    source: str = Field(description="as the recipe names it")
    file: str = Field(description="in which they lie")
    sha256: Sha256 = Field(description="of the file; of several, of their digests in order")
    dictionary: str = Field("", description="keys of the dictionary in the file that was taken, e.g. state_dict")
    match: Literal["checkpoint", "name", "partial", "order"] = Field(description="how tensors were matched")
    stripped: tuple[str, str] = Field(("", ""), description="prefix of the names in the file, and of those here")
    taken: Annotated[int, Field(ge=0)] = Field(description="tensors of the network that come from the file")
    anew: tuple[str, ...] = Field(description="tensors of the network that start from random values")
    left: tuple[str, ...] = Field(description="tensors of the file that were not taken")


class Teacher(Frozen):
    """The trained network that taught another."""

    source: str = Field(description="its checkpoint, as the recipe names it")
    weights_sha256: Sha256


class TrainingState(Frozen):
    """``state.json`` of a checkpoint. ``digest`` is the SHA-256 of all other fields."""

    schema_version: Literal[2] = 2
    recipe: Recipe
    epoch: Annotated[int, Field(ge=0)] = Field(description="whole epochs done")
    step: Annotated[int, Field(ge=0)] = Field(description="optimiser steps done")
    finished: bool
    epoch_losses: dict[str, float] = Field(
        {}, description="sums of the loss terms over the steps of an epoch that is not over, mean over the processes"
    )
    epoch_seconds: Annotated[float, Field(ge=0)] = Field(0.0, description="that an epoch that is not over has taken")
    samples: PositiveInt = Field(description="training samples")
    task: RegistryEntry = Field(description="what the outputs mean")
    outputs: tuple[str, ...] = Field(description="names of what they stand for, such as those of classes")
    modality: RegistryEntry = Field(description="what the network is given")
    backbone_options: dict[str, Any] = Field(
        {}, description="model.options with which the backbone is built again where the files that it was of are not"
    )
    data_fingerprint: Sha256
    data_layout: Sha256 | None = Field(None, description="of names and split: with it a run may lose a file and go on")
    method_sha256: Sha256 | None = Field(None, description="of the user's own method file")
    extensions: tuple[Extension, ...] = Field((), description="each time that the training was made longer")
    pruned: Pruned | None = Field(None, description="how its network differs from that of the recipe")
    loaded: LoadedWeights | None = Field(None, description="what it began with, where model.weights says so")
    teacher: Teacher | None = Field(None, description="the trained network that taught, where method.teacher says so")
    weights: FileEntry = Field(description="what is evaluated and exported: the average where EMA is on")
    training: FileEntry | None = Field(
        description="optimiser, method state and raw weights: what exact resume needs; none of what 'prune' wrote"
    )
    optimizer: dict[str, Any] = Field(description="the optimiser's numbers that are not tensors")
    scaler: dict[str, int | float] = Field({}, description="loss scale of fp16 and its counters")
    versions: dict[str, str] = Field({})
    threads: PositiveInt | None = Field(None, description="of torch, on which the bits depend; None: not recorded")
    digest: Sha256
