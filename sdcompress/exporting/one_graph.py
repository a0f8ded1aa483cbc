"""Merge a calibrated cascade into one graph that exits early by itself; needs no torch and no checkpoint."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from sdcompress.artifact.read import Artifact
from sdcompress.artifact.write import entry, rewrite, staged
from sdcompress.calibration.stage_timing import interleaved_ms
from sdcompress.data.samples import Indices, Samples, row_batches
from sdcompress.errors import ParityError, SdcompressError, UsageError
from sdcompress.evaluation.trained_model import TrainedModel, open_trained_model
from sdcompress.modalities import Inputs
from sdcompress.onnx_graph.describe import describe
from sdcompress.onnx_graph.merge import merge
from sdcompress.onnx_graph.partition import serialize, tensor_specs
from sdcompress.options import EngineOptions, Options
from sdcompress.policies._base import SIGNALS_ATOL
from sdcompress.progress import Progress, subprogress
from sdcompress.runtime.backends.onnxruntime import ORT_ERRORS, load
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.one_graph import OneGraphEngine
from sdcompress.runtime.open import open_cascade
from sdcompress.schema.manifest import Manifest, OneGraph, Segment
from sdcompress.verification import parity
from sdcompress.verification.gate import save_failed
from sdcompress.verification.latency_check import TimedGraphs, check_faster, time_paths
from sdcompress.verification.one_graph_parity import OneGraphParity, compare_one_graph, graph_batches, one_graph_session

__all__ = ["ONE_GRAPH_FILE", "Host", "Kind", "export_one_graph"]

ONE_GRAPH_FILE = "model.onnx"
Kind = Literal["graph", "if"]

_SAMPLES = 256
_LARGEST_BATCH = 32


@dataclass(frozen=True)
class Host:
    """The machine that the times are measured on.

    Attributes:
        cpu: its processor.
        busy_cores: cores that other processes use.
    """

    cpu: str
    busy_cores: float | None


def export_one_graph(
    source: TrainedModel | Path | str,
    out: Path | str,
    options: Options | None = None,
    *,
    kind: Kind,
    host: Host,
    overwrite: bool = False,
) -> Manifest:
    """Write a copy of a calibrated cascade with ``model.onnx``, compared with the segments and timed on real samples.

    In lower precisions a certificate of the segments allows the graph in their place only if all samples that certified
    were compared. So there the whole validation split is, one sample at a time.

    Args:
        source: a cascade with a policy.
        out: folder of the new artifact.
        options: where the data lies; where it is not, the golden examples must do. Progress in parts of the validation
            split that are compared, and exits that are timed.
        kind: graph or if, see ``OneGraph``.
        host: this machine, for the record.
        overwrite: replace an existing artifact.

    Raises:
        UsageError: if the artifact is no cascade with reachable thresholds, or its policy cannot be traced.
        ArtifactError, CertificateError: if it is not intact, or its certificate does not cover its thresholds.
        ParityError: if the graph differs from the segments; it is saved in ``<out>.failed``.
        VerificationError: if exiting early is not faster.
        OutputExistsError, StorageError: if ``out`` cannot be written.
    """
    options = options or Options()
    trained = open_trained_model(source, options)
    opened = trained.artifact()
    thresholds = _thresholds(opened)
    with staged(out, overwrite=overwrite) as folder:
        segments = [onnx.load(opened.file(segment)) for segment in opened.manifest.segments]
        model = merge(opened.manifest, segments, thresholds, batch_of_one=kind == "if")
        names = [exit_.name for exit_ in opened.manifest.exits]
        describe(model, task=opened.task, modality=opened.modality, exits=names)
        engine = open_cascade(opened, EngineOptions(threads=1))
        validation = _validation_split(trained)
        inputs = _inputs(opened, validation)
        whole = validation if _certified_in_low_precision(opened.manifest) else None
        parts = [] if whole is None else list(row_batches(len(whole), _LARGEST_BATCH))
        steps = len(parts) + len(names)
        further = () if whole is None else _collated(opened, whole, parts, options.progress, steps)
        comparison = _check_parity(opened, engine, serialize(model), inputs, further, kind=kind, out=Path(out))
        never_exiting = [None if threshold is None else math.inf for threshold in thresholds]
        variants = [
            merge(opened.manifest, segments, rule, batch_of_one=kind == "if")
            for rule in (never_exiting, [None] * len(never_exiting))
        ]
        sessions = [one_graph_session(serialize(graph)) for graph in (model, *variants)]
        graphs = TimedGraphs(*(session.run for session in sessions))
        progress = subprogress(options.progress, len(parts), steps)
        times = time_paths(graphs, inputs, comparison.exit_index, names, progress=progress)
        check_faster(times)
        file = folder / ONE_GRAPH_FILE
        file.write_bytes(serialize(model))
        listed = Segment(
            **entry(folder, ONE_GRAPH_FILE).model_dump(),
            inputs=tensor_specs(model.graph.input),
            outputs=tensor_specs(model.graph.output),
            macs=sum(segment.macs for segment in opened.manifest.segments),
            parameters=sum(segment.parameters for segment in opened.manifest.segments),
            precision=opened.manifest.segments[0].precision,
        )
        # both as they are called in service, with the same checks of inputs
        graph = OneGraphEngine(opened.manifest, kind, load(file, listed, threads=1, device="cpu"), opened.modality)
        mean_ms, segments_ms = interleaved_ms([graph, engine], inputs)
        one_graph = OneGraph(
            **listed.model_dump(),
            kind=kind,
            samples=len(inputs) if whole is None else len(opened.golden().examples) + len(whole),
            batches=graph_batches(kind, _LARGEST_BATCH),
            whole_validation_split=whole is not None,
            max_abs_diff=comparison.max_abs_diff,
            near_threshold=comparison.near_threshold,
            machine=host.cpu,
            busy_cores=host.busy_cores,
            times=times,
            mean_ms=float(mean_ms),
            segments_ms=float(segments_ms),
        )
        return rewrite(opened, folder, one_graph=one_graph)


def _thresholds(opened: Artifact) -> tuple[float | None, ...]:
    """The thresholds of all exits but the last; None where no sample can exit."""
    manifest, policy = opened.manifest, opened.manifest.policy
    if manifest.layout != "cascade" or policy is None:
        raise UsageError(
            f"'{opened.path}' has the layout '{manifest.layout}' and {'a' if policy else 'no'} policy.",
            allowed="a calibrated cascade",
            next_step=f"sdcompress calibrate {shlex.quote(str(opened.path))} --out FOLDER, then export that folder"
            if manifest.layout == "cascade"
            else "sdcompress export CHECKPOINT --layout cascade, calibrate that and export it",
        )
    thresholds = tuple(threshold if threshold <= 1 else None for threshold in policy.thresholds)
    if all(threshold is None for threshold in thresholds):
        raise UsageError(
            f"By the policy of '{opened.path}' no sample exits early.",
            allowed="at least one threshold that a score can reach",
            next_step="export the network itself (--layout single), or calibrate with a larger --max-drop",
        )
    return thresholds


def _validation_split(trained: TrainedModel) -> Samples | None:
    """Return the validation split, or None: artifacts often travel without their data."""
    try:
        return trained.dataset().val
    except SdcompressError:
        if trained.options.data_dir is not None:
            raise
        return None


def _certified_in_low_precision(manifest: Manifest) -> bool:
    certificate = manifest.certificate
    # other samples than those of the split certify where they are the user's own
    return certificate is not None and certificate.external is None and manifest.precisions != ("fp32",)


def _inputs(opened: Artifact, validation: Samples | None) -> Inputs:
    """Return the golden examples and 256 of the validation split, as inputs."""
    examples = [opened.golden().examples]
    if validation is not None:
        count = len(validation)
        chosen = np.unique(np.linspace(0, count - 1, min(_SAMPLES, count)).round().astype(np.int64))
        examples.append(validation.examples(chosen))
    return opened.modality.collate(np.concatenate(examples))


def _collated(
    opened: Artifact, samples: Samples, parts: Sequence[Indices], progress: Progress | None, steps: int
) -> Iterator[Inputs]:
    """Yield the inputs of samples in parts; each part that was taken is a step of the progress."""
    for part, rows in enumerate(parts, 1):
        yield opened.modality.collate(samples.examples(rows))
        if progress is not None:
            progress(part, steps)


def _check_parity(
    opened: Artifact,
    engine: Engine,
    graph: bytes,
    inputs: Inputs,
    further: Iterable[Inputs],
    *,
    kind: Kind,
    out: Path,
) -> OneGraphParity:
    findings: Sequence[parity.Finding]
    allowed = [record.tolerance for record in opened.manifest.parity]
    try:
        run, batches = one_graph_session(graph).run, graph_batches(kind, _LARGEST_BATCH)
        comparison = compare_one_graph(run, engine, inputs, batches=batches, allowed=allowed, further=further)
        findings, problem = comparison.findings, parity.describe_failures(comparison.findings)
    except ORT_ERRORS as error:
        findings, problem = (), f"ONNX Runtime refuses it: {str(error).splitlines()[0][:200]}"
    if problem:
        folder = save_failed(out, {ONE_GRAPH_FILE: graph}, findings)
        raise ParityError(
            f"The one graph of '{opened.path}' does not predict what its segments predict. {problem}.",
            allowed="the same exit and decision for every sample, unless its score is within a rounding of "
            f"{SIGNALS_ATOL:g} of a threshold, and outputs within the tolerance of the export",
            next_step=f"see {folder / 'parity.json'}; use the cascade instead, and report it",
        )
    return comparison
