"""Check a quantised network: finite outputs, the range of float16, and the optimisations of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from sdcompress.data.samples import Samples, row_batches
from sdcompress.errors import VerificationError
from sdcompress.modalities import modality_of
from sdcompress.onnx_graph.partition import serialize
from sdcompress.onnx_graph.tensor_values import first_not_finite
from sdcompress.progress import Progress
from sdcompress.quantizing.calibration_data import BATCH
from sdcompress.quantizing.float16_range import LARGEST, clip_fills
from sdcompress.quantizing.float_cast import low_precision_tensors
from sdcompress.quantizing.ranges import abs_max_name, with_abs_max
from sdcompress.schema.manifest import Manifest
from sdcompress.tasks import task_of
from sdcompress.verification.edge_cases import edge_case_inputs, lost_finite, perturbed
from sdcompress.verification.gate import save_failed
from sdcompress.verification.sessions import SegmentSessions, open_sessions

__all__ = ["OptimisedExit", "check_finite", "check_overflow", "compare_optimised"]


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


def check_overflow(
    manifest: Manifest,
    before: Mapping[str, onnx.ModelProto],
    after: Mapping[str, onnx.ModelProto],
    samples: Samples,
    *,
    threads: int,
    progress: Progress | None,
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
    of_file = {
        file: low_precision_tensors(model, TensorProto.FLOAT16) & _tensors(before[file])
        for file, model in after.items()
    }
    names = sorted(frozenset[str]().union(*of_file.values()))
    if not names:
        return
    graphs = [serialize(with_abs_max(clip_fills(before[file]), of_file[file])) for file in before]
    sessions = SegmentSessions(graphs, outputs=(), threads=threads)
    largest = dict.fromkeys(names, 0.0)
    modality = modality_of(manifest)
    # small batches: ONNX Runtime keeps every measured tensor of a batch
    for rows in row_batches(len(samples), BATCH):
        tensors = sessions.run(modality.collate(samples.examples(rows)))
        for name in names:
            largest[name] = max(largest[name], float(tensors[abs_max_name(name)]))
        if progress is not None:
            progress(int(rows[-1]) + 1, len(samples))
    worst = max(largest, key=lambda name: largest[name])
    if largest[worst] > LARGEST:
        raise VerificationError(
            f"'{worst}' reaches {largest[worst]:.3g} on {len(samples)} validation samples: in float16 that is "
            "infinite, although a processor that computes it in float32 does not show it.",
            allowed=f"at most {LARGEST:.0f} in every tensor",
            next_step="--precision int8, unless it was refused too: then keep float32, or train again with "
            "normalisation before that tensor",
        )


def _tensors(model: onnx.ModelProto) -> frozenset[str]:
    outputs = (name for node in model.graph.node for name in node.output)
    return frozenset((*outputs, *(value.name for value in model.graph.input)))


_SAMPLES, _BATCH = 256, 64
# With and without optimisations a network is about equally far from float32: within 15 % on 14 networks. With an
# average pool that divided by the wrong number it was 37 times as far.
_FACTOR = 1.5


@dataclass(frozen=True)
class OptimisedExit:
    """One exit in the new precision, with and without onnxruntime's optimisations.

    Attributes:
        exit: its name.
        samples: of the validation split.
        written: root mean square distance of its outputs to those in float32, without optimisations.
        optimised: the same with optimisations.
        allowed: limit of ``optimised``.
        problem: what is wrong, as a sentence; empty if the exit passed.
    """

    exit: str
    samples: int
    written: float
    optimised: float
    allowed: float
    problem: str


def compare_optimised(
    manifest: Manifest, before: Sequence[bytes], after: Sequence[bytes], samples: Samples, *, threads: int
) -> tuple[OptimisedExit, ...]:
    """Compare the new graphs with optimisations against the same graphs without.

    Args:
        manifest: of the artifact in float32.
        before: its graphs.
        after: the graphs in the new precision.
        samples: the validation split, of which 256 evenly spaced samples are run.
        threads: of ONNX Runtime.
    """
    float32, optimised, written = (
        open_sessions(manifest, graphs, threads=threads, optimise=optimise)
        for graphs, optimise in ((before, True), (after, True), (after, False))
    )
    chosen = np.linspace(0, len(samples) - 1, min(_SAMPLES, len(samples))).round().astype(np.int64)
    modality, batch = modality_of(manifest), task_of(manifest).batch_size(_BATCH, 3 * len(manifest.exits))
    squares = np.zeros((2, len(manifest.exits)))
    count = 0
    for start in range(0, len(chosen), batch):
        inputs = modality.collate(samples.examples(chosen[start : start + batch]))
        reference = float32(inputs).astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity minus infinity, which check_finite reports
            squares += [
                np.square(run(inputs) - reference).reshape(len(reference), -1).sum(axis=1)
                for run in (written, optimised)
            ]
        count += reference[0].size
    distances = np.sqrt(squares / count)
    return tuple(
        _exit(record.exit, len(chosen), *map(float, distances[:, row]), tolerance=record.tolerance)
        for row, record in enumerate(manifest.parity)
    )


def _exit(name: str, samples: int, written: float, optimised: float, *, tolerance: float) -> OptimisedExit:
    allowed = _FACTOR * written + tolerance
    problem = ""
    # both not finite: the comparison of quality says so
    if optimised > allowed or (np.isfinite(optimised) and not np.isfinite(written)):
        problem = (
            f"outputs are {optimised:.3g} off those of float32 as onnxruntime {onnxruntime.__version__} optimises the "
            f"graphs, and {written:.3g} as they are written"
        )
    return OptimisedExit(name, samples, written, optimised, allowed, problem)
