"""Say where and how a verb runs. Options do not change its result; settings do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sdcompress.data import DatasetCache
from sdcompress.progress import Progress

__all__ = ["DEFAULT_OPTIONS", "EngineOptions", "Options"]


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs.

    Attributes:
        backend: one of 'sdcompress list backends', or "auto", the fastest by the times that the artifact holds; None:
            onnxruntime for an artifact, torch for a checkpoint.
        threads: of one call; None: the default of the verb, or else of the backend.
        device: "cpu" or "cuda"; None: the CPU.
        allow_uncertified: also run an execution target that the artifact's certificate does not cover.
        trust_modules: import the module that a checkpoint names, which runs its code, even if you have not trained it
            on this machine.
    """

    backend: str | None = None
    threads: int | None = None
    device: str | None = None
    allow_uncertified: bool = False
    trust_modules: bool = False


DEFAULT_OPTIONS = EngineOptions()


@dataclass(frozen=True)
class Options(EngineOptions):
    """How a verb runs.

    Attributes:
        data_dir: folder of the data; None: that of the recipe.
        download: download a missing data set, to ``data_dir`` or to the folder of the stored recipe.
        progress: called with (done, total).
        command: the command that the user typed, for the record.
        datasets: loads the data; verbs that share it load each data set once, and keep it in memory.
    """

    data_dir: Path | str | None = None
    download: bool = False
    progress: Progress | None = None
    command: str = ""
    datasets: DatasetCache = field(default_factory=DatasetCache, repr=False, compare=False)
