"""How far a build is, from the phases that TensorRT's progress monitor names (from 9.0). Pure Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

__all__ = ["PARTS", "Phases"]

PARTS = 1000


@dataclass
class _Phase:
    steps: int
    done: int = 0
    children: set[str] = field(default_factory=set)


class Phases:
    """Nested phases as one share that never falls.

    Called from several threads of the builder, so it locks. It raises nothing, because an exception would end the
    process inside TensorRT's C++: one of ``tell`` stops the build and stands in ``failed``.

    Args:
        tell: told how many of ``PARTS`` are done, when that changes.
        stopped: asked after every step; True ends the build.
    """

    def __init__(self, tell: Callable[[int], None], stopped: Callable[[], bool] = lambda: False) -> None:
        super().__init__()  # IProgressMonitor's, in C++
        self._tell, self._stopped, self._told = tell, stopped, 0
        self.failed: BaseException | None = None
        self._open: dict[str, _Phase] = {}
        self._lock = Lock()

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """A phase begins, below another or, without one, as the whole."""
        with self._lock:
            self._open[phase_name] = _Phase(int(num_steps))
            parent = self._open.get(parent_phase or "")
            if parent is not None:
                parent.children.add(phase_name)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """A step of a phase is done; whether to go on."""
        with self._lock:
            phase = self._open.get(phase_name)
            if phase is not None:
                phase.done = max(phase.done, int(step) + 1)
            self._say()
        return self.failed is None and not self._stopped()

    def phase_finish(self, phase_name: str) -> None:
        """A phase is done, or was given up."""
        with self._lock:
            ended = self._open.pop(phase_name, None)
            for phase in self._open.values():
                phase.children.discard(phase_name)
            if ended is not None:
                self._say()

    def _say(self) -> None:
        below = {child for phase in self._open.values() for child in phase.children}
        whole = [self._share(name) for name in self._open if name not in below]
        part = int(PARTS * min(whole)) if whole else 0
        if part > self._told:
            self._told = part
            try:
                self._tell(part)
            except BaseException as error:  # noqa: BLE001 - raised again when the builder has returned
                self.failed = self.failed or error

    def _share(self, name: str) -> float:
        phase = self._open[name]
        inside = max((self._share(child) for child in phase.children if child in self._open), default=0.0)
        return min(1.0, (phase.done + inside) / phase.steps) if phase.steps > 0 else 0.0
