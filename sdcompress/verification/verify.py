"""Verify an artifact on the machine that will run it: its files, and its logits on the golden samples. No torch."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np

from sdcompress.artifact.card import card_of
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.artifact.signature import check_signature
from sdcompress.artifact.weight_types import contradiction, stored_weights
from sdcompress.certification.groups import group_name, loss_name
from sdcompress.certification.recompute import verify_certificate
from sdcompress.errors import ArtifactError, ParityError
from sdcompress.modalities import Inputs
from sdcompress.options import EngineOptions
from sdcompress.policies._base import Float
from sdcompress.runtime.backends.onnxruntime import load
from sdcompress.runtime.choose_backend import USUAL, choose_backend
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.open import AUTO, open_cascade
from sdcompress.schema.manifest import Certificate, OneGraph
from sdcompress.schema.report import CertificateVerdict, ExitVerdict, VerifyReport
from sdcompress.tasks import Task, task_of
from sdcompress.verification import parity
from sdcompress.verification.one_graph_parity import compare_one_graph, graph_batches
from sdcompress.verification.proof import claimed, proved

__all__ = ["check_outputs", "verify"]

_OTHER_BACKEND = (
    "run 'sdcompress doctor'; try the backend onnxruntime, in the version that its manifest names if that fails too"
)


def verify(
    artifact: Artifact | Path | str,
    *,
    threads: int = 1,
    backend: str = USUAL,
    device: str = "cpu",
    key: Path | str | None = None,
) -> VerifyReport:
    """Check an artifact's integrity, and that its graphs compute the checkpoint's logits on this machine.

    The golden images run in one batch and singly: an image's logits must not depend on the other images of its batch.
    A certificate's tests are computed again from its evidence, and the card from the manifest. Weights must be stored
    in the precision that the manifest names. A single graph that exits early must repeat the exits and predictions of
    the segments. Statements that no file of the artifact can prove are listed as claimed; a signature says by whom.

    Args:
        artifact: the folder.
        threads: of one call.
        backend: that computes the outputs, of 'sdcompress list backends'; "auto": the one that ``open`` takes. The
            certificate may be for another; opening the artifact with this one then says so. A single graph is checked
            with onnxruntime only.
        device: of the backend.
        key: PEM file of the public key, or of certificates, by whose holder it must be signed; None: not checked.

    Returns:
        The figures of each exit, and what is proved and claimed. An artifact that fails raises.

    Raises:
        ArtifactError: if the artifact is corrupt, truncated or edited.
        SignatureError: if it is not signed by the holder of ``key``.
        CertificateError: if its certificate was edited, or does not cover its thresholds.
        ParityError: if an exit's outputs are not the checkpoint's, or its signals not those of its outputs.
        UnknownNameError, SetupError: if there is no such backend or device here.
    """
    opened = open_artifact(artifact)
    signature = None if key is None else check_signature(opened, key)
    certificate = verify_certificate(opened)
    _check_precisions(opened)
    card, scores = _check_card(opened), certificate is not None and opened.evidence().tuning_scores is not None
    golden = opened.golden()
    if backend == AUTO:
        backend = choose_backend(opened, threads=threads, device=device)
    # the certificate was checked above; it may cover engines, while these are the graphs
    engine = open_cascade(opened, EngineOptions(backend, threads, device, allow_uncertified=True))
    target = engine.execution_target
    inputs, verdicts = opened.modality.collate(golden.examples), check_outputs(opened, engine)
    manifest, one_graph = opened.manifest, opened.manifest.one_graph if target.backend == USUAL else None
    if one_graph:
        _check_one_graph(opened, one_graph, engine, inputs)
    return VerifyReport(
        source=str(opened.path),
        digest=manifest.digest,
        layout=manifest.layout,
        files=len(manifest.files) + 1,
        samples=len(golden.targets),
        backend=target.backend,
        device=target.device,
        exits=verdicts,
        certificate=None if certificate is None else _verdict(certificate, task_of(opened.manifest)),
        one_graph=one_graph and one_graph.kind,
        signature=signature,
        proved=proved(
            manifest,
            samples=len(golden.targets),
            ran_on=str(target),
            one_graph=one_graph is not None,
            card=card,
            scores=scores,
            signature=signature,
        ),
        claimed=claimed(manifest, card=card, scores=scores),
    )


def check_outputs(opened: Artifact, engine: Engine) -> tuple[ExitVerdict, ...]:
    """Compare an engine with the outputs of the golden samples, in one batch and singly, and its signals with these.

    Args:
        opened: the artifact.
        engine: opened from it, on any backend.

    Returns:
        The figures of each exit. An engine that gives other outputs raises.

    Raises:
        ParityError: if it gives other outputs, or signals that are not those of its outputs.
    """
    golden = opened.golden()
    inputs = opened.modality.collate(golden.examples)
    batched = engine.exits(inputs)
    single = np.concatenate([engine.exits(inputs[row : row + 1]) for row in range(len(inputs))], axis=1)
    allowed = {record.exit: record.tolerance for record in opened.manifest.parity}
    verdicts = []
    for index, exit_ in enumerate(opened.manifest.exits):
        verdict = ExitVerdict(
            name=exit_.name,
            max_abs_diff=_largest(batched[index] - golden.outputs[index]),
            batch_max_abs_diff=_largest(single[index] - batched[index]),
            tolerance=allowed[exit_.name],
            flips=parity.count_flips(opened.task, [batched[index]], golden.outputs[index]),
        )
        verdicts.append(verdict)
        _check(opened.path, verdict)
    _check_signals(opened, engine, inputs, batched)
    return tuple(verdicts)


def _check_precisions(opened: Artifact) -> None:
    """Refuse graphs whose weights are not stored in the precision that the manifest names."""
    manifest = opened.manifest
    segments = [*manifest.segments, *([manifest.one_graph] if manifest.one_graph else [])]
    for precision in manifest.precisions:
        files = [segment for segment in segments if segment.precision == precision]
        try:
            problem = contradiction(precision, [stored_weights(opened.file(segment).read_bytes()) for segment in files])
        except ValueError as error:
            problem = str(error)
        if problem:
            raise ArtifactError(
                f"The graphs of '{opened.path}' are said to be in {precision}: {problem}.",
                allowed="the precision that the graphs are in",
                next_step="copy the artifact again from where it was made, or export it again",
            )


def _check_card(opened: Artifact) -> bool:
    """Compare the card with the one generated from the manifest; False if another version of sdcompress wrote it."""
    manifest = opened.manifest
    text = opened.file(manifest.card).read_bytes()
    if text == card_of(manifest).encode():
        return True
    if manifest.provenance.versions.get("sdcompress") != version("sdcompress"):
        return False
    raise ArtifactError(
        f"The card '{manifest.card.file}' of '{opened.path}' was edited: it is not what the manifest gives.",
        allowed="the card as it was written",
        next_step="copy the artifact again from where it was made, or export it again",
    )


def _check_one_graph(opened: Artifact, one_graph: OneGraph, engine: Engine, inputs: Inputs) -> None:
    graph = load(opened.file(one_graph), one_graph, threads=1, device="cpu")
    names = [tensor.name for tensor in one_graph.outputs]

    def run(batch: Inputs) -> dict[str, np.ndarray]:
        return dict(zip(names, graph(dict(batch.arrays)), strict=True))

    allowed = [record.tolerance for record in opened.manifest.parity]
    batches = graph_batches(one_graph.kind, len(inputs))
    comparison = compare_one_graph(run, engine, inputs, batches=batches, allowed=allowed)
    if problem := parity.describe_failures(comparison.findings):
        raise ParityError(
            f"'{one_graph.file}' of '{opened.path}' does not predict what its segments predict on this machine. "
            f"{problem}.",
            allowed="the same exit and decision for every golden example",
            next_step="run 'sdcompress doctor'; try the version of onnxruntime that its manifest names",
        )


def _check_signals(opened: Artifact, engine: Engine, inputs: Inputs, outputs: Float) -> None:
    """Refuse signals that differ from those of the outputs."""
    signals, task = engine.signals(inputs, (1.0,) * len(outputs)), opened.task
    for exit_, actual, expected in zip(opened.manifest.exits, signals, map(task.signals, outputs), strict=True):
        largest = max(
            _largest(column - reference)
            for column, reference in zip(actual.columns.values(), expected.columns.values(), strict=True)
        )
        differing = int(task.flips(actual.decision, expected.decision).sum())
        allowed = parity.signals_tolerance(expected.stacked())
        if largest > allowed or differing:
            raise ParityError(
                f"The signals of the exit '{exit_.name}' of '{opened.path}' are not those of its outputs on this "
                f"machine: off by {largest:.2g}, {differing} decisions differ.",
                allowed=f"a difference of {allowed:g}, and no other decision",
                next_step=_OTHER_BACKEND,
            )


def _verdict(certificate: Certificate, task: Task) -> CertificateVerdict:
    return CertificateVerdict(
        loss=loss_name(certificate.loss, task),
        group_by=group_name(certificate.group_by, task),
        reference=certificate.reference,
        confidence=certificate.confidence,
        samples=certificate.certify_samples,
        tests=sum(len(level.p_values) for level in certificate.levels),
        certified=tuple(level.max_drop for level in certificate.levels if level.certified),
    )


def _largest(difference: np.ndarray) -> float:
    largest = float(np.abs(difference).max())
    return largest if np.isfinite(largest) else float(np.finfo(np.float32).max)


def _check(path: Path, verdict: ExitVerdict) -> None:
    if verdict.max_abs_diff > verdict.tolerance:
        problem = (
            f"its outputs are off by {verdict.max_abs_diff:.2g} from the checkpoint's, {verdict.flips} decisions change"
        )
    elif verdict.batch_max_abs_diff > verdict.tolerance:
        problem = f"outputs depend on the other examples of the batch: they change by {verdict.batch_max_abs_diff:.2g}"
    else:
        return
    raise ParityError(
        f"The exit '{verdict.name}' of '{path}' fails on this machine: {problem}.",
        allowed=f"a difference of {verdict.tolerance:.2g}",
        next_step=_OTHER_BACKEND,
    )
