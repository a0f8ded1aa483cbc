"""Rewrite an artifact in float32 to a lower precision, and check it on the validation split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import cast, get_args

import onnx
import onnxruntime

from sdcompress import registry
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.artifact.write import derived_provenance, entry, rewrite, staged
from sdcompress.calibration.calibrate import uncalibrated
from sdcompress.data.samples import Samples
from sdcompress.errors import SetupError, UnknownNameError, UsageError, VerificationError
from sdcompress.evaluation.comparison import ExitQuality, check_drop
from sdcompress.onnx_graph.describe import describe
from sdcompress.onnx_graph.macs import parameters
from sdcompress.onnx_graph.partition import serialize, tensor_specs
from sdcompress.progress import Progress
from sdcompress.quantizing.calibration_data import CalibrationData
from sdcompress.quantizing.checks import OptimisedExit, check_finite, check_overflow, compare_optimised
from sdcompress.quantizing.precisions._base import FloatSegment, Rewriter
from sdcompress.quantizing.quality import ExitLoss, compare_exits, golden_records
from sdcompress.quantizing.segments import (
    count_products,
    load_segment,
    output_layers,
    with_signals,
    without_signals,
)
from sdcompress.quantizing.speed import speed_beside
from sdcompress.runtime.backends.onnxruntime import ORT_ERRORS
from sdcompress.schema import graphs as schema
from sdcompress.schema.change import Quantized
from sdcompress.schema.graphs import Segment
from sdcompress.schema.manifest import Manifest, ParityRecord
from sdcompress.tasks import task_of
from sdcompress.verification.gate import save_failed
from sdcompress.verification.verify import verify

__all__ = ["ROOM", "precision_of", "quantize", "runnable"]

ROOM = "sdcompress.quantizing.precisions"


def quantize(
    artifact: Artifact | Path | str,
    out: Path | str,
    *,
    precision: str,
    training: Samples,
    validation: Samples,
    max_drop: float = 0.01,
    samples: int | None = None,
    timed: bool = False,
    threads: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Quantized:
    """Write an artifact in another precision; ``sdcompress.quantize`` also finds the data.

    Args:
        artifact: in fp32.
        out: folder of the new artifact.
        precision: of 'sdcompress list precisions'.
        training: images that ranges of activations may be measured on.
        validation: held-out images that the loss of accuracy is measured on.
        max_drop: accuracy that every exit may lose on them, 0.01 = one point.
        samples: training images to measure ranges on; default: 512, or all where there are fewer.
        timed: also time it beside ``artifact``, in turns.
        threads: of ONNX Runtime.
        overwrite: replace an artifact that is there.
        progress: called with (images run, all images): calibration, segment by segment, then validation, which runs
            twice for fp16 and fp8.

    Raises:
        UnknownNameError: if there is no such precision.
        UsageError: if the artifact is not in fp32 or holds operators that are not ONNX's, ``max_drop`` or ``samples``
            is out of range, or ``samples`` is given to a precision that needs none.
        DataError: if there are fewer training images than ``samples``.
        SetupError: if ONNX Runtime cannot run this precision here, so that it cannot be measured.
        VerificationError: if an exit loses more than ``max_drop``, onnxruntime's optimisations change the result, or an
            edge case gets logits that are not finite; the graphs are saved in ``<out>.failed``. Also if a tensor
            overflows float16 in fp16 or fp8.
        ParityError: if the written artifact does not repeat the measured logits, or its rows depend on each other.
        OutputExistsError, StorageError: if ``out`` cannot be written.
    """
    check_drop(max_drop)
    rewrite_segment = precision_of(precision)
    opened = open_artifact(artifact)
    manifest = opened.manifest
    float32 = {segment.file: load_segment(opened, segment) for segment in manifest.segments}
    before = [opened.file(segment).read_bytes() for segment in manifest.segments]
    with staged(out, overwrite=overwrite) as folder:
        calibration = CalibrationData(manifest, before, training, count=samples, threads=threads, progress=progress)
        bare_models, models = _models(manifest, float32, rewrite_segment, calibration)
        products = _products(models, precision, opened)
        _check_samples(samples, calibration, precision)
        _describe_all(models, opened)
        graphs = {name: serialize(model) for name, model in models.items()}
        with runnable(precision):
            after = list(graphs.values())
            qualities = compare_exits(manifest, before, after, validation, threads=threads, progress=progress)
            optimised = compare_optimised(manifest, before, after, validation, threads=threads)
        _check_optimised(optimised, out=Path(out), graphs=graphs, precision=precision)
        check_overflow(manifest, bare_models, models, validation, threads=threads, progress=progress)
        _check_quality(
            qualities, max_drop, out=Path(out), graphs=graphs, precision=precision, ranged=calibration.used > 0
        )
        check_finite(manifest, before, graphs, out=Path(out), precision=precision, threads=threads)
        with runnable(precision):
            records = golden_records(manifest, after, opened.golden(), threads=threads)
        new = _write(opened, folder, models, graphs, qualities=qualities, records=records, precision=precision)
        written = open_artifact(folder)
        verify(written, threads=threads)
        # without its policy, which may be one that cannot run here: both are timed to the last exit
        speed = speed_beside(uncalibrated(opened), written, validation, threads=threads) if timed else None
    return Quantized(
        source=str(opened.path),
        artifact=str(out),
        digest=new.digest,
        precision=new.segments[0].precision,
        max_drop=max_drop,
        samples=len(validation),
        calibration_samples=calibration.used,
        exits=tuple(quality.change for quality in qualities),
        bytes_before=sum(map(len, before)),
        bytes_after=sum(map(len, graphs.values())),
        low_precision_ops=products[0],
        high_precision_ops=products[1],
        dropped=_dropped(manifest),
        speed=speed,
    )


def _describe_all(models: Mapping[str, onnx.ModelProto], opened: Artifact) -> None:
    for index, model in enumerate(models.values()):
        exits = [exit_.name for exit_ in opened.manifest.exits if exit_.segment == index]
        describe(model, task=opened.task, modality=opened.modality, exits=exits)


def precision_of(name: str) -> Rewriter:
    """Return the precision of that name.

    Raises:
        UnknownNameError: with the nearest.
        UsageError: if no manifest could name it.
    """
    known = registry.names(ROOM)
    if name not in known:
        raise UnknownNameError("precisions", name, known)
    if name not in get_args(schema.Precision):
        raise UsageError(
            f"No manifest can say that a segment is in '{name}'.",
            allowed=", ".join(get_args(schema.Precision)),
            next_step="add it to Precision in sdcompress/schema/graphs.py: docs/adding/precision.md",
        )
    precision: Rewriter = registry.load(ROOM, name, extra="quantize")
    return precision


def _models(
    manifest: Manifest,
    float32: Mapping[str, onnx.ModelProto],
    precision: Rewriter,
    calibration: CalibrationData,
) -> tuple[dict[str, onnx.ModelProto], dict[str, onnx.ModelProto]]:
    """All segments by file name: in float32 without signals, and in the new precision."""
    bare_models, models = {}, {}
    for position, (name, model) in enumerate(float32.items()):
        exits = [exit_ for exit_ in manifest.exits if exit_.segment == position]
        signals = [(exit_.name, exit_.outputs, exit_.signals) for exit_ in exits if exit_.signals]
        bare_models[name] = bare = without_signals(model, [names for *_, names in signals])
        logits = [exit_.outputs for exit_ in exits]
        segment = FloatSegment(
            bare, output_layers(bare, logits), partial(calibration.feeds, position), calibration.threads
        )
        models[name] = with_signals(
            precision(segment), model, signals, task_of(manifest), batch=str(manifest.inputs[0].shape[0])
        )
    return bare_models, models


def _check_samples(samples: int | None, calibration: CalibrationData, precision: str) -> None:
    if samples is not None and not calibration.used:
        raise UsageError(
            f"{samples} training samples are asked for, and {precision} takes no ranges from samples.",
            allowed="--calibration-samples with a precision that needs it, as int8, uint8 and fp8 do",
            next_step="leave --calibration-samples out",
        )


def _products(models: Mapping[str, onnx.ModelProto], precision: str, opened: Artifact) -> tuple[int, int]:
    counts = [count_products(model, precision) for model in models.values()]
    low, high = (sum(column) for column in zip(*counts, strict=True))
    if not low:
        raise UsageError(
            f"Nothing in '{opened.path}' can be computed in {precision}: all of its {high} convolutions and products "
            "stay wider.",
            allowed="a graph with convolutions or products of stored weights that do not make the outputs themselves; "
            "for fp8 of 32 channels or more, in steps of 16",
            next_step="run it as it is, or choose another precision: sdcompress list precisions",
        )
    return low, high


@contextmanager
def runnable(precision: str) -> Iterator[None]:
    """Raise a SetupError for a precision that ONNX Runtime cannot run within the block.

    Args:
        precision: its name.
    """
    try:
        yield
    except ORT_ERRORS as error:
        raise SetupError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run {precision} here: {str(error).splitlines()[0][:200]}",
            allowed="a precision that it has kernels for: what cannot be measured is not written",
            next_step="--precision fp16, which runs everywhere and which GPUs run as fast as bf16; or int8 for CPUs",
        ) from error


def _check_optimised(exits: Sequence[OptimisedExit], *, out: Path, graphs: Mapping[str, bytes], precision: str) -> None:
    """Refuse graphs whose result onnxruntime's optimisations change, and save them in ``<out>.failed``."""
    problems = [f"{exit_.exit}: {exit_.problem}" for exit_ in exits if exit_.problem]
    if not problems:
        return
    folder = save_failed(out, graphs, exits)
    raise VerificationError(
        f"In {precision} onnxruntime computes something else than the graphs say, on {exits[0].samples} validation "
        f"samples. {'; '.join(problems)}.",
        allowed="with its optimisations at most 1.5 times as far from float32 as without them",
        next_step=f"see {folder / 'parity.json'}; take --precision fp16, or another version of onnxruntime: one of its "
        "kernels is wrong for an operator of this network",
    )


