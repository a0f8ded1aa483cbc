"""Prove an artifact where it will run, without torch: its files, and the checkpoint's logits on the golden samples."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np

from sdcompress.artifact.card import card_of
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.artifact.signature import check_signature
from sdcompress.artifact.weights import contradiction, stored_weights
from sdcompress.certification.groups import group_name, loss_name
from sdcompress.certification.verify_certificate import recompute
from sdcompress.errors import ArtifactError, ParityError
from sdcompress.modalities._geometry import normalise
from sdcompress.policies._base import SIGNALS_ATOL, Float
from sdcompress.runtime.backends.onnxruntime import load
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.open import open_engine
from sdcompress.schema.manifest import Certificate, OneGraph
from sdcompress.schema.report import CertificateVerdict, ExitVerdict, VerifyReport
from sdcompress.tasks import Task, task_of
from sdcompress.verification import parity
from sdcompress.verification.one_graph_parity import agreement, graph_batches
from sdcompress.verification.proof import claimed, proved

__all__ = ["verify"]


def verify(artifact: Path | str, *, threads: int = 1, key: Path | str | None = None) -> VerifyReport:
    """Check an artifact's integrity and that its graphs give the checkpoint's logits on this machine.

    The golden images are run together and one by one: an image's logits must not depend on those beside it. A
    certificate's tests are made again from its evidence, the card from the manifest, and weights must be stored in the
    precision that is said. Where there is one graph that exits by itself, it must give the exits and answers of the
    segments. What nothing in the artifact can prove is listed as claimed; a signature says who claims it.

    Args:
        artifact: the folder.
        threads: of ONNX Runtime.
        key: PEM file of the public key, or of certificates, by whose holder it must be signed; None: not asked.

    Returns:
        The figures of each exit, what is proved and what is only claimed; an artifact that fails raises.

    Raises:
        ArtifactError: if the artifact is corrupt, truncated or edited.
        SignatureError: if it is not signed as asked.
        CertificateError: if its certificate was edited, or does not cover its thresholds.
        ParityError: if an exit's logits are not the checkpoint's, or its signals not those of its logits.
    """
    opened = open_artifact(artifact)
    signature = None if key is None else check_signature(opened, key)
    certificate = recompute(opened)
    _check_precisions(opened)
    card, scores = _check_card(opened), certificate is not None and opened.evidence().tuning_scores is not None
    golden = opened.golden()
    # what the certificate covers has been seen; it may be about engines, while these are the graphs
    engine = open_engine(opened.path, threads=threads, allow_uncertified=True)
    inputs = normalise(golden.images, opened.manifest.input.preprocess)
    together = engine.exits(inputs)
    alone = np.concatenate([engine.exits(inputs[row : row + 1]) for row in range(len(inputs))], axis=1)
    allowed = {record.exit: record.allowed for record in opened.manifest.parity}
    verdicts = []
    for index, exit_ in enumerate(opened.manifest.exits):
        verdict = ExitVerdict(
            name=exit_.name,
            max_abs=_largest(together[index] - golden.logits[index]),
            row_abs=_largest(alone[index] - together[index]),
            allowed=allowed[exit_.name],
            flips=int((together[index].argmax(1) != golden.logits[index].argmax(1)).sum()),
        )
        verdicts.append(verdict)
        _check(opened.path, verdict)
    _check_signals(opened, engine, inputs, together)
    manifest = opened.manifest
    if manifest.one_graph:
        _check_one_graph(opened, manifest.one_graph, engine, inputs)
    return VerifyReport(
        source=str(artifact),
        digest=manifest.digest,
        layout=manifest.layout,
        files=len(manifest.files) + 1,
        samples=len(golden.labels),
        exits=tuple(verdicts),
        certificate=None if certificate is None else _verdict(certificate, task_of(opened.manifest)),
        one_graph=manifest.one_graph and manifest.one_graph.kind,
        signature=signature,
        proved=proved(manifest, samples=len(golden.labels), card=card, scores=scores, signature=signature),
        claimed=claimed(manifest, card=card, scores=scores),
    )


def _check_precisions(opened: Artifact) -> None:
    """Refuse graphs whose weights are not stored in the precision that the manifest gives them."""
    manifest = opened.manifest
    segments = [*manifest.segments, *([manifest.one_graph] if manifest.one_graph else [])]
    for precision in manifest.precisions:
        files = [segment for segment in segments if segment.precision == precision]
        try:
            why = contradiction(precision, [stored_weights(opened.file(segment).read_bytes()) for segment in files])
        except ValueError as error:
            why = str(error)
        if why:
            raise ArtifactError(
                f"The graphs of '{opened.path}' are said to be in {precision}: {why}.",
                allowed="the precision that the graphs are in",
                next_step="copy the artifact again from where it was made, or export it again",
            )


def _check_card(opened: Artifact) -> bool:
    """Compare the card with the one that the manifest gives; False if another version wrote it in its own words."""
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


def _check_one_graph(opened: Artifact, one_graph: OneGraph, engine: Engine, inputs: Float) -> None:
    graph = load(opened.file(one_graph), one_graph, threads=1, device="cpu")
    names, network_input = [tensor.name for tensor in one_graph.outputs], opened.manifest.input.name

    def run(images: Float) -> dict[str, np.ndarray]:
        return dict(zip(names, graph({network_input: images}), strict=True))

    allowed = [record.allowed for record in opened.manifest.parity]
    found = agreement(run, engine, inputs, batches=graph_batches(one_graph.kind, len(inputs)), allowed=allowed)
    if problem := parity.describe(found.findings):
        raise ParityError(
            f"'{one_graph.file}' of '{opened.path}' does not answer as its segments do on this machine. {problem}.",
            allowed="the same exit and answer for every golden image",
            next_step="run 'sdcompress doctor'; try the version of onnxruntime that its manifest names",
        )


def _check_signals(opened: Artifact, engine: Engine, inputs: Float, logits: Float) -> None:
    """What exits are judged by must be what their logits say."""
    plain = engine.signals(inputs, (1.0,) * len(logits))
    for exit_, found, expected in zip(
        opened.manifest.exits, plain, map(task_of(opened.manifest).signals, logits), strict=True
    ):
        off = max(
            _largest(one - other) for one, other in zip(found.columns.values(), expected.columns.values(), strict=True)
        )
        others = int((found.decision != expected.decision).sum())
        if off > SIGNALS_ATOL or others:
            raise ParityError(
                f"The signals of the exit '{exit_.name}' of '{opened.path}' are not those of its logits on this "
                f"machine: off by {off:.2g}, {others} answers differ.",
                allowed=f"a difference of {SIGNALS_ATOL:g}, and no other answer",
                next_step="run 'sdcompress doctor'; try the version of onnxruntime that its manifest names",
            )


def _verdict(certificate: Certificate, task: Task) -> CertificateVerdict:
    return CertificateVerdict(
        loss=loss_name(certificate.loss, task),
        per=group_name(certificate.per, task),
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
    if verdict.max_abs > verdict.allowed:
        found = f"its logits are off by {verdict.max_abs:.2g} from the checkpoint's, {verdict.flips} classes change"
    elif verdict.row_abs > verdict.allowed:
        found = f"an image's logits move by {verdict.row_abs:.2g} with the images beside it"
    else:
        return
    raise ParityError(
        f"The exit '{verdict.name}' of '{path}' fails on this machine: {found}.",
        allowed=f"a difference of {verdict.allowed:.2g}",
        next_step="run 'sdcompress doctor'; try the version of onnxruntime that its manifest names",
    )
