"""Whether a precision keeps finite what is finite in float32, on images that real ones rarely are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sdcompress.errors import VerificationError
from sdcompress.modalities._geometry import normalise
from sdcompress.onnx_graph.probe import first_not_finite
from sdcompress.schema.manifest import Manifest
from sdcompress.verification.gate import set_aside
from sdcompress.verification.hard_images import KINDS, hard_images, lost, nudged
from sdcompress.verification.sessions import Chain

__all__ = ["check_finite"]


def check_finite(
    manifest: Manifest, before: Sequence[bytes], after: Mapping[str, bytes], *, out: Path, precision: str, threads: int
) -> None:
    """Run blank, saturated and noisy images, as ONNX Runtime optimises the new graphs and as they are written.

    Args:
        manifest: of the artifact in float32.
        before: its graphs.
        after: file name -> graph in the new precision, in order.
        out: where the artifact would have gone.
        precision: its name.
        threads: of ONNX Runtime.

    Raises:
        VerificationError: if a logit is not finite that is so in float32; the graphs are left in ``<out>.failed``.
    """
    channels, height, width = (int(axis) for axis in manifest.input.shape[1:])
    inputs = normalise(hard_images(height, width, channels), manifest.input.preprocess)

    def chain(graphs: Sequence[bytes], *, optimise: bool = True) -> Chain:
        logits = [exit_.logits for exit_ in manifest.exits]
        return Chain(graphs, network_input=manifest.input.name, logits=logits, threads=threads, optimise=optimise)

    old = chain(before)
    wide = [old(inputs), old(nudged(inputs))]
    for optimise in (True, False):
        broken = lost(wide, chain(list(after.values()), optimise=optimise)(inputs))
        if broken:
            exit_, image = broken[0]
            node = first_not_finite(after, manifest.input.name, inputs[image : image + 1])
            folder = set_aside(out, after, ())
            raise VerificationError(
                f"In {precision} the logits of {manifest.exits[exit_].name} are not finite for an image that is "
                f"{KINDS[image]}, which they are in float32."
                + (f" The first that is not finite comes from the {node}." if node else ""),
                allowed="finite logits where those in float32 are",
                next_step=f"see {folder}; keep float32, or give the network a larger epsilon where it divides, such as "
                "1e-3, and train again",
            )