def _check_quality(
    qualities: Sequence[ExitQuality],
    max_drop: float,
    *,
    out: Path,
    graphs: Mapping[str, bytes],
    precision: str,
    ranged: bool,
) -> None:
    """Refuse graphs if an exit loses too much accuracy, and save them in ``<out>.failed``.

    Args:
        qualities: the measured quality of each exit.
        max_drop: the allowed loss.
        out: folder of the artifact that is being written.
        graphs: by file name.
        precision: its name.
        ranged: whether ranges were measured on images; then more images, or a precision without ranges, may help.
    """
    losses = [_exit_loss(quality, max_drop) for quality in qualities]
    if not any(loss.problem for loss in losses):
        return
    folder = save_failed(out, graphs, losses)
    changes = "; ".join(f"{loss.exit}: {_change_text(q)}" for q, loss in zip(qualities, losses, strict=True))
    raise VerificationError(
        f"In {precision} an exit loses too much on {qualities[0].samples} validation samples. {changes}.",
        allowed=f"finite outputs, and at most {max_drop:.2%} of the metric lost at every exit",
        next_step=f"see {folder / 'parity.json'}; "
        f"{'try --precision fp16, or more --calibration-samples; ' if ranged else ''}"
        "keep float32, or allow it with --max-drop. Each try overfits these samples a little more, and a certificate "
        "needs them",
    )


