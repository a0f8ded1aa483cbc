"""The contract of a target of packages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated

from pydantic import Field

from sdcompress.artifact.execution_target import ExecutionTarget
from sdcompress.artifact.read import Artifact
from sdcompress.schema.base import Frozen

__all__ = ["ModelName", "Target", "model_name"]

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]


class Target(Frozen, ABC):
    """Write the files by which another inference service runs an artifact. Fields of a subclass are its settings."""

    @abstractmethod
    def execution_target(self, artifact: Artifact) -> ExecutionTarget:
        """Return what will run the artifact, for its certificate and its thresholds.

        Raises:
            UsageError: if the artifact holds nothing that can run there.
        """

    @abstractmethod
    def applies_policy(self, artifact: Artifact) -> bool:
        """Return whether the packaged models let samples exit by the artifact's policy."""

    @abstractmethod
    def write(self, artifact: Artifact, folder: Path) -> tuple[str, ...]:
        """Write the files and return the names of the models, that which clients call first.

        Args:
            artifact: opened, so checked.
            folder: an empty folder.

        Raises:
            UsageError: if this artifact cannot be packaged with these settings.
        """

    def next_steps(self, out: Path) -> tuple[str, ...]:
        """Return lines that say how to use what was written.

        Args:
            out: the folder of the package.
        """
        del out
        return ()


def model_name(artifact: Artifact) -> str:
    """Return the name of an artifact's recipe as that of a model; "model" where services could not take it."""
    recipe_name = artifact.manifest.provenance.recipe.get("name")
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in str(recipe_name or ""))
    return kept.strip("-_")[:100] or "model"
