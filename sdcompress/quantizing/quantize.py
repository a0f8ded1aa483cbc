"""From an artifact in float32 to one whose graphs hold a lower precision, proved on the validation split."""

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
from sdcompress.data.samples import Samples
from sdcompress.errors import SetupError, UnknownNameError, UsageError, VerificationError
from sdcompress.evaluation.change import Quality, check_drop
from sdcompress.onnx_graph.describe import describe
from sdcompress.onnx_graph.macs import parameters
from sdcompress.onnx_graph.partition import ports, serialize
from sdcompress.progress import Progress
from sdcompress.quantizing.calibration_data import CalibrationData
from sdcompress.quantizing.finite import check_finite
from sdcompress.quantizing.optimised import OptimisedExit, compare_optimised
from sdcompress.quantizing.overflow import check_overflow
from sdcompress.quantizing.precisions._base import FloatSegment, Precision
from sdcompress.quantizing.quality import Loss, compare, golden_records
from sdcompress.quantizing.segments import count_products, load, plain, tail, with_signals
from sdcompress.quantizing.speed import speed_beside
from sdcompress.schema import graphs as schema
from sdcompress.schema.graphs import Segment
from sdcompress.schema.manifest import Manifest, ParityRecord
from sdcompress.schema.quantized import Quantized
from sdcompress.tasks import task_of
from sdcompress.verification.gate import set_aside
from sdcompress.verification.sessions import FAILURES
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
    """Write an artifact in another precision; see ``sdcompress.quantize``, which finds the data by itself.

    Args:
        artifact: in fp32.
        out: folder of the new artifact.
        precision: of 'sdcompress list precisions'.
        training: what ranges of activations may be taken from.
        validation: what decides whether the loss is small enough, held out.
        max_drop: accuracy that every exit may lose on it, 0.01 = one point.
        samples: training images to take ranges from; default: 512, or all where there are fewer.
        timed: also time it beside ``artifact``, in turns.
        threads: of ONNX Runtime.
        overwrite: replace an artifact that is there.
        progress: called with (images run, all images): calibration, segment by segment, then validation,
            which fp16 and fp8 run twice.

    Raises:
        UnknownNameError: if there is no such precision.
        UsageError: if the artifact is not in fp32 or holds operators that are not ONNX's, ``max_drop`` or ``samples``
            is out of range, or ``samples`` is given to a precision that needs none.
        DataError: if there are fewer training images than ``samples``.
        SetupError: if ONNX Runtime cannot run this precision here: what cannot be measured is not written.
        VerificationError: if an exit loses more than that, onnxruntime's optimisations compute something else than
            the graphs say, or a blank or noisy image gets logits that are not finite, and then the graphs are left in
            ``<out>.failed``; or if float16 does not hold what the network computes in fp16 or fp8.
        ParityError: if what was written does not repeat the logits that were measured, or its rows depend on others.
        OutputExistsError, StorageError: if ``out`` cannot be written.
    """
    check_drop(max_drop)
    rewritten = precision_of(precision)
    opened = open_artifact(artifact)
    manifest = opened.manifest
    old = {segment.file: load(opened, segment) for segment in manifest.segments}
    before = [opened.file(segment).read_bytes() for segment in manifest.segments]
    with staged(out, overwrite=overwrite) as folder:
        feeds = CalibrationData(manifest, before, training, count=samples, threads=threads, progress=progress)
        bare, models = _models(manifest, old, rewritten, feeds)
        products = _products(models, precision, opened)
        _check_samples(samples, feeds, precision)
        for index, model in enumerate(models.values()):
            exits = [exit_.name for exit_ in manifest.exits if exit_.segment == index]
            describe(model, classes=manifest.classes, exits=exits, preprocess=manifest.input.preprocess)
        graphs = {name: serialize(model) for name, model in models.items()}
        with runnable(precision):
            found = compare(manifest, before, list(graphs.values()), validation, threads=threads, progress=progress)
            ways = compare_optimised(manifest, before, list(graphs.values()), validation, threads=threads)
        _check_optimised(ways, out=Path(out), graphs=graphs, precision=precision)
        check_overflow(manifest, bare, models, validation, threads=threads, progress=progress)
        _check_quality(found, max_drop, out=Path(out), graphs=graphs, precision=precision, ranged=feeds.used > 0)
        check_finite(manifest, before, graphs, out=Path(out), precision=precision, threads=threads)
        with runnable(precision):
            records = golden_records(manifest, list(graphs.values()), opened.golden(), threads=threads)
        made = _write(opened, folder, models, found=found, records=records, precision=precision)
        written = open_artifact(folder)
        verify(written, threads=threads)
        speed = speed_beside(opened, written, validation, threads=threads) if timed else None
    return Quantized(
        source=str(opened.path),
        artifact=str(out),
        digest=made.digest,
        precision=made.segments[0].precision,
        max_drop=max_drop,
        images=len(validation),
        calibration_images=feeds.used,
        exits=tuple(quality.change for quality in found),
        bytes_before=sum(map(len, before)),
        bytes_after=sum(map(len, graphs.values())),
        narrow=products[0],
        wide=products[1],
        dropped=_dropped(manifest),
        speed=speed,
    )


