"""The progress of a build, from the phases of TensorRT's progress monitor (from 9.0). Pure Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

__all__ = ["RESOLUTION", "BuildProgress"]

RESOLUTION = 1000


@dataclass
class _Phase:
    steps: int
    done: int = 0
    children: set[str] = field(default_factory=set)


class BuildProgress:
    """Combines nested phases into one share that never falls.

    Several threads of the builder call it, so it locks. It never raises: an exception would end the process inside
    TensorRT's C++. An exception of ``report`` stops the build and is stored in ``failed``.

    Args:
        report: called with the done share in units of 1 / ``RESOLUTION``, when it changes.
        stopped: called after every step; True ends the build.
    """

    def __init__(self, report: Callable[[int], None], stopped: Callable[[], bool] = lambda: False) -> None:
        super().__init__()  # IProgressMonitor's, in C++
        self._report, self._stopped, self._reported = report, stopped, 0
        self.failed: BaseException | None = None
        self._open: dict[str, _Phase] = {}
        self._lock = Lock()

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """A phase begins, below a parent phase or at the top."""
        with self._lock:
            self._open[phase_name] = _Phase(int(num_steps))
            parent = self._open.get(parent_phase or "")
            if parent is not None:
                parent.children.add(phase_name)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """A step of a phase is done; returns whether to go on."""
        with self._lock:
            phase = self._open.get(phase_name)
            if phase is not None:
                phase.done = max(phase.done, int(step) + 1)
            self._report_share()
        return self.failed is None and not self._stopped()

    def phase_finish(self, phase_name: str) -> None:
        """A phase is done or was stopped."""
        with self._lock:
            ended = self._open.pop(phase_name, None)
            for phase in self._open.values():
                phase.children.discard(phase_name)
            if ended is not None:
                self._report_share()

    def _report_share(self) -> None:
        below = {child for phase in self._open.values() for child in phase.children}
        shares = [self._share(name) for name in self._open if name not in below]
        done = int(RESOLUTION * min(shares)) if shares else 0
        if done > self._reported:
            self._reported = done
            try:
                self._report(done)
            except BaseException as error:  # noqa: BLE001 - raised again when the builder has returned
                self.failed = self.failed or error

    def _share(self, name: str) -> float:
        phase = self._open[name]
        within_child = max((self._share(child) for child in phase.children if child in self._open), default=0.0)
        return min(1.0, (phase.done + within_child) / phase.steps) if phase.steps > 0 else 0.0
