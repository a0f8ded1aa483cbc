"""One modality per file: what goes into a network, and how it is prepared. See docs/adding/modality.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sdcompress import registry
from sdcompress.errors import ArtifactError, UnknownNameError
from sdcompress.modalities._base import Array, Inputs, Modality
from sdcompress.schema.manifest import Manifest

__all__ = ["ROOM", "Array", "Inputs", "Modality", "modality_of", "restore"]

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


def modality_of(manifest: Manifest) -> Modality:
    """The modality of an artifact.

    Raises:
        ArtifactError: if this version has no such modality.
    """
    preprocess = manifest.input.preprocess.model_dump(mode="json")
    return restore("image", {"preprocess": preprocess, "shape": manifest.input.shape[1:]})
