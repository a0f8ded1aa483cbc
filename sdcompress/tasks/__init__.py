"""One task per file: what a network's outputs mean. See docs/adding/task.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sdcompress import registry
from sdcompress.errors import ArtifactError, RecipeError, UsageError, brief
from sdcompress.schema.base import explain
from sdcompress.schema.manifest import Manifest
from sdcompress.tasks._base import Prediction, Task, metric_of, standard_error
from sdcompress.tasks._signals import Array, Float, Signals

__all__ = [
    "ROOM",
    "Array",
    "Float",
    "Prediction",
    "Signals",
    "Task",
    "build",
    "metric_of",
    "restore",
    "standard_error",
    "task_class",
    "task_of",
]

ROOM = "sdcompress.tasks"


def task_class(name: str) -> type[Task]:
    """The task of that name.

    Raises:
        UnknownNameError: if there is none; it names the nearest.
        UsageError: if an entry point has another name than its module.
    """
    kind: type[Task] = registry.load_recorded(ROOM, name)
    return kind


def build(name: str, outputs: Sequence[str], parameters: Mapping[str, Any]) -> Task:
    """The task of that name, with the parameters of a recipe.

    Args:
        name: of 'sdcompress list tasks'.
        outputs: names of what the network's K outputs stand for.
        parameters: of the task.

    Raises:
        UnknownNameError: if there is none; it names the nearest.
        RecipeError: if it has other parameters, or two outputs have one name.
    """
    kind = task_class(name)
    known = sorted(field.name for field in fields(kind) if field.name != "outputs")
    if unknown := sorted(parameters.keys() - set(known)):
        raise RecipeError(
            f"The task '{name}' has no parameter '{brief(unknown[0])}'.",
            allowed=", ".join(known) or "(it has none)",
            next_step="correct the keys below 'task' in the recipe",
        )
    _check_outputs(outputs)
    try:
        return TypeAdapter(kind).validate_python({"outputs": tuple(outputs), **parameters})
    except ValidationError as error:
        raise explain(error, kind, f"the task '{name}'", RecipeError) from error


def _check_outputs(outputs: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(outputs).items() if count > 1]
    if repeated or not all(outputs):
        raise RecipeError(
            f"The data set names two outputs '{brief(repeated[0])}'." if repeated else "An output has an empty name.",
            allowed="names that are all different, and not empty",
            next_step="correct the names of the data set's classes",
        )


def restore(name: str, outputs: Sequence[str], parameters: Mapping[str, Any]) -> Task:
    """A task as a manifest wrote it.

    Raises:
        ArtifactError: if this version has no such task, or it has other parameters.
    """
    try:
        return build(name, outputs, parameters)
    except UsageError as error:
        raise ArtifactError(
            f"The artifact's task '{name}' cannot be used here: {error.problem}",
            allowed=", ".join(registry.names(ROOM)),
            next_step="install the version of sdcompress (or the package) that made it",
        ) from error


def task_of(manifest: Manifest) -> Task:
    """The task of an artifact.

    Raises:
        ArtifactError: if this version has no such task, or it has other parameters.
    """
    return restore(manifest.task.name, manifest.outputs, manifest.task.parameters)
