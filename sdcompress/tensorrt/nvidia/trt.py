"""TensorRT 8.5, 8.6, 10 and 11 behind one set of names: all that differs between them stands in this file.

Source of every difference: the members of the Python bindings 8.5.3, 10.9, 10.16.1 and 11.4 and the release notes;
docs/tensorrt.md has the table. Members that only some versions have are reached by ``getattr``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from sdcompress.errors import SetupError, UsageError
from sdcompress.schema.engines import HardwareCompatibility
from sdcompress.schema.graphs import Precision
from sdcompress.tensorrt.nvidia._api import TensorRT
from sdcompress.tensorrt.nvidia.install import KNOWN, install_line, not_importable, parts, version_problem
from sdcompress.tensorrt.nvidia.log import Log, created, hear
from sdcompress.tensorrt.nvidia.probe import probe_cuda
from sdcompress.tensorrt.nvidia.progress import Phases

if TYPE_CHECKING:
    import tensorrt

__all__ = [
    "TensorRT",
    "allow_precision",
    "dtype_name",
    "imported",
    "is_lean",
    "is_typed",
    "load",
    "logger",
    "make_monitor",
    "make_runtime",
    "network_flags",
    "own_tactics_only",
    "parse_for_later_versions",
    "set_hardware_compatibility",
    "set_level",
    "set_version_compatible",
    "version_of",
    "watch",
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
    """Import TensorRT, after the driver has been asked for the GPU.

    Args:
        builds: whether engines are to be built; if not, the package tensorrt_lean will do, which only runs plans that
            were built as version-compatible.

    Raises:
        SetupError: if there is no GPU, no TensorRT, one that cannot be loaded, or a version that is not known here.
    """
    gpu = probe_cuda()
    trt = imported(gpu.cuda, lean=not builds)
    if problem := version_problem(version_of(trt)):
        raise SetupError(problem, allowed=KNOWN, next_step=install_line(gpu.cuda))
    return trt


def imported(cuda: str, *, lean: bool) -> TensorRT:
    """Import TensorRT and nothing more: without a GPU it may be asked for its version, and for nothing else.

    Args:
        cuda: the newest CUDA version that the driver speaks, for the message; empty: not known.
        lean: whether tensorrt_lean will do.

    Raises:
        SetupError: if it is not there, or a library is missing.
    """
    found: TensorRT  # where a type checker holds the real module against the protocol
    try:
        import tensorrt

        found = tensorrt
    except (ImportError, OSError) as error:
        if not lean:
            raise not_importable(error, cuda) from error
        try:
            import tensorrt_lean
        except (ImportError, OSError):
            raise not_importable(error, cuda) from error
        found = tensorrt_lean
    return found


def is_lean(trt: TensorRT) -> bool:
    """Whether it is the package tensorrt_lean, which loads version-compatible plans and no others."""
    return not hasattr(trt, "Builder")


def version_of(trt: Any) -> str:
    """The version of a ``TensorRT``, all its numbers; apart, because mypy knows no ``__version__`` in a protocol."""
    return str(trt.__version__)


def logger(trt: TensorRT) -> tensorrt.ILogger:
    """The logger of this process, which every ``Log`` hears; never freed.

    TensorRT keeps the first logger that it is given and ignores others ("differs from one already registered"), so a
    logger for each engine would be deaf, and used after it was freed.
    """
    base: Any = trt.ILogger
    made: tensorrt.ILogger = _logger(base)
    return made


@cache
def _logger(base: Any) -> Any:
    return type("Logger", (base,), {"log": _hear})()


def _hear(_logger: object, severity: Any, msg: str, hear: Callable[[Any, str], None] = hear) -> None:
    hear(severity, msg)  # a default outlives this module's names, and TensorRT may speak when Python ends


def make_monitor(trt: TensorRT, tell: Callable[[int], None], stopped: Callable[[], bool]) -> Any:
    """A progress monitor for a builder's configuration; see ``Phases``. None before 9.0, which has none."""
    base = getattr(trt, "IProgressMonitor", None)
    return None if base is None else type("Monitor", (Phases, base), {})(tell, stopped)


def watch(config: tensorrt.IBuilderConfig, monitor: Any) -> None:
    """Have a monitor told of a build; nothing happens without one."""
    if monitor is not None:
        later: Any = config  # from 9.0, as the monitor is
        later.progress_monitor = monitor


def make_runtime(trt: TensorRT, log: Log, *, version_compatible: bool = False) -> tensorrt.Runtime:
    """A runtime that loads plans.

    Args:
        trt: from ``load``.
        log: that hears why, where it cannot.
        version_compatible: whether the plans are: they carry a lean runtime, which is host code and must be allowed.
            Only plans whose hash stands in the manifest are ever loaded.

    Raises:
        SetupError: if TensorRT cannot make one.
    """
    runtime = created(lambda: trt.Runtime(logger(trt)), log, "a runtime")
    if version_compatible:
        later: Any = runtime  # from 8.6, as such plans are
        later.engine_host_code_allowed = True
    return runtime


