"""What launching a run does to the process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from sdcompress.errors import DeviceError
from sdcompress.schema.recipe import Train
from sdcompress.training.hardware import launch, memory_failures

STEPS = """
import resource, torch
from sdcompress.schema.recipe import Train
from sdcompress.training.hardware import launch

torch.set_num_threads(1)
launch(Train(device="cpu"))

def step():
    kept = [torch.ones(2**20) for _ in range(8)]  # 4 MiB each

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> int:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    command = [sys.executable, "-c", STEPS]
    answer = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=True)
    return int(answer.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_a_step_frees_serves_the_next_step_unless_the_user_said_otherwise():
    # left alone, glibc may give it back or not, as the heap happens to lie; a low threshold of the user's always does
    taken_anew = 5 * 8  # each tensor of each step faults at least once, 1024 times where pages are small
    assert faults() < taken_anew
    assert faults(MALLOC_MMAP_THRESHOLD_="65536") >= taken_anew


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    ],
)
def test_memory_that_a_library_of_the_gpu_lacks_is_lacking_memory_too(message: str) -> None:
    """Torch has a class of its own for its allocator alone."""
    device = torch.device("cuda:0")
    with pytest.raises(DeviceError, match="cuda:0 has too little memory") as caught, memory_failures(Train(), device):
        raise RuntimeError(message)
    assert message.splitlines()[0] in str(caught.value)
    with pytest.raises(RuntimeError, match="another") as other, memory_failures(Train(), device):
        raise RuntimeError("CUDA error: an illegal memory access was encountered, or another")
    assert not isinstance(other.value, DeviceError)


def test_mixed_precision_rounds_no_targets() -> None:
    step = launch(Train(precision="bf16-mixed", device="cpu")).setup_module(nn.Identity())
    prices = torch.tensor([20001.0, 20003.0])  # the nearest in bfloat16 are 19968 and 20096
    assert torch.equal(step(prices), prices)
