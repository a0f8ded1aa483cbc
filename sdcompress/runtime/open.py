"""Open an artifact, or a checkpoint as a yardstick, as an engine."""

from __future__ import annotations

from pathlib import Path

from sdcompress import registry
from sdcompress.artifact.read import open_artifact
from sdcompress.errors import UsageError
from sdcompress.runtime.backends import ROOM
from sdcompress.runtime.chain import ChainEngine
from sdcompress.runtime.engine import Engine

__all__ = ["open_engine"]


def open_engine(
    path: Path | str, *, backend: str = "onnxruntime", threads: int | None = None, device: str = "cpu"
) -> Engine:
    """Open a folder and make it ready to run.

    Args:
        path: an artifact; with ``backend="eager"`` a checkpoint or the folder of a training run.
        backend: an entry of ``sdcompress.runtime.backends``, or "eager" for torch.
        threads: intra-op threads; None leaves the choice to the backend.
        device: "cpu" or "cuda".

    Raises:
        ArtifactError: if the artifact is not intact.
        CheckpointError: if the checkpoint is not intact.
        UnknownNameError: if there is no such backend.
        SetupError: if the backend does not have that device here.
    """
    if backend == "eager":
        from sdcompress.runtime.eager import EagerEngine  # torch, only when it is asked for

        return EagerEngine(path, threads=threads, device=device)
    if device not in ("cpu", "cuda"):
        raise UsageError(f"There is no device '{device}'.", allowed="cpu, cuda", next_step="choose one of them")
    make = registry.load(ROOM, backend, extra="all")
    return ChainEngine(open_artifact(path), make(threads=threads, device=device))