def _exit_loss(quality: ExitQuality, max_drop: float) -> ExitLoss:
    return ExitLoss(
        exit=quality.change.name,
        samples=quality.samples,
        metric_before=quality.change.metric_before,
        metric_after=quality.change.metric_after,
        max_drop=max_drop,
        decision_changes=quality.change.decision_changes,
        max_abs_diff=quality.change.max_abs_diff if quality.finite else None,
        worst=quality.largest_differences,
        problem=_change_text(quality) if quality.loses_more_than(max_drop) or not quality.finite else "",
    )


def _change_text(quality: ExitQuality) -> str:
    change = quality.change
    broken = "" if quality.finite else ", outputs are not finite"
    lost = quality.added_loss / quality.samples
    return (
        f"{change.metric_before:.2%} before, {change.metric_after:.2%} after ({lost:+.2%} lost, "
        f"other decisions: {change.changes_text}{broken})"
    )


def _write(
    opened: Artifact,
    folder: Path,
    models: Mapping[str, onnx.ModelProto],
    graphs: Mapping[str, bytes],
    *,
    qualities: Sequence[ExitQuality],
    records: tuple[ParityRecord, ...],
    precision: str,
) -> Manifest:
    """Write the artifact, without policy, certificate, one graph, engines and times of the old graphs."""
    segments = []
    for before, (name, model) in zip(opened.manifest.segments, models.items(), strict=True):
        (folder / name).write_bytes(graphs[name])
        listed = Segment(
            **entry(folder, name).model_dump(),
            inputs=tensor_specs(model.graph.input),
            outputs=tensor_specs(model.graph.output),
            precision=cast("schema.Precision", precision),
            macs=before.macs,  # the products are the same, but the rewritten graph lacks some of their shapes
            parameters=parameters(model),
        )
        segments.append(listed)
    metric = opened.task.metric
    exits = tuple(
        exit_.model_copy(
            update={"temperature": 1.0, "metrics": {metric: quality.change.metric_after, **quality.further}},
        )
        for exit_, quality in zip(opened.manifest.exits, qualities, strict=True)
    )
    versions = {package: version(package) for package in ("sdcompress", "onnx", "onnxruntime")}
    provenance = derived_provenance(opened.manifest)
    provenance = provenance.model_copy(update={"versions": provenance.versions | versions})
    dropped = {"policy": None, "certificate": None, "one_graph": None, "engines": (), "backend_times": ()}
    return rewrite(
        opened, folder, segments=tuple(segments), exits=exits, parity=records, provenance=provenance, **dropped
    )


def _dropped(manifest: Manifest) -> tuple[str, ...]:
    removed = {
        "policy": manifest.policy,
        "certificate": manifest.certificate,
        "temperatures": any(exit_.temperature != 1 for exit_ in manifest.exits),
        "one graph": manifest.one_graph,
        "engines": manifest.engines,
    }
    return tuple(name for name, present in removed.items() if present)
