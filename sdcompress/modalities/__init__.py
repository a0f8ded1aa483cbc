"""One modality per file: what goes into a network, and how it is prepared. See docs/adding/modality.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from sdcompress import registry
from sdcompress.errors import ArtifactError, RecipeError, UsageError, brief
from sdcompress.modalities._augmentation import Augment, AugmentationSettings
from sdcompress.modalities._base import Modality
from sdcompress.modalities._form import Form, FormField
from sdcompress.modalities._inputs import Array, Inputs
from sdcompress.modalities._settings import check_names
from sdcompress.schema import recipe
from sdcompress.schema.base import explain
from sdcompress.schema.manifest import Manifest

if TYPE_CHECKING:
    from sdcompress.modalities.image import Image

__all__ = [
    "ROOM",
    "Array",
    "Augment",
    "AugmentationSettings",
    "Form",
    "FormField",
    "Inputs",
    "Modality",
    "as_image",
    "build",
    "modality_of",
    "restore",
]

ROOM = "sdcompress.modalities"

_NEXT_STEP = "install the version of sdcompress (or the package) that made it"


def build(section: recipe.ModalitySection, own: Modality | recipe.ModalitySection) -> Modality:
    """Return the modality of a recipe: that of the data set, with what the recipe sets in the place of its own.

    Args:
        section: the recipe's ``modality``.
        own: that of the data set: as it is, or by name and parameters, of which the recipe may have to set others.

    Raises:
        RecipeError: if the data set's is another, it has no such parameter, or a value cannot be used.
        UsageError: if artifacts could not name it.
    """
    name = own.record.name if isinstance(own, Modality) else str(own.name)
    if section.name not in {None, name}:
        raise RecipeError(
            f"The recipe's modality is '{section.name}', and the examples of the data set are those of '{name}'.",
            allowed=name,
            next_step=f"--set modality.name={name}, or choose another data set: sdcompress list data",
        )
    kind: type[Modality] = registry.load_recorded(ROOM, name)
    check_names(section.parameters, kind.setting_names(), "modality", name)
    return (
        own.with_settings(section.parameters)
        if isinstance(own, Modality)
        else kind.build({**own.parameters, **section.parameters})
    )


def restore(name: str, parameters: Mapping[str, Any]) -> Modality:
    """A modality as a manifest or a checkpoint wrote it; nothing about the parameters is trusted.

    Raises:
        ArtifactError: if this version has no such modality, or it has other parameters.
    """
    try:
        kind: type[Modality] = registry.load_recorded(ROOM, name)
    except UsageError as error:
        raise ArtifactError(error.problem, allowed=error.allowed, next_step=_NEXT_STEP) from error
    known = sorted(field.name for field in fields(kind))
    if unknown := sorted(parameters.keys() - set(known)):
        raise ArtifactError(
            f"The modality '{name}' has no parameter '{brief(unknown[0])}'.",
            allowed=", ".join(known),
            next_step=_NEXT_STEP,
        )
    try:
        return TypeAdapter(kind).validate_python(dict(parameters))
    except ValidationError as error:
        raise explain(error, kind, f"the parameters of the modality '{name}'", _refused) from error


def as_image(modality: Modality) -> Image:
    """The modality as one of images, for what works on nothing else.

    Raises:
        UsageError: if it is another.
    """
    from sdcompress.modalities.image import Image

    if not isinstance(modality, Image):
        raise UsageError(
            f"This works on images alone, and the modality is '{modality.record.name}'.",
            allowed="image",
            next_step="use a network that takes images",
        )
    return modality


def modality_of(manifest: Manifest) -> Modality:
    """The modality of an artifact.

    Raises:
        ArtifactError: if this version has no such modality, or it has other parameters.
    """
    return restore(manifest.modality.name, manifest.modality.parameters)


def _refused(problem: str, *, allowed: str, next_step: str) -> ArtifactError:  # noqa: ARG001 - explain's is for recipes
    return ArtifactError(problem, allowed=allowed, next_step=_NEXT_STEP)
