"""What of our TensorRT code needs no library of TensorRT and no GPU, run with the real bindings; see ``check.py``.

Enumerations, the two classes that Python derives from, and the flags made of them. Nothing here shows that an engine
can be built or run.
"""

from __future__ import annotations

import sys

import tensorrt_bindings

from sdcompress.errors import SetupError
from sdcompress.tensorrt.nvidia.install import version_problem
from sdcompress.tensorrt.nvidia.log import Log
from sdcompress.tensorrt.nvidia.progress import RESOLUTION
from sdcompress.tensorrt.nvidia.trt import (
    dtype_name,
    is_lean,
    is_strongly_typed,
    logger,
    make_monitor,
    network_flags,
    version_of,
)

trt = tensorrt_bindings
major = int(version_of(trt).partition(".")[0])
assert version_problem(version_of(trt)) is None

log, other = Log(), Log(1)
assert isinstance(logger(trt), trt.ILogger)
assert logger(trt) is logger(trt)  # TensorRT keeps the first
for severity in (trt.ILogger.VERBOSE, trt.ILogger.INFO, trt.ILogger.WARNING, trt.ILogger.ERROR):
    logger(trt).log(severity, "said")
assert list(log.all_lines) == ["[I] said", "[W] said", "[E] said"]
assert list(log.lines) == ["[W] said", "[E] said"]
assert list(other.all_lines) == ["[E] said"]
assert not is_lean(trt)
assert log.reason() == "[E] said"

told: list[int] = []
monitor = make_monitor(trt, told.append, lambda: False)
assert isinstance(monitor, trt.IProgressMonitor)
monitor.phase_start("build", None, 2)
assert monitor.step_complete("build", 0) is True
monitor.phase_finish("build")
assert told == [RESOLUTION // 2]

assert is_strongly_typed(trt)
assert hasattr(trt.OnnxParserFlag, "NATIVE_INSTANCENORM")
assert network_flags(trt) == 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
named, refused = {}, []
for name, dtype in trt.DataType.__members__.items():
    try:
        named[name] = dtype_name(trt, dtype)
    except SetupError:  # noqa: PERF203 - a dozen rounds
        refused.append(name)
assert named == {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}, named
assert {"BF16", "FP8"} <= set(refused)
assert hasattr(trt.BuilderFlag, "FP16") == (major < 11)
assert {"AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"} <= set(trt.HardwareCompatibilityLevel.__members__)
sys.stdout.write(f"{version_of(trt)}: enumerations, logger and progress monitor are as this package takes them\n")
