"""Identify the graphs, backend, device and plans that run, and check that a certificate covers them."""

from __future__ import annotations

from typing import NamedTuple

from sdcompress.errors import CertificateError
from sdcompress.printable import printable
from sdcompress.schema.manifest import Certificate, Engines, Manifest, Policy
from sdcompress.storage import digest_of

__all__ = [
    "ExecutionTarget",
    "check_covered",
    "graphs_digest",
    "one_graph_agrees",
    "plans_digest",
    "threshold_warning",
    "wiring_digest",
]

_CALIBRATE_AGAIN = "calibrate this artifact again, with --confidence"
_ALLOW = (
    "to run it without a guarantee: sdcompress.open(..., allow_uncertified=True), or --allow-uncertified of "
    "'evaluate', 'predict', 'bench', 'serve' and 'package'"
)
_ROUNDING = 1e-4  # of an output: what an export in float32 may differ by (export.atol)


class ExecutionTarget(NamedTuple):
    """Backend, device and engine plans that compute an artifact. Thresholds and certificates hold for one target.

    Attributes:
        backend: a name of 'sdcompress list backends'.
        device: "cpu" or "cuda".
        plans: digest of the engine plans (see ``plans_digest``), or None for a backend that runs the graphs.
    """

    backend: str = "onnxruntime"
    device: str = "cpu"
    plans: str | None = None

    def __str__(self) -> str:
        return f"{self.backend} on {self.device}" + (f" (engines {self.plans[:12]}...)" if self.plans else "")


def plans_digest(engines: Engines) -> str:
    """Return the digest of the SHA-256 list of an engine's plans, in execution order."""
    return digest_of([plan.sha256 for plan in engines.plans])


def graphs_digest(manifest: Manifest) -> str:
    """Return the digest of the SHA-256 list of the graphs, in execution order."""
    return digest_of([segment.sha256 for segment in manifest.segments])


def wiring_digest(manifest: Manifest) -> str:
    """Return the digest of task, preparation, tensors of the segments, and the tensors that each exit reads."""
    return digest_of(
        {
            **manifest.model_dump(mode="json", include={"task", "outputs", "modality", "inputs"}),
            "segments": [entry.model_dump(mode="json", include={"inputs", "outputs"}) for entry in manifest.segments],
            "exits": [
                entry.model_dump(mode="json", include={"name", "segment", "outputs", "signals"})
                for entry in manifest.exits
            ],
        }
    )


def check_covered(manifest: Manifest, target: ExecutionTarget) -> None:
    """Refuse to run a policy that its certificate does not cover.

    An artifact with ``guarantee: none`` and without a certificate passes.

    Args:
        manifest: of the artifact that will run.
        target: what will run it.

    Raises:
        CertificateError: if the certificate is missing, belongs to another artifact or target, or does not certify
            the thresholds.
    """
    certificate, policy = manifest.certificate, manifest.policy
    if certificate is None:
        if policy is not None and policy.guarantee == "certified":
            raise _refused(
                "The policy claims a certificate, but the artifact holds none.",
                "an artifact with its certificate",
                _CALIBRATE_AGAIN,
            )
        return
    _check_subject(manifest, certificate)
    certified = ExecutionTarget(certificate.backend, certificate.device, certificate.plans)
    if target != certified:
        raise _refused(
            f"The certificate is for {certified}, not for {target}: other kernels round confidences and "
            "predictions differently.",
            f"{certified}",
            f"open it there; calibrate it again with --confidence for {target.backend} on {target.device}; or {_ALLOW}",
        )
    assert policy is not None, "the manifest's own check"
    _check_thresholds(policy, certificate)


def one_graph_agrees(manifest: Manifest) -> bool:
    """Return whether the one graph of an artifact may answer in the place of segments that a certificate covers.

    It may if it gave their exits and decisions on every sample of its export. In float32 some hundred samples do: its
    sums have another order, which moves the last bits, as another size of a batch does. In 8 bits an operator that is
    fused across a border of segments rounds to other codes, which moves more than that. There all samples that
    certified must have been compared, and their outputs moved no further than in float32: the tests would have had the
    same losses of this graph, so that the certificate holds for it too.

    Args:
        manifest: with one graph.
    """
    one_graph = manifest.one_graph
    if one_graph is None or one_graph.near_threshold:
        return False
    if manifest.precisions == ("fp32",):
        return True
    return one_graph.whole_validation_split and one_graph.max_abs_diff <= _ROUNDING


def threshold_warning(manifest: Manifest, target: ExecutionTarget) -> str:
    """Return a warning if uncertified thresholds were chosen on another target; empty if they were chosen on this one.

    This is no error: uncertified thresholds carry no guarantee, and comparing backends needs them to run.

    Args:
        manifest: of the artifact that will run.
        target: what will run it.
    """
    policy = manifest.policy
    if policy is None or not policy.exits_early:
        return ""
    chosen = ExecutionTarget(policy.backend, policy.device, policy.plans)
    if chosen == target:
        return ""
    return printable(
        f"The thresholds were chosen on {chosen}; {target} rounds differently. Other samples may leave early, and the "
        "accuracy may differ. To choose them for this target: sdcompress calibrate ARTIFACT --backend "
        f"{target.backend} --device {target.device} --out FOLDER"
    )


def _check_subject(manifest: Manifest, certificate: Certificate) -> None:
    pairs = {
        "graphs": (graphs_digest(manifest), certificate.graphs),
        "interface": (wiring_digest(manifest), certificate.interface),
        # samples of the user belong to no data set: graphs and temperatures identify such a certificate
        "data": (
            manifest.provenance.data_fingerprint if certificate.external is None else certificate.data_fingerprint,
            certificate.data_fingerprint,
        ),
        "temperatures": (tuple(exit_.temperature for exit_ in manifest.exits), certificate.temperatures),
        "policy": (
            manifest.policy and (manifest.policy.name, manifest.policy.parameters),
            (certificate.policy, certificate.parameters),
        ),
        "precision": (tuple(segment.precision for segment in manifest.segments), certificate.precision),
    }
    different = [name for name, (actual, certified) in pairs.items() if actual != certified]
    if different:
        raise _refused(
            f"The certificate belongs to another artifact: it was made for other {' and '.join(different)}.",
            "the artifact that 'sdcompress calibrate --confidence' wrote, as it was written",
            f"{_CALIBRATE_AGAIN}; or {_ALLOW}",
        )


def _check_thresholds(policy: Policy, certificate: Certificate) -> None:
    level = next((level for level in certificate.levels if level.max_drop == policy.max_drop), None)
    covered = certificate.path[: level.certified + 1] if level else ()
    claims = policy.guarantee == "certified" and not (level and level.certified)
    if claims or (policy.exits_early and (policy.thresholds not in covered or policy.guarantee == "none")):
        target_risk = f"a drop of {policy.max_drop:.2%}"
        raise _refused(
            f"The policy's thresholds are not among those that are certified for {target_risk}.",
            f"{len(covered)} steps of the certificate's path keep it"
            if level
            else f"no step: {target_risk} was not tested",
            f"{_CALIBRATE_AGAIN}; or {_ALLOW}",
        )


def _refused(problem: str, allowed: str, next_step: str) -> CertificateError:
    return CertificateError(problem, allowed=allowed, next_step=next_step)
