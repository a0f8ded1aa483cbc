"""Write the times of a benchmark into a copy of its artifact, for ``sdcompress.open(..., backend="auto")``."""

from __future__ import annotations

from pathlib import Path

from sdcompress.artifact.read import Artifact
from sdcompress.artifact.write import rewrite
from sdcompress.schema.manifest import BackendTimes, Manifest
from sdcompress.schema.report import BenchReport

__all__ = ["backend_times", "write_backend_times"]


def backend_times(report: BenchReport) -> BackendTimes:
    """Return the mean times of one sample, by backend.

    Args:
        report: of one artifact, with the scenario single-stream.
    """
    single = [record for record in report.records if record.scenario == "single-stream"]
    machine = report.machine
    return BackendTimes(
        cpu=machine.cpu,
        isa=machine.isa,
        gpu=machine.gpu if report.device == "cuda" else None,
        device="cuda" if report.device == "cuda" else "cpu",
        threads=report.threads,
        created=report.created,
        input=report.input,
        # of the segments, which come first; a single graph that exits early is opened by other means
        ms={record.backend: record.latency.mean_ms for record in reversed(single) if record.backend},
        versions=machine.versions,
    )


def write_backend_times(artifact: Artifact, folder: Path, times: BackendTimes) -> Manifest:
    """Write a copy of an artifact with these times; they replace those of the same machine, device and threads.

    Graphs, policy and certificate stay as they are. A signature is not copied: the manifest is another.

    Args:
        artifact: that was measured.
        folder: of the copy, empty; ``staged`` gives one.
        times: of ``backend_times``.
    """
    others = (one for one in artifact.manifest.backend_times if one.place != times.place)
    return rewrite(artifact, folder, backend_times=(*others, times))
