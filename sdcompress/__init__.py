"""Self-distillation for deployable networks: train once, prune or keep the exits, export, calibrate, measure.

The names below are loaded on first use, so that ``import sdcompress`` stays fast and an inference service never imports
torch.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdcompress.api import bench, calibrate, evaluate, explain, export, plan, quantize, report, run, train, verify
    from sdcompress.runtime.open import open_engine as open  # noqa: A004 - the verb that users expect

__all__ = [
    "bench",
    "calibrate",
    "evaluate",
    "explain",
    "export",
    "open",
    "plan",
    "quantize",
    "report",
    "run",
    "train",
    "verify",
]

try:
    __version__ = version("sdcompress")
except PackageNotFoundError:  # a working tree on a machine that cannot install it
    __version__ = "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name == "open":
        return importlib.import_module("sdcompress.runtime.open").open_engine
    if name in __all__:
        return getattr(importlib.import_module("sdcompress.api"), name)
    raise AttributeError(f"module 'sdcompress' has no attribute '{name}'")
