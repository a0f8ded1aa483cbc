"""Define the two kinds of backends: a callable on numpy arrays for each segment, or an executor of all segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from sdcompress.schema.manifest import Segment

if TYPE_CHECKING:
    from sdcompress.runtime.segments import Executor

__all__ = ["Array", "Backend", "ExecutorBackend", "Graph"]

Array = npt.NDArray[Any]

# the segment's inputs by name -> its outputs in the order of the manifest; the first axis of all is the batch
Graph = Callable[[dict[str, Array]], Sequence[Array]]


class Backend(Protocol):
    """The usual entry of this room: a function (or a class) that loads a graph."""

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
            ArtifactError: if the file cannot be loaded, or is not what the manifest says; when it is called: if it
                cannot compute these inputs.
            DeviceError: when it is called: if the device fails, or has too little memory.
        """


@dataclass(frozen=True)
class ExecutorBackend:
    """An entry of this room that keeps tensors between segments where they were computed, such as on a GPU.

    Attributes:
        open: ``open(artifact, threads=..., device=...)`` returns the executor of an artifact; the arguments and the
            errors are those of ``Backend``.
    """

    open: Callable[..., Executor]
