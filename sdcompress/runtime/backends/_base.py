"""The two contracts of a backend: a callable on numpy arrays for each segment, or a whole chain that keeps tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from sdcompress.schema.manifest import Segment

if TYPE_CHECKING:
    from sdcompress.artifact.read import Artifact
    from sdcompress.runtime.segments import Chain

__all__ = ["Array", "Backend", "ChainBackend", "Graph"]

Array = npt.NDArray[Any]

# from the segment's inputs by name to its outputs in the manifest's order; the first axis of all of them is the batch
Graph = Callable[[dict[str, Array]], Sequence[Array]]


class Backend(Protocol):
    """What most entries of this room are: a function (or a class) that makes a graph ready to run."""

    def __call__(self, file: Path, segment: Segment, *, threads: int | None, device: str) -> Graph:
        """Load one graph.

        The callable it returns takes any batch of at least 1, may be called from several threads at once, never
        writes to its inputs and returns writable arrays, none a view of another, that it does not use again.

        Args:
            file: the ONNX file, its digest checked.
            segment: its entry in the manifest.
            threads: for one call; None leaves the choice to the backend.
            device: "cpu" or "cuda".

        Raises:
            SetupError: if this machine has no such device.
            ArtifactError: if the file cannot be loaded, or is not what the manifest says.
        """


class OpensChain(Protocol):
    """Makes all stages of an artifact ready to run."""

    def __call__(self, artifact: Artifact, *, threads: int | None, device: str) -> Chain:
        """Open the stages.

        Args:
            artifact: opened, so checked.
            threads: for one call; None leaves the choice to the backend.
            device: "cpu" or "cuda".

        Raises:
            SetupError: if this machine has no such device.
            ArtifactError: if a file cannot be loaded, or is not what the manifest says.
        """


@dataclass(frozen=True)
class ChainBackend:
    """What an entry is that keeps tensors between segments where they were computed, such as on a GPU.

    Attributes:
        open: makes the stages of an artifact ready to run.
    """

    open: OpensChain
