"""The contract of a backend: from a segment's file to a callable on numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from sdcompress.schema.manifest import Segment

__all__ = ["Array", "Backend", "Graph"]

Array = npt.NDArray[Any]

# from the segment's inputs by name to its outputs in the manifest's order; the first axis of all of them is the batch
Graph = Callable[[dict[str, Array]], Sequence[Array]]


class Backend(Protocol):
    """What an entry of this room is: a function (or a class) that makes a graph ready to run."""

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
