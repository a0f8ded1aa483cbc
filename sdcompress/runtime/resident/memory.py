"""Where every tensor of a chain lies: one place each, so that the output of a segment is the next one's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sdcompress.errors import ArtifactError
from sdcompress.runtime.resident.device import ALIGNMENT, Bytes, Device, Port, Program
from sdcompress.schema.manifest import Exit, Manifest

__all__ = ["BUILD", "Memory", "Place", "Reading", "memory", "ports_of"]

BUILD = "build engines here: sdcompress build-engines ARTIFACT --out FOLDER"


class Place(NamedTuple):
    """A tensor of at most ``Memory.rows`` rows on the device."""

    address: int
    port: Port


class Reading(NamedTuple):
    """What is copied to the host at an exit: tensors that lie side by side, in one copy.

    Attributes:
        start: address of the first of them on the device.
        host: pinned, for all of them.
        arrays: views into ``host`` of the most rows, by the name of the tensor.
        last: offset of the last tensor in bytes; the copy ends with its rows.
    """

    start: int
    host: Bytes
    arrays: Mapping[str, npt.NDArray[Any]]
    last: int

    def size(self, rows: int) -> int:
        """Bytes that must be copied for so many rows."""
        *_, tensor = self.arrays.values()
        return self.last + rows * int(tensor[:1].nbytes)


class Memory(NamedTuple):
    """All memory of a chain.

    Attributes:
        places: of every tensor on the device.
        staging: pinned float32 [rows, C, H, W], where inputs wait to be copied.
        signals: what is read to decide at each exit; None where an exit computes none.
        logits: what is read where somebody leaves, for each exit.
    """

    places: Mapping[str, Place]
    staging: npt.NDArray[np.float32]
    signals: tuple[Reading | None, ...]
    logits: tuple[Reading, ...]


def memory(device: Device, manifest: Manifest, programs: Sequence[Program], rows: int) -> Memory:
    """Lay out all tensors and allocate them.

    Args:
        device: where.
        manifest: of the artifact.
        programs: its segments.
        rows: the most of a batch.

    Raises:
        ArtifactError: if the programs do not fit each other or the manifest.
    """
    ports = ports_of(manifest, programs)
    together = [[exit_.signals.values, exit_.signals.decision] for exit_ in manifest.exits if exit_.signals]
    joined = {name for names in together for name in names}
    places: dict[str, Place] = {}
    for names in (*together, *([name] for name in ports if name not in joined)):
        offsets = _offsets([ports[name] for name in names], rows)
        start = device.alloc(offsets[-1])
        places |= {name: Place(start + offset, ports[name]) for name, offset in zip(names, offsets, strict=False)}
    entry = ports[manifest.input.name]
    staging = device.pinned(rows * entry.row_bytes).view(np.float32).reshape(rows, *entry.row)
    return Memory(
        places,
        staging,
        tuple(_signals(device, exit_, places, rows) for exit_ in manifest.exits),
        tuple(_reading(device, [exit_.logits], places, rows) for exit_ in manifest.exits),
    )


def ports_of(manifest: Manifest, programs: Sequence[Program]) -> dict[str, Port]:
    """Every tensor as the programs have it, after checking that they mean the same by each name.

    Raises:
        ArtifactError: if one lacks a tensor of the manifest, or two of them differ on one.
    """
    entry = tuple(int(size) for size in manifest.input.shape[1:])
    known = {manifest.input.name: Port(np.dtype(np.float32), entry)}
    for at, (segment, program) in enumerate(zip(manifest.segments, programs, strict=True)):
        told = ({tensor.name for tensor in segment.inputs}, {tensor.name for tensor in segment.outputs})
        if (set(program.inputs), set(program.outputs)) != told:
            raise ArtifactError(
                f"Engine {at} has the inputs {sorted(program.inputs)} and the outputs {sorted(program.outputs)}.",
                allowed=f"{sorted(told[0])} and {sorted(told[1])}, as its graph in the manifest",
                next_step=BUILD,
            )
        for name, port in program.inputs.items():
            if known[name] != port:
                raise ArtifactError(
                    f"Engine {at} takes '{name}' as {_shown(port)}.",
                    allowed=f"{_shown(known[name])}, as it is made",
                    next_step=BUILD,
                )
        for name, port in program.outputs.items():
            if any(size < 1 for size in port.row):
                raise ArtifactError(
                    f"'{name}' of engine {at} has the shape {['batch', *port.row]}.",
                    allowed="only the batch may be dynamic",
                    next_step="export the artifact again with images of one size",
                )
        known |= program.outputs
    return known


def _shown(port: Port) -> str:
    return f"{port.dtype} {['batch', *port.row]}"


def _offsets(ports: Sequence[Port], rows: int) -> list[int]:
    """Where each begins, and where the last one ends."""
    offsets = [0]
    for port in ports:
        size = rows * port.row_bytes
        offsets.append(offsets[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
    return offsets


def _signals(device: Device, exit_: Exit, places: Mapping[str, Place], rows: int) -> Reading | None:
    if exit_.signals is None:
        return None
    return _reading(device, [exit_.signals.values, exit_.signals.decision], places, rows)


def _reading(device: Device, names: Sequence[str], places: Mapping[str, Place], rows: int) -> Reading:
    start = places[names[0]].address
    offsets = [places[name].address - start for name in names]
    ports = [places[name].port for name in names]
    host = device.pinned(offsets[-1] + rows * ports[-1].row_bytes)
    arrays = {
        name: host[offset : offset + rows * port.row_bytes].view(port.dtype).reshape(rows, *port.row)
        for name, port, offset in zip(names, ports, offsets, strict=True)
    }
    return Reading(start, host, arrays, offsets[-1])
