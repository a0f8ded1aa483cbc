"""The contract of a target of packages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from sdcompress.artifact.execution_target import ExecutionTarget
from sdcompress.artifact.read import Artifact
from sdcompress.schema.base import Frozen

__all__ = ["Target"]


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
