"""What runs the segments: one file per backend. An entry takes (threads, device) and loads segments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["ROOM", "Array", "Backend", "Segment"]

ROOM = "sdcompress.runtime.backends"

Array = npt.NDArray[np.float32]
Segment = Callable[[Mapping[str, Array]], Sequence[Array]]
"""Runs one segment: from named input tensors to its outputs, in the order of the manifest. Called from many threads."""


class Backend(Protocol):
    """What an entry of this room must be: a class with these two."""

    def __init__(self, *, threads: int | None, device: str) -> None:
        """Take the settings; raise SetupError where this machine does not have what they name."""

    def load(self, file: Path, outputs: Sequence[str]) -> Segment:
        """Load a segment's ONNX file, already checked against its hash; ``outputs`` in the order to return them."""
