"""Self-distillation for deployable networks: train once, truncate or exit early, export, calibrate, measure.

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
        build_engines,
        calibrate,
        doctor,
        evaluate,
        explain,
        export,
        inspect,
        list_entries,
        plan,
        predict,
        quantize,
        report,
        sign,
        train,
        verify,
    )
    from sdcompress.options import Options
    from sdcompress.pipeline.run import run
    from sdcompress.runtime.open import open_engine as open  # noqa: A004 - the verb that users expect

__all__ = [
    "Options",
    "bench",
    "build_engines",
    "calibrate",
    "doctor",
    "evaluate",
    "explain",
    "export",
    "inspect",
    "list_entries",
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

# those that do not stand in sdcompress.api: module and name
_ELSEWHERE = {
    "Options": ("sdcompress.options", "Options"),
    "list_entries": ("sdcompress.entries", "list_entries"),  # loads nothing heavy
    "open": ("sdcompress.runtime.open", "open_engine"),
    "run": ("sdcompress.pipeline.run", "run"),
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in __all__:
        module, attribute = _ELSEWHERE.get(name, ("sdcompress.api", name))
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'sdcompress' has no attribute '{name}'")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sdcompress")
    except PackageNotFoundError:  # a working tree on a machine that cannot install it
        return "0+unknown"
