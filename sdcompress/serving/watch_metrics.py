"""Report certified levels and the tests for drift whenever metrics are read."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sdcompress.serving.watch import Watch

__all__ = ["WatchMetrics"]


class WatchMetrics(Collector):
    """The metrics of all watched models.

    Args:
        registry: of the service.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._watches: dict[str, Watch] = {}
        self._before: dict[str, dict[str, float]] = {}  # what each watch had counted when it took its place
        registry.register(self)

    def add(self, model: str, watch: Watch) -> None:
        """Report a watch under the name of its model, in the place of an earlier one; its counters begin at 0.

        A rollback brings a watch back that has counted before: to go on there would look like a burst of requests.
        """
        if self._watches.get(model) is not watch:
            self._before[model] = _counted(watch)
            self._watches[model] = watch

    def remove(self, model: str, watch: Watch) -> None:
        """Report a watch no longer, unless another one has taken its place."""
        if self._watches.get(model) is watch:
            del self._watches[model]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        level = GaugeMetricFamily("sdcompress_policy_level", "Certified level of new requests", labels=["model"])
        drop = GaugeMetricFamily("sdcompress_policy_max_drop", "Drop that is certified for them", labels=["model"])
        rows = CounterMetricFamily(
            "sdcompress_level_rows", "Rows that the policy decided, by level", labels=["model", "max_drop"]
        )
        alarm = GaugeMetricFamily("sdcompress_drift_alarm", "1 after an alarm", labels=["model", "test"])
        fallback = GaugeMetricFamily("sdcompress_drift_fallback", "1 while the whole network answers", labels=["model"])
        evidence = GaugeMetricFamily(
            "sdcompress_drift_evidence", "Evidence of drift, an alarm at 1", labels=["model", "test"]
        )
        audits = CounterMetricFamily("sdcompress_audits", "Rows that were audited", labels=["model"])
        loss = CounterMetricFamily("sdcompress_audit_loss", "Sum of their losses", labels=["model"])
        pending = GaugeMetricFamily("sdcompress_audits_pending", "Rows to be audited", labels=["model"])
        for model, watch in [*self._watches.items()]:
            counted, before = _counted(watch), self._before[model]
            for name, count in counted.items():
                if count < before.setdefault(name, 0.0):  # ``reset_drift`` has let it begin anew
                    before[name] = 0.0
            since = {name: count - before[name] for name, count in counted.items()}
            if watch.scheduler is not None:
                at = watch.scheduler.level
                level.add_metric([model], at)
                drop.add_metric([model], 0.0 if watch.scheduler.fallen_back else watch.levels[at].max_drop)
                fallback.add_metric([model], float(watch.scheduler.fallen_back))
                for each in watch.levels:
                    rows.add_metric([model, f"{each.max_drop:g}"], since[f"{each.max_drop:g}"])
            if (monitor := watch.monitor) is not None:
                for test, value in (("exit shares", monitor.shares), ("disagreement", monitor.audits)):
                    alarm.add_metric([model, test], float(monitor.alarm == test))
                    evidence.add_metric([model, test], value.evidence)
                audits.add_metric([model], since["audits"])
                loss.add_metric([model], since["loss"])
            if watch.audits is not None:
                pending.add_metric([model], watch.audits.pending)
        yield from (level, drop, rows, alarm, fallback, evidence, audits, loss, pending)


def _counted(watch: Watch) -> dict[str, float]:
    """Return the audits, their loss, and the rows of each level by its drop, as far as the watch counts them."""
    counted: dict[str, float] = {}
    if watch.scheduler is not None:
        names = [f"{level.max_drop:g}" for level in watch.levels]
        counted |= dict(zip(names, watch.scheduler.answered_rows, strict=True))
    if watch.monitor is not None:
        counted |= {"audits": watch.monitor.audits.audits, "loss": watch.monitor.audits.loss}
    return counted
