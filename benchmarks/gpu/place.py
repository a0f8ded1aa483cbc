"""Where a run reads and writes, what it needs, and the outcome that something is missing."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdcompress.artifact.read import Artifact
from sdcompress.errors import SdcompressError
from sdcompress.options import EngineOptions
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.engine import Float
from sdcompress.runtime.open import open_cascade

BATCHES = (1, 8, 32, 64)


class NotMeasured(Exception):
    """Why a piece cannot run here."""


@dataclass(frozen=True)
class Place:
    """Where a run reads and writes.

    Attributes:
        artifacts: made beforehand by make_artifacts.py.
        out: of the results; engines are built into it.
    """

    artifacts: Path
    out: Path

    def source(self, layout: str, precision: str) -> Path:
        """An artifact that was made beforehand."""
        path = self.artifacts / f"{layout}-{precision}"
        if not path.exists():
            raise NotMeasured(f"there is no artifact '{path.name}' in the folder of --artifacts")
        return path

    def built(self, layout: str, precision: str) -> Path:
        """The same with engines for this GPU, built by the piece ``build-LAYOUT-PRECISION``."""
        path = self.out / "engines" / f"{layout}-{precision}"
        self.source(layout, precision)
        if not path.exists():
            raise NotMeasured(f"its engines were not built: see the piece build-{layout}-{precision}")
        return path


def needs(*modules: str) -> None:
    """Say which package is missing, before anything slow."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise NotMeasured(f"this Python has no {module}")


def needs_gpu() -> None:
    """Say what is missing of driver and GPU."""
    from sdcompress.tensorrt.nvidia.gpu_query import probe_cuda

    try:
        probe_cuda()
    except SdcompressError as error:
        raise NotMeasured(error.problem) from error


def needs_tensorrt() -> None:
    """A GPU, TensorRT and cuda-bindings."""
    needs_gpu()
    needs("tensorrt", "cuda")


def engine(path: Path) -> CascadeEngine:
    """Our engine of an artifact."""
    return open_cascade(path, EngineOptions("tensorrt", device="cuda", allow_uncertified=True))


def inputs_of(artifact: Artifact) -> Float:
    """The golden samples as inputs; what they show decides nothing about the time of a forced exit."""
    return np.asarray(artifact.modality.collate(artifact.golden().examples))
