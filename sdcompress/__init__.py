"""Self-distillation for deployable networks: train once, truncate or exit early, export, calibrate, measure.

Each verb reads one folder and writes one: ``verb(source, out, settings, options)``. A source is a folder, or what was
opened from it. Settings are a section of the recipe: None for that of the recipe that the source was made by, some of
its keys in a mapping, or a whole section. Options say where and how it runs. Nothing here prints; the command line and
``run`` call these functions, too.

The names below are loaded on first use, so that ``import sdcompress`` stays fast and an inference service never imports
torch.
"""

from __future__ import annotations

import importlib

# nothing else is imported here: 'python -m sdcompress' looks in the working directory first until __main__ begins
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sdcompress.artifact.signature import sign
    from sdcompress.compression.compress import compress
    from sdcompress.explaining.explain import explain
    from sdcompress.options import Options
    from sdcompress.pipeline.run import run
    from sdcompress.runtime.open import open_engine as open  # noqa: A004 - the verb that users expect
    from sdcompress.serving.capacity import capacity
    from sdcompress.serving.serve import serve
    from sdcompress.tensorrt.building.build import build_engines
    from sdcompress.tuning.tune import tune
    from sdcompress.verbs.bench import bench
    from sdcompress.verbs.calibrate import calibrate, plan
    from sdcompress.verbs.doctor import doctor
    from sdcompress.verbs.evaluate import evaluate, predict
    from sdcompress.verbs.export import export
    from sdcompress.verbs.inspect import inspect
    from sdcompress.verbs.list_entries import list_entries
    from sdcompress.verbs.package import package
    from sdcompress.verbs.prune import prune
    from sdcompress.verbs.quantize import quantize
    from sdcompress.verbs.report import report
    from sdcompress.verbs.train import train
    from sdcompress.verification.verify import verify

__all__ = [
    "Options",
    "bench",
    "build_engines",
    "calibrate",
    "capacity",
    "compress",
    "doctor",
    "evaluate",
    "explain",
    "export",
    "inspect",
    "list_entries",
    "open",
    "package",
    "plan",
    "predict",
    "prune",
    "quantize",
    "report",
    "run",
    "serve",
    "sign",
    "train",
    "tune",
    "verify",
]

# where each name is defined, below this package; those of 'verbs' have a file each
_MODULES = {
    "Options": "options",
    "build_engines": "tensorrt.building.build",
    "capacity": "serving.capacity",
    "compress": "compression.compress",
    "explain": "explaining.explain",
    "open": "runtime.open",
    "plan": "verbs.calibrate",
    "predict": "verbs.evaluate",
    "run": "pipeline.run",
    "serve": "serving.serve",
    "sign": "artifact.signature",
    "tune": "tuning.tune",
    "verify": "verification.verify",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in __all__:
        module = importlib.import_module(f"sdcompress.{_MODULES.get(name, f'verbs.{name}')}")
        return getattr(module, "open_engine" if name == "open" else name)
    raise AttributeError(f"module 'sdcompress' has no attribute '{name}'")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sdcompress")
    except PackageNotFoundError:  # a working tree on a machine that cannot install it
        return "0+unknown"
