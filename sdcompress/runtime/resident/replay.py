"""Record queued work after its first run and replay it; work that cannot be recorded runs plainly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

__all__ = ["GraphRecorder", "GraphReplay"]

Recording = TypeVar("Recording")


class GraphRecorder(Protocol[Recording]):
    """Records queued work and replays it, such as CUDA graphs on a stream."""

    def capture(self, queue: Callable[[], None]) -> Recording | None:
        """Record the work that a call queues, without doing it; None, without any effect, if that is not possible."""

    def launch(self, recording: Recording, /) -> None:
        """Queue recorded work."""


class GraphReplay(Generic[Recording]):
    """Work of fixed shapes and addresses; the first call runs it plainly, because engines initialise themselves then.

    Args:
        queue: queues the work.
        recorder: None: never record.
    """

    def __init__(self, queue: Callable[[], None], recorder: GraphRecorder[Recording] | None) -> None:
        self._queue, self._recorder = queue, recorder
        self._recording: Recording | None = None
        self._ran = False

    @property
    def recorded(self) -> bool:
        """Return whether the work is recorded."""
        return self._recording is not None

    def __call__(self) -> None:
        """Queue the work."""
        if self._recording is None and self._ran and self._recorder is not None:
            self._recording = self._recorder.capture(self._queue)
            if self._recording is None:
                self._recorder = None  # the next attempt would fail too
        if self._recording is None or self._recorder is None:
            self._queue()
            self._ran = True
        else:
            self._recorder.launch(self._recording)
