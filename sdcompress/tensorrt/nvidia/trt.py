"""One interface to TensorRT 8.5, 8.6, 10 and 11; all differences between the versions are in this file.

Source of every difference: the members of the Python bindings 8.5.3, 10.9, 10.16.1 and 11.4 and the release notes;
docs/tensorrt.md has the table. Members that only some versions have are read by ``getattr``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from sdcompress.errors import SetupError, UsageError
from sdcompress.schema.engines import HardwareCompatibility
from sdcompress.schema.graphs import Precision
from sdcompress.tensorrt.nvidia._api import TensorRT
from sdcompress.tensorrt.nvidia.gpu_query import probe_cuda
from sdcompress.tensorrt.nvidia.install import SUPPORTED, install_line, major_minor, not_importable, version_problem
from sdcompress.tensorrt.nvidia.log import Log, create, dispatch
from sdcompress.tensorrt.nvidia.progress import BuildProgress

if TYPE_CHECKING:
    import tensorrt

__all__ = [
    "TensorRT",
    "allow_precision",
    "disable_external_tactics",
    "dtype_name",
    "import_tensorrt",
    "is_lean",
    "is_strongly_typed",
    "load",
    "logger",
    "make_monitor",
    "make_runtime",
    "network_flags",
    "set_hardware_compatibility",
    "set_level",
    "set_monitor",
    "set_native_instance_norm",
    "set_version_compatible",
    "version_of",
]

# DataType member -> numpy's name; not trt.nptype, which fails on 8.5 with numpy 1.24 and later
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}


def load(*, builds: bool = False) -> TensorRT:
    """Import TensorRT, after a check that there is a GPU.

    Args:
        builds: whether engines are to be built. If not, the package tensorrt_lean suffices, which only runs plans that
            were built as version-compatible.

    Raises:
        SetupError: if there is no GPU, or TensorRT is missing, cannot be loaded, or has an unsupported version.
    """
    gpu = probe_cuda()
    trt = import_tensorrt(gpu.cuda, lean=not builds)
    if problem := version_problem(version_of(trt)):
        raise SetupError(problem, allowed=SUPPORTED, next_step=install_line(gpu.cuda))
    return trt


def import_tensorrt(cuda: str, *, lean: bool) -> TensorRT:
    """Import TensorRT without any check; without a GPU only its version may be read.

    Args:
        cuda: the newest CUDA version that the driver supports, for the message; empty: unknown.
        lean: whether tensorrt_lean suffices.

    Raises:
        SetupError: if it is not installed, or a library is missing.
    """
    module: TensorRT  # here mypy compares the real module with the protocol
    try:
        import tensorrt

        module = tensorrt
    except (ImportError, OSError) as error:
        if not lean:
            raise not_importable(error, cuda) from error
        try:
            import tensorrt_lean
        except (ImportError, OSError):
            raise not_importable(error, cuda) from error
        module = tensorrt_lean
    return module


def is_lean(trt: TensorRT) -> bool:
    """Whether the module is tensorrt_lean, which loads only version-compatible plans."""
    return not hasattr(trt, "Builder")


def version_of(trt: Any) -> str:
    """Return the numbers of the version of a ``TensorRT``; wheels may write more behind them, such as 10.0.0b6.

    A function, because mypy allows no ``__version__`` in a protocol.
    """
    numbers = re.match(r"\d+(?:\.\d+)*", str(trt.__version__))
    return numbers.group() if numbers else ""


def logger(trt: TensorRT) -> tensorrt.ILogger:
    """Return the logger of this process, which passes messages to every ``Log``; never freed.

    TensorRT keeps the first logger and ignores others ("differs from one already registered"). A logger for each engine
    would receive nothing, and the first would be used after it was freed.
    """
    base: Any = trt.ILogger
    shared: tensorrt.ILogger = _logger(base)
    return shared


@cache
def _logger(base: Any) -> Any:
    return type("Logger", (base,), {"log": _dispatch})()


def _dispatch(_logger: object, severity: Any, msg: str, dispatch: Callable[[Any, str], None] = dispatch) -> None:
    dispatch(severity, msg)  # a default outlives this module's names; TensorRT may log while Python ends


def make_monitor(trt: TensorRT, report: Callable[[int], None], stopped: Callable[[], bool]) -> Any:
    """Return a progress monitor for a builder's configuration, see ``BuildProgress``; None before 9.0."""
    base = getattr(trt, "IProgressMonitor", None)
    return None if base is None else type("Monitor", (BuildProgress, base), {})(report, stopped)


def set_monitor(config: tensorrt.IBuilderConfig, monitor: Any) -> None:
    """Set the progress monitor of a build, if there is one."""
    if monitor is not None:
        later: Any = config  # from 9.0, as the monitor is
        later.progress_monitor = monitor


def make_runtime(trt: TensorRT, log: Log, *, version_compatible: bool = False) -> tensorrt.Runtime:
    """Return a runtime that loads plans.

    Args:
        trt: from ``load``.
        log: receives the reason of a failure.
        version_compatible: whether the plans are. They contain a lean runtime, which is host code and must be allowed.
            Only plans with the hash of the manifest are ever loaded.

    Raises:
        SetupError: if TensorRT cannot create one.
    """
    runtime = create(lambda: trt.Runtime(logger(trt)), log, "a runtime")
    if version_compatible:
        later: Any = runtime  # from 8.6, as such plans are
        later.engine_host_code_allowed = True
    return runtime


