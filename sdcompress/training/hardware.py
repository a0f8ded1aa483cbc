"""The processes and devices of a run, as Lightning Fabric, checked before anything is built."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from sdcompress.errors import DeviceError, RecipeError, SetupError, UsageError
from sdcompress.schema import recipe
from sdcompress.training.sharding import shard

__all__ = ["find_unused", "launch", "memory_failures", "no_gradient_missing"]

# of errors without a class: of a CPU, of CUDA beside torch's allocator (pinned memory), of libraries' workspaces
_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)

# of mallopt, in glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 2**25  # glibc takes no more


def launch(spec: recipe.Train, *, phases: int = 1) -> Fabric:
    """Return a launched Fabric: one process, or one of those that torchrun started.

    Args:
        spec: the recipe's ``train``.
        phases: of the method; what does not learn in one of several is then looked for in each step.

    Raises:
        SetupError: if there is no such accelerator.
        UsageError: if ``devices`` does not fit the number of processes, or the precision the device.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if spec.processes != world:
        raise UsageError(
            f"train.processes is {spec.processes}, but {world} process(es) were started.",
            allowed="one process per device",
            next_step=f"torchrun --nproc-per-node {spec.processes} -m sdcompress train ..."
            if spec.processes > 1
            else f"--set train.processes={world}",
        )
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(spec.device, True):
        raise SetupError(
            f"train.device is '{spec.device}', which torch {torch.__version__} does not find here.",
            allowed=", ".join(["auto", "cpu", *(name for name, available in present.items() if available)]),
            next_step="'sdcompress doctor' shows what is there; --set train.device=auto takes the best",
        )
    nodes = world // int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    fabric = Fabric(
        accelerator=spec.device,
        devices=world // nodes,
        num_nodes=nodes,
        strategy=_strategy(spec, world, phases) if world > 1 else "auto",
        precision=spec.precision,
    )
    if spec.precision == "16-mixed" and fabric.device.type == "cpu":  # Fabric would train in bf16 and only warn
        raise UsageError(
            "train.precision is '16-mixed', which is not there on a CPU.",
            allowed="32-true or bf16-mixed on a CPU",
            next_step="--set train.precision=bf16-mixed",
        )
    if spec.precision != "32-true":  # Fabric would round all floats, targets and the weights of mixtures among them
        fabric.strategy.precision.convert_input = _unchanged  # autocast decides what is rounded
    fabric.launch()
    if fabric.device.type == "cpu":
        _keep_freed_memory()
    if world > 1:
        atexit.register(_leave_process_group)
    return fabric


def find_unused(fabric: Fabric) -> None:
    """Let DDP look in each step for parameters that get no gradient; nothing where it is not used.

    Args:
        fabric: launched, before its module is set up.
    """
    if isinstance(fabric.strategy, _Ddp):
        fabric.strategy.find_unused()


@contextmanager
def memory_failures(spec: recipe.Train, device: torch.device) -> Iterator[None]:
    """Turn a failed allocation in the block into an error that says what needs less.

    Args:
        spec: the recipe's ``train``.
        device: on which the run trains.

    Raises:
        DeviceError: if torch got no memory for a tensor of the block.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not any(words in str(error) for words in _NO_MEMORY):
            raise
        parts = 2 * spec.accumulate
        raise DeviceError(
            f"{device} has too little memory for a training with train.batch_size {spec.batch_size} in "
            f"{spec.accumulate} part(s): {str(error).splitlines()[0]}",
            allowed="a network and a batch that fit the free memory; the last checkpoint is kept",
            next_step=f"--set train.accumulate={parts} computes a step in {parts} parts; train.precision=bf16-mixed, a "
            "smaller train.batch_size or smaller inputs need less too. The folder of a run that has begun needs "
            "--overwrite, or another --out",
        ) from error


@contextmanager
def no_gradient_missing() -> Iterator[None]:
    """Name what DDP cannot train: a network that leaves parameters out in some steps only.

    Raises:
        RecipeError: if a parameter had no gradient in the step before.
    """
    try:
        yield
    except RuntimeError as error:
        if "finished reduction in the prior iteration" not in str(error):
            raise
        raise RecipeError(
            "A parameter that took part in the loss of the first batch took no part in that of a later one, which "
            "torch's DDP cannot train.",
            allowed="with train.strategy ddp: a network that uses the same parameters in every step",
            next_step="train in one process (train.processes=1), or add 0 * (sum of unused parameters) to the loss",
        ) from error


class _Ddp(DDPStrategy):  # type: ignore[misc]  # Lightning is untyped here
    """DDP that may be told later to look for unused parameters: they are known when the network is built.

    The look itself costs next to nothing, but torch warns in each process where it finds none.
    """

    def find_unused(self) -> None:
        self._ddp_kwargs["find_unused_parameters"] = True


def _unchanged(inputs: Any) -> Any:
    return inputs


def _leave_process_group() -> None:
    """Leave the group of processes before the interpreter ends.

    gloo's threads, if they still run then, abort the process now and again; torchrun takes that for a failure and ends
    the others, which may be writing the last checkpoint. Lightning does this for NCCL alone.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _strategy(spec: recipe.Train, world: int, phases: int) -> Strategy:
    if spec.strategy == "fsdp":
        return ModelParallelStrategy(shard, data_parallel_size=world, tensor_parallel_size=1)
    # statistics are shared by the learner; memories are the same in all processes and may be large
    return _Ddp(find_unused_parameters=phases > 1, broadcast_buffers=False)


def _keep_freed_memory() -> None:
    """Have glibc keep the memory that a step frees for the next step; other C libraries are left as they are.

    By default it returns the activations to the system after each step. The system then clears thousands of pages for
    the next one: 5 to 25 % of a step on a CPU (benchmarks/speed). The peak of memory stays the same.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return  # or the user has told it already
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
