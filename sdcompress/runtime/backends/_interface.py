"""Compare what a graph takes and gives with the manifest, when it is loaded and when it has run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sdcompress.errors import ArtifactError
from sdcompress.runtime.backends._base import Array
from sdcompress.schema.manifest import Segment

__all__ = ["Ports", "check_interface", "check_shapes", "row_shapes"]

# by name: the type as numpy writes it, and the shape; an axis that is no number may have any size
Ports = Mapping[str, tuple[str, Sequence[int | str | None]]]
RowShape = tuple[int | str, ...]


def check_interface(file: Path, segment: Segment, inputs: Ports, outputs: Ports) -> None:
    """Refuse a graph whose inputs or outputs are not those of the manifest.

    Args:
        file: of the graph.
        segment: its entry in the manifest.
        inputs: of the loaded graph.
        outputs: likewise.

    Raises:
        ArtifactError: if names, types or shapes differ.
    """
    for ports, tensors in ((inputs, segment.inputs), (outputs, segment.outputs)):
        listed = {tensor.name: (tensor.dtype, list(tensor.shape)) for tensor in tensors}
        if ports.keys() != listed.keys() or not all(
            ports[name][0] == dtype and _fits(ports[name][1], shape) for name, (dtype, shape) in listed.items()
        ):
            raise ArtifactError(
                f"A graph has other inputs or outputs than the manifest says, {dict(ports)}: {file}.",
                allowed=f"{listed}, as the manifest says",
                next_step="export the artifact again",
            )


def row_shapes(segment: Segment) -> list[RowShape]:
    """Return the shapes of a segment's outputs without the batch, for ``check_shapes``."""
    return [tensor.shape[1:] for tensor in segment.outputs]


def check_shapes(file: Path, shapes: Sequence[RowShape], arrays: Sequence[Array], rows: int) -> None:
    """Refuse arrays of other shapes than the manifest's, which a graph can give only when it runs.

    Args:
        file: of the graph.
        shapes: of the manifest, without the batch.
        arrays: what the graph gave for them.
        rows: of the inputs.

    Raises:
        ArtifactError: names the first that differs.
    """
    for shape, array in zip(shapes, arrays, strict=True):
        actual = array.shape
        if not actual or actual[0] != rows or (actual[1:] != shape and not _fits(actual[1:], shape)):
            raise ArtifactError(
                f"A graph gives an output of shape {list(actual)} for {rows} rows: {file}.",
                allowed=f"{['batch', *shape]}, as the manifest says",
                next_step="export the artifact again",
            )


def _fits(shape: Sequence[int | str | None], listed: Sequence[int | str]) -> bool:
    return len(shape) == len(listed) and all(
        one == other or not isinstance(one, int) or not isinstance(other, int)
        for one, other in zip(shape, listed, strict=True)
    )
