"""Check that logits which are finite in float32 are finite in a lower precision, on edge cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sdcompress.errors import VerificationError
from sdcompress.modalities._geometry import normalise
from sdcompress.onnx_graph.probe import first_not_finite
from sdcompress.schema.manifest import Manifest
from sdcompress.verification.edge_cases import KINDS, edge_case_images, lost_finite, perturbed
from sdcompress.verification.gate import save_failed
from sdcompress.verification.sessions import open_sessions

__all__ = ["check_finite"]


def check_finite(
    manifest: Manifest, before: Sequence[bytes], after: Mapping[str, bytes], *, out: Path, precision: str, threads: int
) -> None:
    """Compare both on blank, saturated and noisy images, with and without ONNX Runtime's optimisations.

    Args:
        manifest: of the artifact in float32.
        before: its graphs.
        after: file name -> graph in the new precision, in order.
        out: folder of the artifact that is being written.
        precision: its name.
        threads: of ONNX Runtime.

    Raises:
        VerificationError: if a logit is finite in float32 only; the graphs are saved in ``<out>.failed``.
    """
    channels, height, width = (int(axis) for axis in manifest.input.shape[1:])
    inputs = normalise(edge_case_images(height, width, channels), manifest.input.preprocess)

    float32 = open_sessions(manifest, before, threads=threads)
    expected = [float32(inputs), float32(perturbed(inputs))]
    for optimise in (True, False):
        sessions = open_sessions(manifest, list(after.values()), threads=threads, optimise=optimise)
        not_finite = lost_finite(expected, sessions(inputs))
        if not_finite:
            exit_, image = not_finite[0]
            node = first_not_finite(after, manifest.input.name, inputs[image : image + 1])
            folder = save_failed(out, after, ())
            raise VerificationError(
                f"In {precision} the logits of {manifest.exits[exit_].name} are not finite for an image that is "
                f"{KINDS[image]}, which they are in float32."
                + (f" The first value that is not finite comes from the {node}." if node else ""),
                allowed="finite logits where those in float32 are",
                next_step=f"see {folder}; keep float32, or give the network a larger epsilon where it divides, such as "
                "1e-3, and train again",
            )
