"""The driver's answers: on this machine for real, and what each failure is said to be."""

from __future__ import annotations

import ctypes
import re

import pytest

from sdcompress.errors import SetupError
from sdcompress.tensorrt.nvidia.gpu_query import _check, free_memory, parse_driver, probe_cuda
from sdcompress.tensorrt.nvidia.trt import load

KERNEL_MODULE = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024
GCC version:  gcc version 12.2.0
"""
OPEN_KERNEL_MODULE = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build  (root@localhost)\n"
)


def driver_is_here() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


without_driver = pytest.mark.skipif(driver_is_here(), reason="this machine has an NVIDIA driver")


@without_driver
@pytest.mark.parametrize("ask", [probe_cuda, free_memory, load])
def test_without_a_driver_it_says_so_and_what_to_do(ask) -> None:
    with pytest.raises(SetupError, match=re.escape("libcuda.so.1")) as caught:
        ask()
    assert caught.value.allowed == "an NVIDIA GPU and its driver on Linux"
    assert "install the driver" in caught.value.next_step


@pytest.mark.parametrize(
    ("code", "words"),
    [(35, "driver is too old"), (100, "sees no GPU"), (34, "stub"), (803, "different versions"), (999, "error 999")],
)
def test_an_error_of_the_driver_is_named(code: int, words: str) -> None:
    with pytest.raises(SetupError, match=words) as caught:
        _check("cuInit", code)
    assert caught.value.next_step


def test_no_error_is_none() -> None:
    _check("cuInit", 0)


@pytest.mark.parametrize(
    ("text", "version"), [(KERNEL_MODULE, "550.54.15"), (OPEN_KERNEL_MODULE, "580.82.07"), ("", ""), ("NVRM", "")]
)
def test_the_drivers_version_is_read(text: str, version: str) -> None:
    assert parse_driver(text) == version


@pytest.mark.gpu
def test_a_gpu_is_described() -> None:
    gpu = probe_cuda()
    assert gpu.name
    assert re.fullmatch(r"\d+\.\d", gpu.compute_capability)
    assert 2**30 < free_memory() <= gpu.memory_bytes
    assert re.fullmatch(r"\d+\.\d+", gpu.cuda)
    assert re.fullmatch(r"[0-9A-Fa-f]+:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d", gpu.bus)
