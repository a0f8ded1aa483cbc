"""List the certified levels of an artifact: thresholds, what they may lose, and what the calibration saw of them."""

from __future__ import annotations

from dataclasses import dataclass

from sdcompress.certification.p_values import upper_bound
from sdcompress.schema.manifest import Certificate, CertifiedDrop, Manifest, Policy
from sdcompress.tasks import task_of

__all__ = ["Level", "certified_levels"]

_DELTA = 0.005  # that the disagreement of any level was above its bound when it was calibrated


@dataclass(frozen=True)
class Level:
    """Thresholds that a certificate covers.

    Attributes:
        max_drop: the bound that is certified.
        thresholds: one for each exit but the last.
        samples: that the calibration tested.
        shares: of them, that exited at each exit, [E]; empty: the artifact does not say.
        disagreement: bound on the mean loss of the decisions against those of the last exit; None: the artifact does
            not say. A certificate of disagreement gives it. Beside a certificate of the drop it is what the calibration
            measured, with the uncertainty of that, or the drop if this is larger.
    """

    max_drop: float
    thresholds: tuple[float, ...]
    samples: int
    shares: tuple[float, ...] = ()
    disagreement: float | None = None


def certified_levels(manifest: Manifest) -> tuple[Level, ...]:
    """Return the policy's level, and the certified ones that allow a larger drop and other thresholds, safest first.

    Args:
        manifest: of an artifact; empty without a certified policy.
    """
    policy, certificate = manifest.policy, manifest.certificate
    if policy is None or certificate is None or policy.guarantee != "certified":
        return ()
    chosen: list[tuple[Policy | CertifiedDrop, tuple[float, ...]]] = [(policy, policy.thresholds)]
    for drop in sorted(certificate.levels, key=lambda level: level.max_drop):
        thresholds = certificate.path[drop.certified]
        if drop.certified and drop.max_drop > policy.max_drop and _exits_earlier(thresholds, chosen[-1][1]):
            chosen.append((drop, thresholds))
    delta = _DELTA / len(chosen)
    return tuple(_level(manifest, certificate, measured, thresholds, delta) for measured, thresholds in chosen)


def _exits_earlier(thresholds: tuple[float, ...], others: tuple[float, ...]) -> bool:
    return thresholds != others and all(one <= other for one, other in zip(thresholds, others, strict=True))


def _level(
    manifest: Manifest,
    certificate: Certificate,
    measured: Policy | CertifiedDrop,
    thresholds: tuple[float, ...],
    delta: float,
) -> Level:
    samples, bound = certificate.certify_samples, None
    if certificate.loss == "disagreement" and certificate.reference is None:
        bound = measured.max_drop
    elif measured.disagreement is not None:
        total, binary = measured.disagreement * samples, task_of(manifest).binary_loss
        bound = max(measured.max_drop, upper_bound(total, samples, delta, binary_loss=binary))
    if bound is not None and bound >= 1:
        bound = None  # no mean loss is above it
    return Level(measured.max_drop, thresholds, samples, measured.shares, bound)
