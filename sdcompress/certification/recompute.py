"""Compute a certificate again from its evidence: offline, without the network, the data or torch."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NoReturn

import numpy as np

from sdcompress.artifact.evidence import Evidence
from sdcompress.artifact.execution_target import ExecutionTarget, check_covered, plans_digest
from sdcompress.artifact.read import Artifact
from sdcompress.certification.calibration_split import seed_of, tuning_count
from sdcompress.certification.certify import bonferroni_delta, certified_drop, kind_of_test, policy_metrics
from sdcompress.errors import CertificateError
from sdcompress.policies import restore
from sdcompress.schema.manifest import Certificate, Policy
from sdcompress.tasks import Task, task_of

__all__ = ["verify_certificate"]

_RELATIVE = 1e-6  # sums of logarithms, in another order on another machine
_ABSOLUTE = 1e-300
_MEAN_RELATIVE = 1e-9  # means of graded losses, likewise


def verify_certificate(artifact: Artifact) -> Certificate | None:
    """Check every figure of a certificate against its evidence.

    This detects a certificate that does not follow from its evidence, or is about other graphs, thresholds or data. It
    does not detect invented evidence. For that, calibrate again with the data: the same split must give the same
    losses, and at the same temperatures the same scores.

    Args:
        artifact: opened, so that its files are those of its manifest.

    Returns:
        The certificate; None if the artifact has none and claims none.

    Raises:
        CertificateError: if a figure does not follow from the evidence.
        ArtifactError: if the evidence cannot be read.
    """
    manifest = artifact.manifest
    certificate = manifest.certificate
    check_covered(
        manifest,
        ExecutionTarget(certificate.backend, certificate.device, certificate.plans)
        if certificate
        else ExecutionTarget(),
    )
    if certificate is None:
        return None
    if certificate.plans is not None and certificate.plans not in map(plans_digest, manifest.engines):
        raise CertificateError(
            "The certificate is about engines that the artifact does not hold.",
            allowed=f"engines whose plans have the digest {certificate.plans[:12]}...",
            next_step="copy the artifact again from where it was made, or calibrate it again on the engines it holds",
        )
    _check_split(certificate)
    _check_path(certificate)
    evidence = artifact.evidence()
    task = task_of(manifest)
    _check_thresholds(certificate, evidence, task)
    if certificate.group_by == "stratum":
        _check_strata(evidence, task)
    _check_test(certificate, evidence, task)
    _check_levels(certificate, evidence)
    assert manifest.policy is not None, "the manifest's own check"
    _check_policy(manifest.policy, certificate, evidence)
    return certificate


def _check_split(certificate: Certificate) -> None:
    seed = seed_of(certificate.data_fingerprint, certificate.graphs)
    if certificate.seed != seed:
        _refuse(f"its seed is {certificate.seed[:12]}…", f"{seed[:12]}…, the hash of its data and graphs")
    tuning, total = certificate.tuning_samples, certificate.tuning_samples + certificate.certify_samples
    expected = tuning_count(total)  # not drawn: the total may be any number
    if tuning != expected:
        _refuse(f"{tuning} of its {total} samples made the path", f"{expected}, a sixth")


def _check_path(certificate: Certificate) -> None:
    path = certificate.path
    untested = path[: 1 if certificate.reference is None else 2]
    if not all(threshold > 1 for step in untested for threshold in step):
        _refuse("the first step of its path has an early exit", "thresholds above 1: no early exit there")
    for step, (before, after) in enumerate(pairwise(path), 1):
        if not all(b >= a for b, a in zip(before, after, strict=True)):
            _refuse(f"a threshold rises at step {step} of its path", "thresholds that only fall")


def _check_thresholds(certificate: Certificate, evidence: Evidence, task: Task) -> None:
    """Refuse a threshold of the path that is no score of a tuning sample: it was edited.

    The tests do not detect this. A threshold may be lowered where no tested sample lies, but new samples may lie there.
    """
    tuning = evidence.tuning_scores
    if tuning is None:
        return
    if tuning.shape[1] != certificate.tuning_samples:
        _refuse(
            f"its evidence has the scores of {tuning.shape[1]} samples that made the path",
            f"{certificate.tuning_samples}, as it says",
        )
    shared = restore(certificate.policy, certificate.parameters, task).shared
    for k, thresholds in enumerate(zip(*certificate.path, strict=True)):
        scores = {float(score) for score in (tuning if shared else tuning[k]).ravel()}
        for step, threshold in enumerate(thresholds):
            if threshold <= 1 and threshold not in scores:
                _refuse(
                    f"the threshold {threshold:.9g} of exit {k + 1} at step {step} of its path is no score of the "
                    "samples that made it",
                    "their scores, or thresholds above 1",
                )


def _check_strata(evidence: Evidence, task: Task) -> None:
    present = () if evidence.strata is None else np.unique(evidence.strata)
    total = len(task.strata_names)
    if not np.array_equal(present, np.arange(total)):
        _refuse(f"its evidence has samples of {len(present)} strata", f"every one of the {total}: it is about each")


def _check_test(certificate: Certificate, evidence: Evidence, task: Task) -> None:
    if (certificate.reference is None) != (evidence.reference_loss is None):
        _refuse("its reference is not that of its evidence", "'reference' and 'reference_loss' both or neither")
    disagreement = certificate.loss == "disagreement"
    if disagreement and evidence.reference.any():
        _refuse("its reference disagrees with itself in its evidence", "a reference loss of 0 for every sample")
    if certificate.external and not disagreement:
        _refuse(f"it is about the {certificate.loss} on samples without targets", "disagreement")
    test = kind_of_test(unlabelled=disagreement, binary_loss=task.binary_loss)
    if certificate.test != test:
        _refuse(f"its test of the {certificate.loss} is '{certificate.test}'", f"'{test}'")
    if test == "binomial" and not np.isin(evidence.loss, (0, 1)).all():
        _refuse("its evidence has losses between 0 and 1", "0 or 1, which the binomial test is for")


def _check_levels(certificate: Certificate, evidence: Evidence) -> None:
    share = bonferroni_delta(certificate.confidence, len(certificate.levels))
    for level in certificate.levels:
        name = f"for a drop of {level.max_drop:.2%}"
        if level.delta > share * (1 + _RELATIVE):
            _refuse(f"delta {name} is {level.delta:g}", f"at most {share:g}, its share of 1 - confidence")
        recomputed = certified_drop(
            evidence,
            certificate.path,
            certificate.test,
            level.max_drop,
            level.delta,
            group_by=certificate.group_by,
            unlabelled=certificate.loss == "disagreement",
        )
        if len(recomputed.p_values) != len(level.p_values) or recomputed.certified != level.certified:
            _refuse(
                f"{name} it certifies step {level.certified} after {len(level.p_values)} tests",
                f"step {recomputed.certified} after {len(recomputed.p_values)} tests, by its evidence",
            )
        for step, (stated, p_value) in enumerate(zip(level.p_values, recomputed.p_values, strict=True), 1):
            if not math.isclose(stated, p_value, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE):
                _refuse(f"the p-value of step {step} {name} is {stated:.6g}", f"{p_value:.6g}, by its evidence")
        for field in ("shares", "disagreement"):
            stated, computed = getattr(level, field), getattr(recomputed, field)
            if stated not in {None, ()} and not _same(stated, computed):  # unknown claims nothing
                _refuse(f"its {field} {name} is {stated}", f"{computed}, by its evidence")


def _same(stated: object, computed: object) -> bool:
    """Return whether two figures are equal, but for the order of the sums in a mean."""
    if isinstance(stated, float) and isinstance(computed, float):
        return math.isclose(stated, computed, rel_tol=_MEAN_RELATIVE)
    return stated == computed


def _check_policy(policy: Policy, certificate: Certificate, evidence: Evidence) -> None:
    level = next((level for level in certificate.levels if level.max_drop == policy.max_drop), None)
    guarantee = "certified" if level and level.certified else "no certificate"
    if policy.guarantee != guarantee:
        _refuse(f"the policy's guarantee is '{policy.guarantee}'", f"'{guarantee}', by the tests")
    expected = policy_metrics(evidence, policy.thresholds, unlabelled=certificate.loss == "disagreement")._asdict()
    expected["samples"] = certificate.certify_samples
    expected |= ExecutionTarget(certificate.backend, certificate.device, certificate.plans)._asdict()
    if policy.disagreement is None:  # unknown claims nothing
        del expected["disagreement"]
    for name, value in expected.items():
        if not _same(stated := getattr(policy, name), value):
            _refuse(f"the policy's {name} is {stated}", f"{value}, by the certificate and its evidence")


def _refuse(problem: str, allowed: str) -> NoReturn:
    raise CertificateError(
        f"The certificate was edited: {problem}.",
        allowed=allowed,
        next_step="copy the artifact again from where it was made, or calibrate it again with --confidence",
    )
