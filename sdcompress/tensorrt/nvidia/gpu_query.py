"""Query the CUDA driver for the GPU through ctypes, always before TensorRT is used.

Without a driver TensorRT 11.4 creates a runtime whose first use is a segmentation fault.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sdcompress.errors import SetupError

__all__ = ["MEMORY_STEP", "Gpu", "free_memory", "parse_driver", "probe_cuda"]

MEMORY_STEP = (
    "free memory of the GPU (nvidia-smi shows who holds it), or build engines for smaller batches: sdcompress "
    "build-engines ARTIFACT --batch 1:8:16 --out FOLDER"
)

_LIBRARY = "libcuda.so.1"
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_ALLOWED = "an NVIDIA GPU and its driver on Linux"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*, cuda.h

# CUresult of cuda.h -> (what it means, what to do)
_CODES = {
    2: ("the GPU has too little free memory", MEMORY_STEP),
    34: ("libcuda.so.1 is the stub that CUDA's toolkit links with", "take its folder out of LD_LIBRARY_PATH"),
    35: ("the NVIDIA driver is too old for this", "upgrade the NVIDIA driver"),
    46: (
        "the GPU's compute mode gives it to one process alone, or to none",
        "end the process that has it (nvidia-smi), or let all share it: nvidia-smi --compute-mode=DEFAULT",
    ),
    100: (
        "the driver sees no GPU",
        "check nvidia-smi and CUDA_VISIBLE_DEVICES; a container needs --gpus all",
    ),
    802: (
        "the driver's daemons are not ready",
        "start them; a machine with NVSwitch needs Fabric Manager: systemctl start nvidia-fabricmanager",
    ),
    803: ("the driver's library and kernel module are of different versions", "restart the machine after the upgrade"),
}


class Gpu(NamedTuple):
    """A GPU and its driver.

    Attributes:
        name: the driver's name of it.
        compute_capability: e.g. "9.0".
        memory_bytes: its total memory.
        driver: version of the kernel module, e.g. "580.82.07"; empty if unknown.
        cuda: the newest CUDA version that the driver supports, e.g. "13.0".
        bus: its PCI address, which nvidia-smi uses too and which does not depend on CUDA_VISIBLE_DEVICES.
    """

    name: str
    compute_capability: str
    memory_bytes: int
    driver: str
    cuda: str = ""
    bus: str = ""


def probe_cuda() -> Gpu:
    """Return the first GPU that CUDA sees; creates no context and takes no GPU memory.

    Raises:
        SetupError: if there is no driver library, the driver cannot start, or it has no GPU.
    """
    cuda = _init_driver()
    handle = _handle(cuda)
    name, bus = ctypes.create_string_buffer(256), ctypes.create_string_buffer(32)
    memory, version = ctypes.c_size_t(), ctypes.c_int()
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check("cuDeviceGetName", cuda.cuDeviceGetName(name, len(name), handle))
    _check("cuDeviceGetPCIBusId", cuda.cuDeviceGetPCIBusId(bus, len(bus), handle))
    _check("cuDeviceGetAttribute", cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, handle))
    _check("cuDeviceGetAttribute", cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, handle))
    _check("cuDeviceTotalMem", cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), handle))
    _check("cuDriverGetVersion", cuda.cuDriverGetVersion(ctypes.byref(version)))
    return Gpu(
        name=name.value.decode("utf-8", "replace"),
        compute_capability=f"{major.value}.{minor.value}",
        memory_bytes=memory.value,
        driver=_driver(),
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
        bus=bus.value.decode("utf-8", "replace"),
    )


def free_memory() -> int:
    """Return free bytes of the GPU's memory; holds CUDA's primary context during the call.

    Raises:
        SetupError: as ``probe_cuda``, or if CUDA cannot create a context, for lack of memory for example.
    """
    cuda = _init_driver()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with _context(cuda, _handle(cuda)):
        _check("cuMemGetInfo", cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
    return free.value


def parse_driver(text: str) -> str:
    """Return the driver's version from the kernel module's text; empty if it has none.

    Args:
        text: /proc/driver/nvidia/version.
    """
    match = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", text)
    return match.group(1) if match else ""


@contextmanager
def _context(cuda: ctypes.CDLL, handle: ctypes.c_int) -> Iterator[None]:
    context, before = ctypes.c_void_p(), ctypes.c_void_p()
    _check("cuDevicePrimaryCtxRetain", cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle))
    try:
        _check("cuCtxPushCurrent", cuda.cuCtxPushCurrent_v2(context))
        try:
            yield
        finally:
            cuda.cuCtxPopCurrent_v2(ctypes.byref(before))
    finally:
        cuda.cuDevicePrimaryCtxRelease_v2(handle)


def _init_driver() -> ctypes.CDLL:
    # load kernels at their first use: less memory, and TensorRT warns without it. Read by cuInit
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")
    try:
        cuda = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise SetupError(
            f"There is no NVIDIA driver here: {error}.",
            allowed=_ALLOWED,
            next_step="install the driver (nvidia-smi then shows the GPU); in a container, pass the GPU: --gpus all; "
            "without one, the backend 'onnxruntime' runs the same artifact",
        ) from error
    _check("cuInit", cuda.cuInit(0))
    return cuda


def _handle(cuda: ctypes.CDLL) -> ctypes.c_int:
    count, handle = ctypes.c_int(), ctypes.c_int()
    _check("cuDeviceGetCount", cuda.cuDeviceGetCount(ctypes.byref(count)))
    if count.value == 0:
        _check("cuDeviceGetCount", 100)
    _check("cuDeviceGet", cuda.cuDeviceGet(ctypes.byref(handle), 0))
    return handle


def _check(call: str, code: int) -> None:
    if code == 0:
        return
    meaning, step = _CODES.get(code, ("see CUresult in CUDA's documentation", "check that nvidia-smi works"))
    raise SetupError(
        f"The CUDA driver cannot be used: {call} gives error {code}, {meaning}.", allowed=_ALLOWED, next_step=step
    )


def _driver() -> str:
    try:
        return parse_driver(_KERNEL_MODULE.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
