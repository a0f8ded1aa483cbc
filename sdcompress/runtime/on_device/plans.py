"""Run a segment as a TensorRT engine, with one context of a fixed shape for each bucket, whose CUDA graph is replayed.

Tensors are bound by name: TensorRT 10 has no binding indices. A context is bound once, to memory that never moves. In
TensorRT 8 a profile serves only one context. So the buckets of a profile share it, its shape is set before each run,
and nothing is captured, unless the profile has one bucket (``--batch 1,2,4,8``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sdcompress.artifact.read import Artifact
from sdcompress.errors import ArtifactError, DeviceError
from sdcompress.runtime.on_device.buckets import Buckets
from sdcompress.runtime.on_device.device import GraphReplay, TensorSpec
from sdcompress.runtime.on_device.gpu import GpuDevice
from sdcompress.runtime.on_device.memory import BUILD
from sdcompress.schema.engines import BatchProfile, Engines, Plan
from sdcompress.schema.graphs import Segment, Tensor
from sdcompress.tensorrt.nvidia.context import make_context, profiles_shared, scratch_bytes
from sdcompress.tensorrt.nvidia.header import PlanHeader, read_header
from sdcompress.tensorrt.nvidia.install import major_minor
from sdcompress.tensorrt.nvidia.log import Log, failure, require
from sdcompress.tensorrt.nvidia.trt import TensorRT, dtype_name, version_of

if TYPE_CHECKING:
    import tensorrt

__all__ = ["PlanLoader", "PlanProgram", "Scratch", "check_version", "plan_bytes", "programs", "row_shape"]


def plan_bytes(artifact: Artifact, plan: Plan) -> bytes:
    """Return the bytes of a plan that have the manifest's SHA-256: a plan is code that runs as soon as it is loaded.

    Opening the artifact compared the hash already, but the file may have changed since.

    Raises:
        ArtifactError: if the hash differs.
    """
    file = artifact.file(plan)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ArtifactError(f"'{file}' cannot be read: {error.strerror}.", next_step=BUILD) from error
    if sha256(data).hexdigest() != plan.sha256:
        raise ArtifactError(
            f"'{file}' was changed while it was opened.",
            allowed=f"the SHA-256 {plan.sha256[:12]}..., as the manifest says",
            next_step="copy the artifact again from where it was made, and find out who writes to it",
        )
    return data


def check_version(header: PlanHeader, file: str, engines: Engines) -> None:
    """Compare a plan's version with the manifest's, before TensorRT loads it.

    Args:
        header: of the plan. One without a version passes, and so does 8.5's, whose bytes may mean something else.
        file: the plan's name.
        engines: of the manifest.

    Raises:
        ArtifactError: if they differ.
    """
    listed = [str(int(number) % 256) for number in engines.tensorrt.split(".")[:4]]  # a header has a byte for each
    if (
        header.version is None
        or major_minor(engines.tensorrt) < (8, 6)
        or header.version.split(".")[: len(listed)] == listed
    ):
        return
    raise ArtifactError(
        f"'{file}' was written by TensorRT {header.version}.",
        allowed=f"TensorRT {engines.tensorrt}, as the manifest says",
        next_step=BUILD,
    )


class PlanLoader(NamedTuple):
    """TensorRT's module, a runtime of it, and its log."""

    trt: TensorRT
    runtime: tensorrt.Runtime
    log: Log


def programs(
    loader: PlanLoader, artifact: Artifact, engines: Engines, device: GpuDevice, buckets: Buckets
) -> list[PlanProgram]:
    """Load all plans; they share one scratch memory.

    Args:
        loader: of the plans.
        artifact: opened.
        engines: of its manifest.
        device: where they run.
        buckets: numbers of rows that they run with.

    Raises:
        ArtifactError: if a plan differs from the manifest, or cannot be loaded.
        DeviceError: if there is too little memory.
    """
    loaded = []
    for plan in engines.plans:
        written = plan_bytes(artifact, plan)
        check_version(read_header(written), plan.file, engines)
        engine = loader.runtime.deserialize_cuda_engine(written)
        if engine is None:
            raise _unloadable(loader, plan.file, engines)
        _check_profiles(loader.trt, engine, plan.file, engines.profiles)
        loaded.append(engine)
    size = max(scratch_bytes(engine) for engine in loaded)
    scratch = Scratch(device.alloc(size), size)
    return [
        PlanProgram(loader, engine, segment, device, buckets=buckets, scratch=scratch)
        for engine, segment in zip(loaded, artifact.manifest.segments, strict=True)
    ]


class Scratch(NamedTuple):
    """Scratch memory on the device, which all contexts use one after the other."""

    address: int
    size: int


