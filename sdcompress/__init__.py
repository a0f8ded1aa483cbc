"""Self-distillation for deployable networks: train once, prune or keep the exits, export, calibrate, measure.

The names below are loaded on first use, so that ``import sdcompress`` stays fast and an inference service never imports
torch.
"""

from __future__ import annotations

import importlib

# nothing else is imported here: 'python -m sdcompress' looks in the working directory first until __main__ begins
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sdcompress.api import (
        bench,
        calibrate,
        evaluate,
        explain,
        export,
        plan,
        predict,
        quantize,
        report,
        run,
        sign,
        train,
        verify,
    )
    from sdcompress.runtime.open import open_engine as open  # noqa: A004 - the verb that users expect

__all__ = [
    "bench",
    "calibrate",
    "evaluate",
    "explain",
    "export",
    "open",
    "plan",
    "predict",
    "quantize",
    "report",
    "run",
    "sign",
    "train",
    "verify",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name == "open":
        return importlib.import_module("sdcompress.runtime.open").open_engine
    if name in __all__:
        return getattr(importlib.import_module("sdcompress.api"), name)
    raise AttributeError(f"module 'sdcompress' has no attribute '{name}'")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sdcompress")
    except PackageNotFoundError:  # a working tree on a machine that cannot install it
        return "0+unknown"
