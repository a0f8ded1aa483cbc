"""Watch one served model: its certificate, drift, and the level that requests get."""

from __future__ import annotations

import logging
from time import monotonic

from sdcompress.artifact.execution_target import check_covered
from sdcompress.errors import CertificateError
from sdcompress.policies._base import Float
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.drift import DriftMonitor
from sdcompress.runtime.levels import Level, certified_levels
from sdcompress.serving.audits import Audits
from sdcompress.serving.brown_out import BrownOut
from sdcompress.serving.costs import StageCosts
from sdcompress.serving.job import Job
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.scheduler import Scheduler
from sdcompress.serving.watched_scheduler import WatchedScheduler
from sdcompress.storage import digest_of
from sdcompress.tasks import Array, Task

__all__ = ["Watch"]

_LOG = logging.getLogger(__name__)


class Watch:
    """What is certified of a model, and whether it still holds.

    Args:
        name: of the model, for the log.
        engine: of its artifact.
        options: of the service.

    Attributes:
        certificate: digest of the certificate; None: there is none, or it does not cover what runs.
        levels: certified ones, the policy's first; empty without a certificate.
        monitor: of drift; None: nothing is watched.
        audits: of early exits; None: there are none.
        scheduler: of the model, once it runs; None: it is an ordinary one.
    """

    def __init__(self, name: str, engine: CascadeEngine, options: ServiceOptions) -> None:
        self._name, self._options = name, options
        self.certificate = _certificate_id(engine)
        self.levels: tuple[Level, ...] = certified_levels(engine.manifest) if self.certificate else ()
        self.monitor: DriftMonitor | None = None
        self.audits: Audits | None = None
        self.scheduler: WatchedScheduler | None = None
        if self.levels and options.on_drift != "ignore":
            self.monitor = DriftMonitor(self.levels, audit_share=options.audit_share)
            if options.audit_share > 0 and self.levels[0].disagreement is not None:
                self.audits = Audits(self.monitor, _Loss(engine.task), len(engine.exit_names))

    def schedule(self, costs: StageCosts) -> Scheduler:
        """Return the scheduler of the model.

        Args:
            costs: of its stages.
        """
        options = self._options
        brown_out = BrownOut(len(self.levels), options.latency_bound) if options.brown_out and self.levels else None
        if options.brown_out and len(self.levels) < 2:
            _LOG.warning(
                "no brown-out: the certificate has no level that allows a larger drop; see calibrate --extra-drop",
                extra={"model": self._name, "levels": [level.max_drop for level in self.levels]},
            )
        if self.monitor is None and brown_out is None:
            return Scheduler(costs, most_rows=options.queue_rows, clock=monotonic)
        self.scheduler = WatchedScheduler(
            costs,
            most_rows=options.queue_rows,
            clock=monotonic,
            levels=self.levels,
            latency_bound=options.latency_bound,
            monitor=self.monitor,
            audits=self.audits,
            brown_out=brown_out,
            fall_back=options.on_drift == "fall-back",
            on_alarm=self._on_alarm,
            on_level=self._on_level,
        )
        return self.scheduler

    def reset(self) -> None:
        """End a fall-back and forget the evidence of drift; a new lifetime begins. Call it by the model's worker."""
        if self.scheduler is not None:
            self.scheduler.reset()
            _LOG.info("drift reset", extra={"model": self._name})

    def parameters(self, job: Job) -> dict[str, str | float | bool]:
        """Return what a response says of certificate and drift."""
        fields: dict[str, str | float | bool] = {}
        alarm = self.monitor.alarm if self.monitor else None
        if alarm is not None:
            fields["drift"] = alarm
        if job.fallen_back:
            fields["fallback"] = "drift"
        if self.certificate is not None and job.covered and alarm is None and not job.fallen_back:
            fields |= {"certificate_id": self.certificate, "max_drop": self.levels[job.level].max_drop}
        return fields

    def _on_alarm(self) -> None:
        assert self.monitor is not None
        audits, shares = self.monitor.audits, self.monitor.shares
        _LOG.error(
            "drift: the data is no longer what the certificate was made for",
            extra={
                "model": self._name,
                "test": self.monitor.alarm,
                "audits": audits.audits,
                "disagreement": round(audits.loss / audits.audits, 5) if audits.audits else None,
                "bound": self.levels[0].disagreement,
                "rows": shares.rows,
                "fallback": self._options.on_drift == "fall-back",
            },
        )

    def _on_level(self, level: int) -> None:
        _LOG.info("level", extra={"model": self._name, "max_drop": self.levels[level].max_drop})


class _Loss:
    """The task's loss of decisions against those of the last exit."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self, outputs: Float, last: Float) -> Array:
        return self._task.loss(self._task.decide(outputs), self._task.decide(last))


def _certificate_id(engine: CascadeEngine) -> str | None:
    """Return the digest of the certificate, if there is one and it covers what runs."""
    certificate, policy = engine.manifest.certificate, engine.policy
    if certificate is None or policy is None or policy.guarantee != "certified":
        return None
    try:
        check_covered(engine.manifest, engine.execution_target)
    except CertificateError:  # runs because it was allowed without
        return None
    return digest_of(certificate.model_dump(mode="json"))
