"""What a verb is told beside its settings: nothing here changes what a verb decides, but where and how it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sdcompress.data import Loader
from sdcompress.progress import Progress

__all__ = ["DEFAULT_OPTIONS", "EngineOptions", "Options"]


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs.

    Attributes:
        backend: of 'sdcompress list backends'; None: onnxruntime for an artifact, torch for a checkpoint.
        threads: for one call; None: what the verb says, or else what the backend takes.
        device: "cpu" or "cuda"; None: the CPU.
        allow_uncertified: also run what an artifact's certificate does not cover, such as another device.
        trust_modules: of a checkpoint: import the module that it names, which runs its code, also where you have not
            trained it here yourself.
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
        data_dir: where the data lies, if elsewhere than in the recipe.
        download: let a data set that is not there be downloaded, to ``data_dir`` or to where the stored recipe says.
        progress: called with (done, total).
        command: what the user typed, for the record.
        loader: loads the data; handed from verb to verb it loads each data set once, and keeps it in memory.
    """

    data_dir: Path | str | None = None
    download: bool = False
    progress: Progress | None = None
    command: str = ""
    loader: Loader = field(default_factory=Loader, repr=False, compare=False)
