"""Open an artifact again from the folder that was named at the start."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.errors import SetupError
from sdcompress.machine import available_memory
from sdcompress.options import EngineOptions
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.open import open_cascade

__all__ = ["Source"]

_MEMORY_OF_A_BYTE = 4  # of a graph in its file; two images and texts networks took 2 to 3.1 once they were warm


@dataclass(frozen=True)
class Source:
    """The folder of an artifact, and how it is opened.

    Attributes:
        folder: of the artifact; it may be a link, and is followed each time.
        options: of the engine.
        require_signature: see ``open``.
    """

    folder: Path
    options: EngineOptions
    require_signature: Path | str | None = None

    def artifact(self) -> Artifact:
        """Return what the folder holds now, its files checked; see ``open_artifact``.

        A link is resolved first: switching it later changes nothing for what is open, or being opened.
        """
        return open_artifact(self.folder.resolve())

    def open(self, artifact: Artifact | None = None) -> CascadeEngine:
        """Return the engine of an artifact of this folder, None: of what it holds now; see ``open_cascade``."""
        artifact = artifact or self.artifact()
        return open_cascade(artifact, self.options, require_signature=self.require_signature, by_stages=True)

    def check_memory(self) -> None:
        """Refuse to open what would not fit beside the versions that are in memory.

        Raises:
            SetupError: if it would not.
        """
        size = sum(file.stat().st_size for file in self.folder.glob("*.onnx*"))
        needed, available = _MEMORY_OF_A_BYTE * size, available_memory()
        if available is not None and needed > available:
            gc.collect()  # an engine that was dropped may wait for this
            available = available_memory()
        if available is not None and needed > available:
            raise SetupError(
                f"The new version needs about {needed / 2**20:,.0f} MiB, and {available / 2**20:,.0f} MiB are free.",
                allowed="a version that fits in memory beside the one that serves",
                next_step="free memory, keep fewer versions (--versions), or start a new process for it",
            )
