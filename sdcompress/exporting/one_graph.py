"""From a calibrated cascade to an artifact with one graph that exits by itself; needs no torch and no checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from sdcompress.artifact.read import Artifact
from sdcompress.artifact.write import entry, rewrite, staged
from sdcompress.errors import ParityError, SdcompressError, UsageError
from sdcompress.evaluation.trained_model import TrainedModel, open_trained_model
from sdcompress.modalities._geometry import normalise
from sdcompress.onnx_graph.describe import describe
from sdcompress.onnx_graph.merge import merge
from sdcompress.onnx_graph.partition import ports, serialize
from sdcompress.options import Options
from sdcompress.policies._base import SIGNALS_ATOL, Float
from sdcompress.runtime.open import open_engine
from sdcompress.schema.manifest import Manifest, OneGraph
from sdcompress.verification import parity
from sdcompress.verification.gate import set_aside
from sdcompress.verification.latency_check import TimedGraphs, check_faster, time_paths
from sdcompress.verification.one_graph_parity import Agreement, agreement, graph_batches, runner
from sdcompress.verification.sessions import FAILURES

__all__ = ["FILE", "Host", "Kind", "export_one_graph"]

FILE = "model.onnx"
Kind = Literal["graph", "if"]

_SAMPLES = 256
_LARGEST_BATCH = 32


@dataclass(frozen=True)
class Host:
    """The machine that the times are measured on.

    Attributes:
        cpu: its processor.
        busy_cores: cores that others keep busy.
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
    """Write a copy of a calibrated cascade that also holds ``model.onnx``, proved and timed on real images.

    Args:
        source: a cascade with a policy.
        out: folder of the new artifact.
        options: where the data lies; where it is not, the golden images must do. Progress in exits that are timed.
        kind: graph or if, see ``OneGraph``.
        host: this machine, for the record.
        overwrite: replace an artifact that is there.

    Raises:
        UsageError: if the artifact is no cascade with thresholds that fire, or its policy cannot be put into a graph.
        ArtifactError, CertificateError: if it is not intact, or its certificate does not cover its thresholds.
        ParityError: if the graph does not answer as the segments do; it is left in ``<out>.failed``.
        VerificationError: if leaving early is not faster.
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
        describe(model, classes=opened.manifest.classes, exits=names, preprocess=opened.manifest.input.preprocess)
        inputs = _inputs(opened, trained)
        found = _prove(opened, serialize(model), inputs, kind, Path(out))
        endless = [None if threshold is None else math.inf for threshold in thresholds]
        others = [
            merge(opened.manifest, segments, rule, batch_of_one=kind == "if")
            for rule in (endless, [None] * len(endless))
        ]
        graphs = TimedGraphs(*(runner(serialize(graph), opened.manifest).run for graph in (model, *others)))
        times = time_paths(graphs, inputs, found.left, names, progress=options.progress)
        check_faster(times)
        (folder / FILE).write_bytes(serialize(model))
        made = OneGraph(
            **entry(folder, FILE).model_dump(),
            inputs=ports(model.graph.input),
            outputs=ports(model.graph.output),
            macs=sum(segment.macs for segment in opened.manifest.segments),
            parameters=sum(segment.parameters for segment in opened.manifest.segments),
            kind=kind,
            samples=len(inputs),
            batches=graph_batches(kind, _LARGEST_BATCH),
            max_abs=found.max_abs,
            undecided=found.undecided,
            machine=host.cpu,
            busy_cores=host.busy_cores,
            times=times,
        )
        return rewrite(opened, folder, one_graph=made)


def _thresholds(opened: Artifact) -> tuple[float | None, ...]:
    """Of every exit but the last; None where nobody can leave."""
    manifest, policy = opened.manifest, opened.manifest.policy
    if manifest.layout != "cascade" or policy is None:
        raise UsageError(
            f"'{opened.path}' has the layout '{manifest.layout}' and {'a' if policy else 'no'} policy.",
            allowed="a calibrated cascade",
            next_step=f"sdcompress calibrate {opened.path} --out FOLDER, then export that folder"
            if manifest.layout == "cascade"
            else "sdcompress export CHECKPOINT --layout cascade, calibrate that and export it",
        )
    thresholds = tuple(threshold if threshold <= 1 else None for threshold in policy.thresholds)
    if all(threshold is None for threshold in thresholds):
        raise UsageError(
            f"By the policy of '{opened.path}' nobody leaves before the last exit.",
            allowed="at least one threshold that fires",
            next_step="export the network itself (--layout single), or calibrate with a larger --max-drop",
        )
    return thresholds


def _inputs(opened: Artifact, trained: TrainedModel) -> Float:
    """The golden images and, where the data is at hand, 256 of the validation split; float32 [N, C, H, W]."""
    images = [opened.golden().images]
    try:
        samples = trained.dataset().val
    except SdcompressError:
        if trained.options.data_dir is not None:
            raise
        # an artifact is often far from its data; how many images there were stands in the manifest
    else:
        chosen = np.unique(np.linspace(0, len(samples) - 1, min(_SAMPLES, len(samples))).round().astype(np.int64))
        images.append(samples.images(chosen))
    return normalise(np.concatenate(images), opened.manifest.input.preprocess)


def _prove(opened: Artifact, graph: bytes, inputs: Float, kind: Kind, out: Path) -> Agreement:
    findings: Sequence[parity.Finding]
    allowed = [record.allowed for record in opened.manifest.parity]
    engine = open_engine(opened, threads=1)
    try:
        run = runner(graph, opened.manifest).run
        found = agreement(run, engine, inputs, batches=graph_batches(kind, _LARGEST_BATCH), allowed=allowed)
        findings, problem = found.findings, parity.describe(found.findings)
    except FAILURES as error:
        findings, problem = (), f"ONNX Runtime refuses it: {str(error).splitlines()[0][:200]}"
    if problem:
        folder = set_aside(out, {FILE: graph}, findings)
        raise ParityError(
            f"The one graph of '{opened.path}' does not answer as its segments do. {problem}.",
            allowed="the same exit and answer for every image, unless a rounding of "
            f"{SIGNALS_ATOL:g} decides, and logits within the tolerance of the export",
            next_step=f"see {folder / 'parity.json'}; use the cascade, which needs no such graph, and report it",
        )
    return found
