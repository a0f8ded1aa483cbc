"""What a verification proved of an artifact, and what the artifact only claims, as sentences for a report."""

from __future__ import annotations

from sdcompress.schema.manifest import Manifest
from sdcompress.schema.report import SignatureVerdict

__all__ = ["claimed", "proved"]


def proved(
    manifest: Manifest,
    *,
    samples: int,
    ran_on: str,
    one_graph: bool,
    card: bool,
    scores: bool,
    signature: SignatureVerdict | None,
) -> tuple[str, ...]:
    """What was computed again on this machine.

    Args:
        manifest: of an artifact that has passed.
        samples: golden samples that were run.
        ran_on: backend and device that ran them.
        one_graph: whether the single graph was run too.
        card: whether the card was compared with the manifest.
        scores: whether thresholds were compared with the scores that they were chosen from.
        signature: that was checked.
    """
    golden = manifest.golden.file
    statements = [
        f"files: all {len(manifest.files) + 1} are as the manifest lists them, whose digest is {manifest.digest[:12]}",
        f"outputs: {ran_on} gives those in {golden} for its {samples} examples, within the limits of the manifest",
        f"precision: weights are stored as {' and '.join(manifest.precisions)} stores them",
    ]
    if any(exit_.signals for exit_ in manifest.exits):
        statements.append("signals: what the graphs compute for the exit policy follows from their outputs")
    if manifest.one_graph and one_graph:
        statements.append(f"{manifest.one_graph.file}: gives the exits and decisions of the segments on these examples")
    if manifest.certificate:
        statements.append(
            f"certificate: every test, score and share follows from {manifest.certificate.evidence.file}"
            + ("; its thresholds are scores of the samples that shaped them" if scores else "")
        )
    if card:
        statements.append(f"{manifest.card.file}: says what the manifest says")
    if signature:
        statements.append(f"signature: every file is as the holder of '{signature.key}' signed it ({signature.signer})")
    return tuple(statements)


def claimed(manifest: Manifest, *, card: bool, scores: bool) -> tuple[str, ...]:
    """What the artifact claims and no file in it can prove; arguments as of ``proved``."""
    statements = [
        f"{manifest.golden.file}: that its examples are real ones, and its outputs the trained checkpoint's",
        "parity: how far the export was from the checkpoint, and the limits that are allowed here",
        "metrics of the exits; MACs and parameters of the graphs",
        "task and names of the outputs; modality: how raw examples become inputs",
        "provenance: recipe, weights, data, versions, command and time",
    ]
    policy, certificate = manifest.policy, manifest.certificate
    if certificate:
        statements.append(
            f"{certificate.evidence.file}: that it is what these graphs did, by {certificate.backend} on "
            f"{certificate.device}, on real samples that chose nothing"
        )
        if not scores:
            statements.append("thresholds: where they lie between the scores of two tested samples")
    if policy:
        figures = [] if certificate else ["samples and shares", "metrics"]
        claims = [
            *([] if certificate else ["thresholds"]),
            "the split it was chosen on",
            *figures,
            "its times (stage_ms and the like)",
            "backend and device",
        ]
        statements.append(f"policy: {', '.join(claims)}")
    if one_graph := manifest.one_graph:
        compared = f"that {one_graph.samples} samples take the exits of the segments, "
        statements.append(f"{one_graph.file}: {compared if one_graph.whole_validation_split else ''}its times")
    if manifest.engines:
        statements.append("engines: all that is said of them; they are not run here")
    if manifest.backend_times:
        statements.append("backend_times: what the backends took")
    if not card:
        statements.append(f"{manifest.card.file}: another version of sdcompress wrote it, so that it was not compared")
    return tuple(statements)
