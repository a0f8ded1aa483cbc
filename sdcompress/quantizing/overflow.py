"""Check that float16 holds every tensor of a network, which a run on a CPU does not show."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from sdcompress.data.samples import Samples
from sdcompress.errors import VerificationError
from sdcompress.modalities import modality_of
from sdcompress.onnx_graph.partition import serialize
from sdcompress.progress import Progress
from sdcompress.quantizing.abs_max import abs_max_name, with_abs_max
from sdcompress.quantizing.calibration_data import BATCH
from sdcompress.quantizing.fills import clip_fills
from sdcompress.quantizing.float_cast import low_precision_tensors
from sdcompress.schema.manifest import Manifest
from sdcompress.verification.sessions import SegmentSessions

__all__ = ["check_overflow"]

_LARGEST = float(np.finfo(np.float16).max)


def check_overflow(
    manifest: Manifest,
    before: Mapping[str, onnx.ModelProto],
    after: Mapping[str, onnx.ModelProto],
    samples: Samples,
    *,
    threads: int,
    progress: Progress | None = None,
) -> None:
    """Measure in the float32 graphs every tensor that is float16 in the new ones.

    ONNX Runtime has few float16 kernels for CPUs: it removes casts where it can and computes in float32, which does not
    overflow. A GPU would compute infinities from the same file. Infinities of float32, such as masks, are allowed.
    Values inside a node (sums, the scores of Attention) are not measured.

    Args:
        manifest: of the artifact in float32.
        before: its graphs without signals, by file, in order.
        after: the same in the new precision; if none has float16, nothing runs.
        samples: the validation split.
        threads: of ONNX Runtime.
        progress: called with (samples run, all samples).

    Raises:
        VerificationError: if float16 cannot hold one of them.
    """
    # the output of a DequantizeLinear is no larger than the tensor that was quantised, which is among these
    names = {
        file: low_precision_tensors(model, TensorProto.FLOAT16) & _tensors(before[file])
        for file, model in after.items()
    }
    if not any(names.values()):
        return
    graphs = [serialize(with_abs_max(clip_fills(before[file]), names[file])) for file in before]
    sessions = SegmentSessions(graphs, outputs=(), threads=threads)
    largest: dict[str, float] = {}
    modality = modality_of(manifest)
    # small batches: ONNX Runtime keeps every measured tensor of a batch
    for start in range(0, len(samples), BATCH):
        rows = np.arange(start, min(start + BATCH, len(samples)))
        tensors = sessions.run(modality.collate(samples.examples(rows)))
        for name in sorted(set().union(*names.values())):
            largest[name] = max(largest.get(name, 0.0), float(tensors[abs_max_name(name)]))
        if progress is not None:
            progress(int(rows[-1]) + 1, len(samples))
    worst = max(largest, key=lambda name: largest[name])
    if largest[worst] > _LARGEST:
        raise VerificationError(
            f"'{worst}' reaches {largest[worst]:.3g} on {len(samples)} validation samples: in float16 that is "
            "infinite, although a processor that computes it in float32 does not show it.",
            allowed=f"at most {_LARGEST:.0f} in every tensor",
            next_step="--precision int8, unless it was refused too: then keep float32, or train again with "
            "normalisation before that tensor",
        )


def _tensors(model: onnx.ModelProto) -> frozenset[str]:
    outputs = (name for node in model.graph.node for name in node.output)
    return frozenset((*outputs, *(value.name for value in model.graph.input)))
