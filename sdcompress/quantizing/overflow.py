"""Whether float16 holds what a network computes, which running it on a CPU does not tell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from sdcompress.data.samples import Samples
from sdcompress.errors import VerificationError
from sdcompress.modalities._geometry import normalise
from sdcompress.onnx_graph.partition import serialize
from sdcompress.progress import Progress
from sdcompress.quantizing.abs_max import largest_name, with_largest
from sdcompress.quantizing.calibration_data import BATCH
from sdcompress.quantizing.fills import within_float16
from sdcompress.quantizing.float_cast import narrowed
from sdcompress.schema.manifest import Manifest
from sdcompress.verification.sessions import Chain

__all__ = ["check_overflow"]

_LARGEST = float(np.finfo(np.float16).max)


def check_overflow(
    manifest: Manifest,
    plain: Mapping[str, onnx.ModelProto],
    made: Mapping[str, onnx.ModelProto],
    samples: Samples,
    *,
    threads: int,
    progress: Progress | None = None,
) -> None:
    """Run the float32 graphs and look at the size of every tensor that is float16 in the new ones.

    ONNX Runtime has few float16 kernels for CPUs: where it can, it takes casts away and computes in float32, which
    does not overflow. A GPU would give infinities for the same file. What is infinite in float32 already, as a mask may
    be, float16 holds as well. What is inside a node (sums, the scores of Attention) is not seen.

    Args:
        manifest: of the artifact in float32.
        plain: its graphs without signals, by file, in order.
        made: the same in the new precision; of one that has no float16 nothing is run.
        samples: the validation split.
        threads: of ONNX Runtime.
        progress: called with (images run, all images).

    Raises:
        VerificationError: if float16 could not hold one of them.
    """
    # what a DequantizeLinear gives is no larger than what was rounded, which is among these
    names = {file: narrowed(model, TensorProto.FLOAT16) & _tensors(plain[file]) for file, model in made.items()}
    if not any(names.values()):
        return
    graphs = [serialize(with_largest(within_float16(plain[file]), names[file])) for file in plain]
    chain = Chain(graphs, network_input=manifest.input.name, logits=(), threads=threads)
    largest: dict[str, float] = {}
    # every tensor of a batch is held at once: ONNX Runtime frees none whose largest value is asked for
    for start in range(0, len(samples), BATCH):
        rows = np.arange(start, min(start + BATCH, len(samples)))
        tensors = chain.run(normalise(samples.images(rows), manifest.input.preprocess))
        for name in sorted(set().union(*names.values())):
            largest[name] = max(largest.get(name, 0.0), float(tensors[largest_name(name)]))
        if progress is not None:
            progress(int(rows[-1]) + 1, len(samples))
    worst = max(largest, key=lambda name: largest[name])
    if largest[worst] > _LARGEST:
        raise VerificationError(
            f"'{worst}' reaches {largest[worst]:.3g} on {len(samples)} validation images: in float16 that is infinite, "
            "although a processor that computes it in float32 does not show it.",
            allowed=f"at most {_LARGEST:.0f} in every tensor",
            next_step="--precision int8, unless it was refused too: then keep float32, or train again with "
            "normalisation before that tensor",
        )


def _tensors(model: onnx.ModelProto) -> frozenset[str]:
    made = (name for node in model.graph.node for name in node.output)
    return frozenset((*made, *(value.name for value in model.graph.input)))
