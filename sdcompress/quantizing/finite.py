"""Check that logits which are finite in float32 are finite in a lower precision, on edge cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sdcompress.errors import VerificationError
from sdcompress.modalities import modality_of
from sdcompress.onnx_graph.probe import first_not_finite
from sdcompress.schema.manifest import Manifest
from sdcompress.verification.edge_cases import edge_case_inputs, lost_finite, perturbed
from sdcompress.verification.gate import save_failed
from sdcompress.verification.sessions import open_sessions

__all__ = ["check_finite"]


def check_finite(
    manifest: Manifest, before: Sequence[bytes], after: Mapping[str, bytes], *, out: Path, precision: str, threads: int
) -> None:
    """Compare both on the modality's edge cases, with and without ONNX Runtime's optimisations.

    Args:
        manifest: of the artifact in float32.
        before: its graphs.
        after: file name -> graph in the new precision, in order.
        out: folder of the artifact that is being written.
        precision: its name.
        threads: of ONNX Runtime.

    Raises:
        VerificationError: if an output is finite in float32 only; the graphs are saved in ``<out>.failed``.
    """
    kinds, inputs = edge_case_inputs(modality_of(manifest))
    float32 = open_sessions(manifest, before, threads=threads)
    expected = [float32(inputs), float32(perturbed(inputs))]
    for optimise in (True, False):
        sessions = open_sessions(manifest, list(after.values()), threads=threads, optimise=optimise)
        not_finite = lost_finite(expected, sessions(inputs))
        if not_finite:
            exit_, row = not_finite[0]
            node = first_not_finite(after, inputs[row : row + 1].arrays)
            folder = save_failed(out, after, ())
            raise VerificationError(
                f"In {precision} the outputs of {manifest.exits[exit_].name} are not finite for an example that is "
                f"{kinds[row]}, which they are in float32."
                + (f" The first value that is not finite comes from the {node}." if node else ""),
                allowed="finite outputs where those in float32 are",
                next_step=f"see {folder}; keep float32, or give the network a larger epsilon where it divides, such as "
                "1e-3, and train again",
            )
