"""Create execution contexts that share one scratch memory, with TensorRT 8, 10 and 11.

Segments and buckets run one after the other on one stream, so the largest scratch serves all of them. Source: the
members of the bindings 8.5.3, 10.9, 10.16.1 and 11.4, and the developer guide's "Share Memory Across Contexts".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sdcompress.tensorrt.nvidia._api import TensorRT
from sdcompress.tensorrt.nvidia.install import major_minor
from sdcompress.tensorrt.nvidia.log import Log, create
from sdcompress.tensorrt.nvidia.trt import version_of

if TYPE_CHECKING:
    import tensorrt

__all__ = ["make_context", "profiles_shared", "scratch_bytes"]


def scratch_bytes(engine: tensorrt.ICudaEngine) -> int:
    """Return scratch memory of one execution context of an engine, for any of its profiles."""
    size = getattr(engine, "device_memory_size_v2", None)  # 10.1 and later; 11 has no other
    return int(engine.device_memory_size if size is None else size)  # type: ignore[attr-defined,unused-ignore]


def profiles_shared(trt: TensorRT) -> bool:
    """Whether several contexts of an engine may use the same optimisation profile: from 10; in 8 each needs its own."""
    return major_minor(version_of(trt))[0] >= 10


def make_context(
    trt: TensorRT, engine: tensorrt.ICudaEngine, log: Log, memory: int, size: int
) -> tensorrt.IExecutionContext:
    """Return a context that computes in memory of the caller.

    Args:
        trt: from ``load``.
        engine: deserialized.
        log: that its runtime was made with.
        memory: address on the GPU, at least ``scratch_bytes``; contexts that share it must not run at the same time.
        size: of that memory, in bytes.

    Raises:
        SetupError: if TensorRT cannot create one.
    """
    strategy: Any = getattr(trt, "ExecutionContextAllocationStrategy", None)
    if strategy is None:
        make: Any = getattr(engine, "create_execution_context_without_device_memory", None)
    else:
        make = partial(engine.create_execution_context, strategy.USER_MANAGED)
    context: Any = create(make, log, "an execution context")
    set_memory = getattr(context, "set_device_memory", None)
    if set_memory is None:  # 8.5 to 10.0
        context.device_memory = memory
    else:
        set_memory(memory, size)
    result: tensorrt.IExecutionContext = context
    return result