def dtype_name(trt: TensorRT, dtype: Any) -> str:
    """Return Numpy's name of a tensor's type: "float32", "int64" ...

    Raises:
        SetupError: if numpy has no such type (BF16, FP8), which inputs and outputs of an engine may not have.
    """
    for member, name in _DTYPES.items():
        if dtype == getattr(trt.DataType, member, None):
            return name
    raise SetupError(
        f"An input or output of an engine has the type {dtype}, which numpy does not have.",
        allowed=", ".join(_DTYPES.values()),
        next_step="export the artifact with float32 or float16 tensors between its graphs",
    )


def is_strongly_typed(trt: TensorRT) -> bool:
    """Whether networks are strongly typed: TensorRT computes in the graph's types (from 9.0)."""
    return major_minor(version_of(trt))[0] >= 9  # not by the flag, which 11 accepts and ignores


def network_flags(trt: TensorRT) -> int:
    """Return flags for ``create_network``: strongly typed from 9.0, explicit batch before 10.

    10 ignores the flag for an explicit batch, and 11 does not have it.
    """
    kinds = trt.NetworkDefinitionCreationFlag
    flags = ["STRONGLY_TYPED"] + (["EXPLICIT_BATCH"] if major_minor(version_of(trt))[0] < 10 else [])
    return sum(1 << int(getattr(kinds, name)) for name in flags if hasattr(kinds, name))


def allow_precision(trt: TensorRT, config: tensorrt.IBuilderConfig, precision: Precision, *, tf32: bool) -> None:
    """Set the arithmetic that a builder may use.

    A strongly typed network defines it; only TF32 remains to be set, which is on by default. 8.x needs flags that
    permit a precision, and may ignore the graph's types.

    Raises:
        UsageError: if the version has no such precision.
    """
    if tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if is_strongly_typed(trt) or precision == "fp32":
        return
    flag = getattr(trt.BuilderFlag, precision.upper(), None)
    if flag is None:
        raise UsageError(
            f"The graph is {precision}, which TensorRT {version_of(trt)} does not have.",
            allowed="fp32, fp16 or int8",
            next_step="use TensorRT 10 or 11, or an artifact of another precision",
        )
    config.set_flag(flag)


def disable_external_tactics(trt: TensorRT, config: tensorrt.IBuilderConfig) -> None:
    """Build without cuDNN and cuBLAS, as later versions do by default; 8.x may find them incomplete.

    Not measured yet. By its documentation 8.5 needs both settings.
    """
    if major_minor(version_of(trt))[0] >= 10:
        return
    names = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
    config.set_tactic_sources(sum(1 << int(getattr(trt.TacticSource, name)) for name in names))
    preview = getattr(getattr(trt, "PreviewFeature", None), "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805", None)
    if preview is not None:
        config.set_preview_feature(preview, True)


def set_level(trt: TensorRT, config: tensorrt.IBuilderConfig, level: int | None) -> int | None:
    """Set the optimisation level, 0 (fast build) to 5; None keeps the version's default.

    Returns:
        The level in force; None if the version has none (8.5).

    Raises:
        UsageError: if a level is requested from a version without levels.
    """
    if not hasattr(config, "builder_optimization_level"):
        if level is not None:
            raise _too_old(trt, f"the builder level {level}", "8.6")
        return None
    if level is not None:
        config.builder_optimization_level = level
    return int(config.builder_optimization_level)


def set_version_compatible(trt: TensorRT, config: tensorrt.IBuilderConfig) -> None:
    """Build plans that later versions of TensorRT load too; UsageError before 8.6."""
    flag = getattr(trt.BuilderFlag, "VERSION_COMPATIBLE", None)
    if flag is None:
        raise _too_old(trt, "a version-compatible plan", "8.6")
    config.set_flag(flag)


def set_native_instance_norm(trt: TensorRT, parser: tensorrt.OnnxParser) -> None:
    """Parse InstanceNormalization as layers and not as a plugin, because the runtime registers no plugins.

    8.6 needs the flag; later versions set it by default (NvOnnxParser.h, ``OnnxParserFlag``), and 8.5 has none.
    """
    flag = getattr(getattr(trt, "OnnxParserFlag", None), "NATIVE_INSTANCENORM", None)
    if flag is not None:
        later: Any = parser  # from 8.6, as the flag is
        later.set_flag(flag)


def set_hardware_compatibility(trt: TensorRT, config: tensorrt.IBuilderConfig, kind: HardwareCompatibility) -> None:
    """Build plans that other GPUs run too; UsageError if the version cannot."""
    if kind == "none":
        return
    level = getattr(getattr(trt, "HardwareCompatibilityLevel", None), kind.upper(), None)
    if level is None:
        raise _too_old(trt, f"hardware compatibility {kind}", "8.6" if kind == "ampere_plus" else "10.9")
    later: Any = config  # from 8.6
    later.hardware_compatibility_level = level


def _too_old(trt: TensorRT, feature: str, first: str) -> UsageError:
    return UsageError(
        f"TensorRT {version_of(trt)} does not support {feature}.",
        allowed=f"TensorRT {first} or later",
        next_step="leave it out, or install a later TensorRT",
    )