def dtype_name(trt: TensorRT, dtype: Any) -> str:
    """Numpy's name of a tensor's type: "float32", "int64" ...

    Raises:
        SetupError: if numpy has no such type (BF16, FP8): it cannot cross the border of an engine here.
    """
    for member, name in _DTYPES.items():
        if dtype == getattr(trt.DataType, member, None):
            return name
    raise SetupError(
        f"A tensor at the border of an engine has the type {dtype}, which numpy does not have.",
        allowed=", ".join(_DTYPES.values()),
        next_step="export the artifact with float32 or float16 tensors between its graphs",
    )


def is_typed(trt: TensorRT) -> bool:
    """Whether networks are strongly typed: TensorRT computes in the types that stand in the graph (from 9.0)."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def network_flags(trt: TensorRT) -> int:
    """Flags for ``create_network``: the graph's own types are kept where the version can (from 9.0).

    8.x must be told that the batch is an axis; 10 ignores that, 11 has no such flag.
    """
    kinds = trt.NetworkDefinitionCreationFlag
    wanted = ["STRONGLY_TYPED"] + (["EXPLICIT_BATCH"] if parts(version_of(trt))[0] < 10 else [])
    return sum(1 << int(getattr(kinds, name)) for name in wanted if hasattr(kinds, name))


def allow_precision(trt: TensorRT, config: tensorrt.IBuilderConfig, precision: Precision, *, tf32: bool) -> None:
    """Tell a builder which arithmetic it may use.

    A strongly typed network says it itself; there is only TF32 to be decided, which is on by default. 8.x takes flags,
    as a permission: the types in the graph alone do not bind it.

    Raises:
        UsageError: if the version has no such precision.
    """
    if tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if is_typed(trt) or precision == "fp32":
        return
    flag = getattr(trt.BuilderFlag, precision.upper(), None)
    if flag is None:
        raise UsageError(
            f"The graph is {precision}, which TensorRT {version_of(trt)} does not have.",
            allowed="fp32, fp16 or int8",
            next_step="use TensorRT 10 or 11, or an artifact of another precision",
        )
    config.set_flag(flag)


def own_tactics_only(trt: TensorRT, config: tensorrt.IBuilderConfig) -> None:
    """Build without cuDNN and cuBLAS, which 8.x may find incomplete and 11 has dropped: other versions' default.

    Measured by nobody here; 8.5 is documented to build without them when it is told so in both ways.
    """
    if parts(version_of(trt))[0] >= 10:
        return
    names = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
    config.set_tactic_sources(sum(1 << int(getattr(trt.TacticSource, name)) for name in names))
    preview = getattr(getattr(trt, "PreviewFeature", None), "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805", None)
    if preview is not None:
        config.set_preview_feature(preview, True)


def set_level(trt: TensorRT, config: tensorrt.IBuilderConfig, level: int | None) -> int | None:
    """Set the optimisation level, 0 (fast build) to 5; None keeps the version's default.

    Returns:
        The level that holds; None where the version has none (8.5).

    Raises:
        UsageError: if one is asked for where there is none.
    """
    if not hasattr(config, "builder_optimization_level"):
        if level is not None:
            raise _too_old(trt, f"the builder level {level}", "8.6")
        return None
    if level is not None:
        config.builder_optimization_level = level
    return int(config.builder_optimization_level)


def set_version_compatible(trt: TensorRT, config: tensorrt.IBuilderConfig) -> None:
    """Make plans that later versions of TensorRT load too; UsageError before 8.6."""
    flag = getattr(trt.BuilderFlag, "VERSION_COMPATIBLE", None)
    if flag is None:
        raise _too_old(trt, "a version-compatible plan", "8.6")
    config.set_flag(flag)


def parse_for_later_versions(trt: TensorRT, parser: tensorrt.OnnxParser) -> None:
    """Parse as version-compatible plans need it: InstanceNormalization as layers, not as a plugin.

    8.6 must be told so (its documentation, "Version Compatibility"); for later ones that have the flag it is harmless.
    """
    flag = getattr(getattr(trt, "OnnxParserFlag", None), "NATIVE_INSTANCENORM", None)
    if flag is not None:
        later: Any = parser  # from 8.6, as the flag is
        later.set_flag(flag)


def set_hardware_compatibility(trt: TensorRT, config: tensorrt.IBuilderConfig, kind: HardwareCompatibility) -> None:
    """Make plans that other GPUs run too; UsageError where the version cannot."""
    if kind == "none":
        return
    level = getattr(getattr(trt, "HardwareCompatibilityLevel", None), kind.upper(), None)
    if level is None:
        raise _too_old(trt, f"hardware compatibility {kind}", "8.6" if kind == "ampere_plus" else "10.9")
    later: Any = config  # from 8.6
    later.hardware_compatibility_level = level


def _too_old(trt: TensorRT, what: str, first: str) -> UsageError:
    return UsageError(
        f"TensorRT {version_of(trt)} cannot give {what}.",
        allowed=f"TensorRT {first} or later",
        next_step="leave it out, or install a later TensorRT",
    )
