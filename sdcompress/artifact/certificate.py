"""What a certificate is about: the very graphs, temperatures, thresholds and runtime that were tested, nothing else."""

from __future__ import annotations

from typing import NamedTuple

from sdcompress.errors import CertificateError
from sdcompress.printable import printable
from sdcompress.schema.manifest import Certificate, Engines, Manifest, Policy
from sdcompress.storage import digest_of

__all__ = ["ExecutionTarget", "check_covered", "elsewhere", "graphs_digest", "plans_digest", "wiring_digest"]

_AGAIN = "calibrate this artifact again, with --confidence"
_ALLOW = (
    "to run it without a guarantee: sdcompress.open(..., allow_uncertified=True), or --allow-uncertified of 'evaluate' "
    "and 'bench'"
)


class ExecutionTarget(NamedTuple):
    """What computes an artifact, and where: what thresholds are chosen on, and what a certificate is about.

    Attributes:
        backend: of 'sdcompress list backends'.
        device: "cpu" or "cuda".
        plans: where the backend runs engines made of the graphs: their digest, see ``plans_digest``.
    """

    backend: str = "onnxruntime"
    device: str = "cpu"
    plans: str | None = None

    def __str__(self) -> str:
        return f"{self.backend} on {self.device}" + (f" (engines {self.plans[:12]}...)" if self.plans else "")


def plans_digest(engines: Engines) -> str:
    """The identity of engines: the digest of the list of their plans' SHA-256, in the order in which they run."""
    return digest_of([plan.sha256 for plan in engines.plans])


def graphs_digest(manifest: Manifest) -> str:
    """The identity of the graphs: the digest of the list of their SHA-256, in the order in which they run."""
    return digest_of([segment.sha256 for segment in manifest.segments])


def wiring_digest(manifest: Manifest) -> str:
    """The identity of what is done with the graphs: preprocessing, tensors, and which of them an exit is judged by."""
    return digest_of(
        {
            "input": manifest.input.model_dump(mode="json"),
            "segments": [one.model_dump(mode="json", include={"inputs", "outputs"}) for one in manifest.segments],
            "exits": [
                one.model_dump(mode="json", include={"name", "segment", "logits", "signals"}) for one in manifest.exits
            ],
        }
    )


def check_covered(manifest: Manifest, where: ExecutionTarget) -> None:
    """Refuse thresholds that no certificate covers where the manifest speaks of one.

    An artifact whose policy says ``guarantee: none`` and which holds no certificate promises nothing: it passes.

    Args:
        manifest: of the artifact that will run.
        where: what will run it.

    Raises:
        CertificateError: if the certificate is missing, about something else, or about stricter thresholds.
    """
    certificate, policy = manifest.certificate, manifest.policy
    if certificate is None:
        if policy is not None and policy.guarantee == "certified":
            raise _refused(
                "The policy says that it is certified, but the artifact holds no certificate.", "one", _AGAIN
            )
        return
    _check_subject(manifest, certificate)
    certified = ExecutionTarget(certificate.backend, certificate.device, certificate.plans)
    if where != certified:
        raise _refused(
            f"The certificate is for {certified}, not for {where}: other kernels round confidences and answers "
            "otherwise.",
            f"{certified}",
            f"open it there; calibrate it again with --confidence for {where.backend} on {where.device}; or {_ALLOW}",
        )
    assert policy is not None, "the manifest's own check"
    _check_thresholds(policy, certificate)


def elsewhere(manifest: Manifest, where: ExecutionTarget) -> str:
    """Why thresholds that promise nothing may do other than was seen when they were chosen; empty: they run there.

    Not refused: they were never more than a choice on some images, and comparing backends needs them to run.

    Args:
        manifest: of the artifact that will run.
        where: what will run it.
    """
    policy = manifest.policy
    if policy is None or all(threshold > 1 for threshold in policy.thresholds):
        return ""
    chosen = ExecutionTarget(policy.backend, policy.device, policy.plans)
    if chosen == where:
        return ""
    return printable(
        f"The thresholds were chosen on {chosen}; {where} rounds otherwise, so that other images may leave and the "
        f"accuracy may differ. To choose them there: sdcompress calibrate ARTIFACT --backend {where.backend} --device "
        f"{where.device} --out FOLDER"
    )


def _check_subject(manifest: Manifest, certificate: Certificate) -> None:
    pairs = {
        "graphs": (graphs_digest(manifest), certificate.graphs),
        "wiring": (wiring_digest(manifest), certificate.wiring),
        # images of the user's own belong to no data set: such a certificate is tied by graphs and temperatures
        "data": (
            manifest.provenance.data_fingerprint if certificate.own_images is None else certificate.data_fingerprint,
            certificate.data_fingerprint,
        ),
        "temperatures": (tuple(exit_.temperature for exit_ in manifest.exits), certificate.temperatures),
        "policy": (
            manifest.policy and (manifest.policy.kind, manifest.policy.parameters),
            (certificate.policy, certificate.parameters),
        ),
        "precision": (tuple(segment.precision for segment in manifest.segments), certificate.precision),
    }
    other = [name for name, (mine, certified) in pairs.items() if mine != certified]
    if other:
        raise _refused(
            f"The certificate belongs to another artifact: it was made for other {' and '.join(other)}.",
            "the artifact that 'sdcompress calibrate --confidence' wrote, as it was written",
            f"{_AGAIN}; or {_ALLOW}",
        )


def _check_thresholds(policy: Policy, certificate: Certificate) -> None:
    level = next((level for level in certificate.levels if level.max_drop == policy.max_drop), None)
    covered = certificate.path[: level.certified + 1] if level else ()
    never = all(threshold > 1 for threshold in policy.thresholds)  # it is the whole network, whatever that has lost
    claims = policy.guarantee == "certified" and not (level and level.certified)
    if claims or (not never and (policy.thresholds not in covered or policy.guarantee == "none")):
        wish = f"a drop of {policy.max_drop:.2%}"
        raise _refused(
            f"The policy's thresholds are not among those that are certified for {wish}.",
            f"{len(covered)} steps of the certificate's path keep it" if level else f"no step: {wish} was not tested",
            f"{_AGAIN}; or {_ALLOW}",
        )


def _refused(found: str, allowed: str, next_step: str) -> CertificateError:
    return CertificateError(found, allowed=allowed, next_step=next_step)
