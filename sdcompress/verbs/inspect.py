"""inspect: what an artifact is."""

from __future__ import annotations

from sdcompress.artifact.read import open_artifact
from sdcompress.evaluation.trained_model import TrainedModel
from sdcompress.schema.manifest import Manifest
from sdcompress.verbs._types import Source

__all__ = ["inspect"]


def inspect(source: Source) -> Manifest:
    """Return the manifest of an artifact: exits, costs, policy, where it comes from.

    Raises:
        ArtifactError: if it is not intact.
    """
    return open_artifact(source.path if isinstance(source, TrainedModel) else source).manifest
