"""Allocate one place for every tensor of an artifact, so that a segment's output is the next one's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sdcompress.errors import ArtifactError
from sdcompress.modalities import modality_of
from sdcompress.runtime.on_device.device import ALIGNMENT, Bytes, Device, Program, TensorSpec
from sdcompress.schema.manifest import Exit, Manifest

__all__ = ["BUILD", "Binding", "Memory", "Readback", "allocate", "tensor_specs"]

BUILD = "build engines here: sdcompress build-engines ARTIFACT --out FOLDER"


class Binding(NamedTuple):
    """A tensor's address on the device and its spec."""

    address: int
    spec: TensorSpec


class Readback(NamedTuple):
    """Adjacent tensors that are copied to the host at an exit, in one copy.

    Attributes:
        start: address of the first tensor on the device.
        host: pinned memory for all of them.
        arrays: views into ``host`` with the most rows, by the name of the tensor.
        last: offset of the last tensor in bytes; the copy ends with its rows.
    """

    start: int
    host: Bytes
    arrays: Mapping[str, npt.NDArray[Any]]
    last: int

    def size(self, rows: int) -> int:
        """Return the bytes to copy for a number of rows."""
        *_, tensor = self.arrays.values()
        return self.last + rows * int(tensor[:1].nbytes)


class Memory(NamedTuple):
    """All memory of a ``DeviceExecutor``.

    Attributes:
        bindings: of every tensor on the device.
        staging: pinned arrays [rows, ...] by the inputs' names, from which inputs are uploaded.
        signals: for each exit the readback of its signals; None if its graph computes none.
        outputs: for each exit the readback of its outputs.
    """

    bindings: Mapping[str, Binding]
    staging: Mapping[str, npt.NDArray[Any]]
    signals: tuple[Readback | None, ...]
    outputs: tuple[Readback, ...]


def allocate(device: Device, manifest: Manifest, programs: Sequence[Program], rows: int) -> Memory:
    """Lay out all tensors and allocate them.

    Args:
        device: that holds them.
        manifest: of the artifact.
        programs: its segments.
        rows: largest batch.

    Raises:
        ArtifactError: if the programs do not match each other or the manifest.
    """
    specs = tensor_specs(manifest, programs)
    signal_groups = [[exit_.signals.values, exit_.signals.decision] for exit_ in manifest.exits if exit_.signals]
    grouped = {name for names in signal_groups for name in names}
    bindings: dict[str, Binding] = {}
    for names in (*signal_groups, *([name] for name in specs if name not in grouped)):
        offsets = _offsets([specs[name] for name in names], rows)
        start = device.alloc(offsets[-1])
        bindings |= {name: Binding(start + offset, specs[name]) for name, offset in zip(names, offsets, strict=False)}
    staging = {
        tensor.name: device.pinned(rows * specs[tensor.name].row_bytes)
        .view(specs[tensor.name].dtype)
        .reshape(rows, *specs[tensor.name].row)
        for tensor in modality_of(manifest).tensors
    }
    return Memory(
        bindings,
        staging,
        tuple(_signals(device, exit_, bindings, rows) for exit_ in manifest.exits),
        tuple(_readback(device, [exit_.outputs], bindings, rows) for exit_ in manifest.exits),
    )


def tensor_specs(manifest: Manifest, programs: Sequence[Program]) -> dict[str, TensorSpec]:
    """Return the spec of every input and output of the programs, by name.

    The network's inputs are those of the modality, and int32 in the place of int64 where programs take that: TensorRT 8
    has no int64.

    Raises:
        ArtifactError: if a program lacks a tensor of the manifest, or two programs differ in a tensor.
    """
    specs = {
        tensor.name: TensorSpec(np.dtype(tensor.dtype), tuple(int(size) for size in tensor.shape[1:]))
        for tensor in modality_of(manifest).tensors
    }
    untaken = set(specs)  # the first program that takes one decides
    for at, (segment, program) in enumerate(zip(manifest.segments, programs, strict=True)):
        listed = ({tensor.name for tensor in segment.inputs}, {tensor.name for tensor in segment.outputs})
        if (set(program.inputs), set(program.outputs)) != listed:
            raise ArtifactError(
                f"Engine {at} has the inputs {sorted(program.inputs)} and the outputs {sorted(program.outputs)}.",
                allowed=f"{sorted(listed[0])} and {sorted(listed[1])}, as its graph in the manifest",
                next_step=BUILD,
            )
        for name, spec in program.inputs.items():
            if name in untaken and spec.dtype == np.int32 and specs[name] == spec._replace(dtype=np.dtype(np.int64)):
                specs[name] = spec
            untaken.discard(name)
            if specs[name] != spec:
                raise ArtifactError(
                    f"Engine {at} takes '{name}' as {_spec_text(spec)}.",
                    allowed=f"{_spec_text(specs[name])}, as it is made",
                    next_step=BUILD,
                )
        for name, spec in program.outputs.items():
            if any(size < 1 for size in spec.row):
                raise ArtifactError(
                    f"'{name}' of engine {at} has the shape {['batch', *spec.row]}.",
                    allowed="only the batch may be dynamic",
                    next_step="export it again at one image size, or run it with onnxruntime",
                )
        specs |= program.outputs
    return specs


def _spec_text(spec: TensorSpec) -> str:
    return f"{spec.dtype} {['batch', *spec.row]}"


def _offsets(specs: Sequence[TensorSpec], rows: int) -> list[int]:
    """Return the offset of each tensor, and the end of the last one."""
    offsets = [0]
    for spec in specs:
        size = rows * spec.row_bytes
        offsets.append(offsets[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
    return offsets


def _signals(device: Device, exit_: Exit, bindings: Mapping[str, Binding], rows: int) -> Readback | None:
    if exit_.signals is None:
        return None
    return _readback(device, [exit_.signals.values, exit_.signals.decision], bindings, rows)


def _readback(device: Device, names: Sequence[str], bindings: Mapping[str, Binding], rows: int) -> Readback:
    start = bindings[names[0]].address
    offsets = [bindings[name].address - start for name in names]
    specs = [bindings[name].spec for name in names]
    host = device.pinned(offsets[-1] + rows * specs[-1].row_bytes)
    arrays = {
        name: host[offset : offset + rows * spec.row_bytes].view(spec.dtype).reshape(rows, *spec.row)
        for name, spec, offset in zip(names, specs, offsets, strict=True)
    }
    return Readback(start, host, arrays, offsets[-1])