def precision_of(name: str) -> Precision:
    """The precision of that name.

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
    found: Precision = registry.load(ROOM, name, extra="quantize")
    return found


def _models(
    manifest: Manifest, old: Mapping[str, onnx.ModelProto], rewritten: Precision, feeds: CalibrationData
) -> tuple[dict[str, onnx.ModelProto], dict[str, onnx.ModelProto]]:
    """Every segment by its file: in float32 without signals, and in the new precision."""
    kept, made = {}, {}
    for position, (name, model) in enumerate(old.items()):
        here = [exit_ for exit_ in manifest.exits if exit_.segment == position]
        signals = [(exit_.name, exit_.logits, exit_.signals) for exit_ in here if exit_.signals]
        kept[name] = bare = plain(model, [names for *_, names in signals])
        logits = [exit_.logits for exit_ in here]
        segment = FloatSegment(bare, tail(bare, logits), partial(feeds.of, position), feeds.threads)
        made[name] = with_signals(
            rewritten(segment), model, signals, task_of(manifest), batch=str(manifest.input.shape[0])
        )
    return kept, made


def _check_samples(samples: int | None, feeds: CalibrationData, precision: str) -> None:
    if samples is not None and not feeds.used:
        raise UsageError(
            f"{samples} training images are asked for, and {precision} takes no ranges from images.",
            allowed="--samples with a precision that needs it, as int8, uint8 and fp8 do",
            next_step="leave --samples out",
        )


def _products(models: Mapping[str, onnx.ModelProto], precision: str, opened: Artifact) -> tuple[int, int]:
    counts = [count_products(model, precision) for model in models.values()]
    narrow, wide = (sum(each) for each in zip(*counts, strict=True))
    if not narrow:
        raise UsageError(
            f"Nothing in '{opened.path}' can be computed in {precision}: all of its {wide} convolutions and products "
            "stay wider.",
            allowed="a graph with convolutions or products with stored weights that do not make the logits themselves; "
            "for fp8 of 32 channels or more, in steps of 16",
            next_step="run it as it is, or choose another precision: sdcompress list precisions",
        )
    return narrow, wide


@contextmanager
def runnable(precision: str) -> Iterator[None]:
    """Say what cannot be run here: SetupError.

    Args:
        precision: that is run within the block.
    """
    try:
        yield
    except FAILURES as error:
        raise SetupError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run {precision} here: {str(error).splitlines()[0][:200]}",
            allowed="a precision that it has kernels for: what cannot be measured is not written",
            next_step="--precision fp16, which runs everywhere and which GPUs run as fast as bf16; or int8 for CPUs",
        ) from error


def _check_optimised(found: Sequence[OptimisedExit], *, out: Path, graphs: Mapping[str, bytes], precision: str) -> None:
    """Refuse graphs that onnxruntime does not run as they are written, and leave them in ``<out>.failed``."""
    problems = [f"{exit_.exit}: {exit_.problem}" for exit_ in found if exit_.problem]
    if not problems:
        return
    folder = set_aside(out, graphs, found)
    raise VerificationError(
        f"In {precision} onnxruntime computes something else than the graphs say, on {found[0].samples} validation "
        f"images. {'; '.join(problems)}.",
        allowed="with its optimisations at most 1.5 times as far from float32 as without them",
        next_step=f"see {folder / 'parity.json'}; take --precision fp16, or another version of onnxruntime: one of its "
        "kernels is wrong for an operator of this network",
    )


def _check_quality(
    found: Sequence[Quality], max_drop: float, *, out: Path, graphs: Mapping[str, bytes], precision: str, ranged: bool
) -> None:
    """Refuse a loss that is too large at any exit, and leave what lost in ``<out>.failed``.

    Args:
        found: for each exit what was measured.
        max_drop: what is allowed.
        out: where the artifact would have gone.
        graphs: what lost, by file.
        precision: its name.
        ranged: whether it took ranges from images, so that more images or one without ranges may lose less.
    """
    losses = [_loss(quality, max_drop) for quality in found]
    if not any(loss.problem for loss in losses):
        return
    folder = set_aside(out, graphs, losses)
    said = "; ".join(f"{loss.exit}: {_said(q)}" for q, loss in zip(found, losses, strict=True))
    raise VerificationError(
        f"In {precision} an exit loses too much on {found[0].images} validation images. {said}.",
        allowed=f"finite logits, and at most {max_drop:.2%} of accuracy lost at every exit",
        next_step=f"see {folder / 'parity.json'}; {'try --precision fp16, or more --samples; ' if ranged else ''}"
        "keep float32, or allow it with --max-drop. Each try uses these images up, which are to certify what is kept",
    )


def _loss(quality: Quality, max_drop: float) -> Loss:
    return Loss(
        exit=quality.change.name,
        samples=quality.images,
        accuracy_before=quality.change.accuracy_before,
        accuracy_after=quality.change.accuracy_after,
        max_drop=max_drop,
        changed=quality.change.changed,
        max_abs=quality.change.max_abs if quality.finite else None,
        worst=quality.worst,
        problem=_said(quality) if quality.loses_more_than(max_drop) or not quality.finite else "",
    )


def _said(quality: Quality) -> str:
    change = quality.change
    broken = "" if quality.finite else ", logits are not finite"
    lost = quality.lost / quality.images
    return (
        f"{change.accuracy_before:.2%} before, {change.accuracy_after:.2%} after ({lost:+.2%} lost, {change.changed} "
        f"answers differ{broken})"
    )


def _write(
    opened: Artifact,
    folder: Path,
    models: Mapping[str, onnx.ModelProto],
    *,
    found: Sequence[Quality],
    records: tuple[ParityRecord, ...],
    precision: str,
) -> Manifest:
    """Write the artifact; what was made for the old graphs (policy, certificate, one graph, engines) is left out."""
    segments = []
    for old, (name, model) in zip(opened.manifest.segments, models.items(), strict=True):
        (folder / name).write_bytes(serialize(model))
        listed = Segment(
            **entry(folder, name).model_dump(),
            inputs=ports(model.graph.input),
            outputs=ports(model.graph.output),
            precision=cast("schema.Precision", precision),
            macs=old.macs,  # the same products; the shapes that they were counted by are not all in here any more
            parameters=parameters(model),
        )
        segments.append(listed)
    exits = tuple(
        exit_.model_copy(
            update={"temperature": 1.0, "accuracy": quality.change.accuracy_after, "ece": quality.ece},
        )
        for exit_, quality in zip(opened.manifest.exits, found, strict=True)
    )
    made_by = {package: version(package) for package in ("sdcompress", "onnx", "onnxruntime")}
    provenance = derived_provenance(opened.manifest)
    provenance = provenance.model_copy(update={"versions": provenance.versions | made_by})
    gone = {"policy": None, "certificate": None, "one_graph": None, "engines": ()}
    return rewrite(opened, folder, segments=tuple(segments), exits=exits, parity=records, provenance=provenance, **gone)


def _dropped(manifest: Manifest) -> tuple[str, ...]:
    parts = {
        "policy": manifest.policy,
        "certificate": manifest.certificate,
        "temperatures": any(exit_.temperature != 1 for exit_ in manifest.exits),
        "one graph": manifest.one_graph,
        "engines": manifest.engines,
    }
    return tuple(name for name, there in parts.items() if there)