class PlanProgram:
    """A ``Program`` over a TensorRT engine.

    Args:
        loader: of the engine, which must live as long as the engine.
        engine: deserialized.
        segment: the entry of its graph in the manifest.
        device: that runs it.
        buckets: numbers of rows that it runs with.
        scratch: shared with other programs.
    """

    def __init__(
        self,
        loader: PlanLoader,
        engine: tensorrt.ICudaEngine,
        segment: Segment,
        device: GpuDevice,
        *,
        buckets: Buckets,
        scratch: Scratch,
    ) -> None:
        self._loader, self._engine, self._log = loader, engine, loader.log
        self._device, self._buckets, self._scratch = device, buckets, scratch
        names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
        listed = {tensor.name: tensor for tensor in (*segment.inputs, *segment.outputs)}
        specs = {
            name: TensorSpec(
                np.dtype(self._dtype(name)), row_shape(_dims(engine.get_tensor_shape(name)), listed.get(name))
            )
            for name in names
        }
        input_mode = loader.trt.TensorIOMode.INPUT
        self.inputs = {name: spec for name, spec in specs.items() if engine.get_tensor_mode(name) == input_mode}
        self.outputs = {name: spec for name, spec in specs.items() if name not in self.inputs}
        self._shared = profiles_shared(loader.trt)
        self._contexts: dict[int, tensorrt.IExecutionContext] = {}  # the last one of each profile

    def bind(self, bucket: int, rows: int, addresses: Mapping[str, int]) -> Callable[[], None]:
        """Bind a context of its own, because a captured graph has one shape and one context's memory."""
        profile, fixed = self._buckets.profiles[bucket], self._shared or self._buckets.alone_in_profile(bucket)
        context = None if fixed else self._contexts.get(profile)
        if context is None:
            context = self._contexts[profile] = self._context(profile, addresses)
        self._shape(context, rows)
        for name, spec in self.outputs.items():
            if _dims(context.get_tensor_shape(name)) != (rows, *spec.row):
                raise ArtifactError(
                    f"'{name}' has the shape {list(_dims(context.get_tensor_shape(name)))} for {rows} rows.",
                    allowed=f"{[rows, *spec.row]}: one row of output for each of input",
                    next_step=BUILD,
                )

        def enqueue() -> None:
            if not fixed:
                self._shape(context, rows)
            if not context.execute_async_v3(self._device.stream):
                raise DeviceError(
                    f"TensorRT cannot run a segment with {rows} rows: {self._log.reason()}.",
                    next_step="check 'nvidia-smi', and run it again in a new process",
                )

        # only the caller keeps it: a reference from here would be a cycle, and hold GPU memory until a collection
        return GraphReplay(enqueue, self._device if fixed else None)

    def _context(self, profile: int, addresses: Mapping[str, int]) -> tensorrt.IExecutionContext:
        context = make_context(self._loader.trt, self._engine, self._log, *self._scratch)
        if context.active_optimization_profile != profile:
            stream = self._device.stream
            self._must(lambda: context.set_optimization_profile_async(profile, stream), f"use profile {profile}")
            self._device.finish()
        for name in (*self.inputs, *self.outputs):
            set_address = partial(context.set_tensor_address, name, addresses[name])
            self._must(set_address, f"bind '{name}' to memory")
        return context

    def _shape(self, context: tensorrt.IExecutionContext, rows: int) -> None:
        for name, spec in self.inputs.items():
            shape = (rows, *spec.row)
            self._must(partial(context.set_input_shape, name, shape), f"take '{name}' as {list(shape)}")

    def _dtype(self, name: str) -> str:
        return dtype_name(self._loader.trt, self._engine.get_tensor_dtype(name))

    def _must(self, call: Callable[[], object], what: str) -> None:
        require(call, self._log, what, next_step=BUILD)


def _unloadable(loader: PlanLoader, file: str, engines: Engines) -> ArtifactError | DeviceError:
    problem = f"TensorRT {version_of(loader.trt)} cannot load '{file}'"
    error = failure(problem, loader.log, next_step=BUILD)
    if isinstance(error, DeviceError):
        return error
    return ArtifactError(
        error.problem,
        allowed=f"a plan of TensorRT {engines.tensorrt} for {engines.gpu}, as the manifest says",
        next_step=BUILD,
    )


def _check_profiles(trt: TensorRT, engine: tensorrt.ICudaEngine, file: str, profiles: tuple[BatchProfile, ...]) -> None:
    names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
    network_input = next(name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)
    batches = [
        tuple(_dims(shape)[0] for shape in engine.get_tensor_profile_shape(network_input, at))
        for at in range(engine.num_optimization_profiles)
    ]
    listed = [(profile.min, profile.opt, profile.max) for profile in profiles]
    if batches != listed:
        raise ArtifactError(
            f"'{file}' takes the batches {_batches_text(batches)} (min:opt:max).",
            allowed=f"{_batches_text(listed)}, as the manifest says",
            next_step=f"{BUILD} --batch {_batches_text(listed)}",
        )


def row_shape(shape: tuple[int, ...], listed: Tensor | None) -> tuple[int, ...]:
    """Return a tensor's shape without the batch; sizes that the engine computes at run time (-1) from the manifest.

    Args:
        shape: of the engine, the batch first.
        listed: the tensor in the manifest, if listed; sizes that it does not know either stay -1.
    """
    listed_sizes = dict(enumerate(listed.shape)) if listed is not None else {}
    sizes = (listed_sizes.get(at) if size < 0 else size for at, size in enumerate(shape[1:], 1))
    return tuple(size if isinstance(size, int) else -1 for size in sizes)


def _batches_text(batches: Sequence[tuple[int, ...]]) -> str:
    return ",".join(":".join(map(str, batch)) for batch in batches) or "(none)"


def _dims(shape: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in shape)
