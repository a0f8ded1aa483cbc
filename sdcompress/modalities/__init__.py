"""One modality per file: what goes into a network, and how it is prepared. See docs/adding/modality.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from sdcompress import registry
from sdcompress.errors import ArtifactError, UnknownNameError, UsageError
from sdcompress.modalities._base import Array, Augment, Inputs, Modality
from sdcompress.schema.manifest import Manifest

if TYPE_CHECKING:
    from sdcompress.modalities.image import Image

__all__ = ["ROOM", "Array", "Augment", "Inputs", "Modality", "as_image", "modality_of", "restore"]

ROOM = "sdcompress.modalities"


def restore(name: str, parameters: Mapping[str, Any]) -> Modality:
    """A modality as a manifest or a checkpoint wrote it.

    Raises:
        ArtifactError: if this version has no such modality, or it has other parameters.
    """
    try:
        kind: type[Modality] = registry.load(ROOM, name, extra="all")
        return TypeAdapter(kind).validate_python(dict(parameters))
    except (ValidationError, UnknownNameError) as error:
        raise ArtifactError(
            f"The inputs of the kind '{name}' cannot be prepared here: {error}",
            allowed=", ".join(registry.names(ROOM)),
            next_step="install the version of sdcompress (or the package) that made it",
        ) from error


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
        ArtifactError: if this version has no such modality.
    """
    preprocess = manifest.input.preprocess.model_dump(mode="json")
    return restore("image", {"preprocess": preprocess, "shape": manifest.input.shape[1:]})
