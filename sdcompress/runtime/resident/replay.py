"""When work is recorded once and then replayed: after a first plain run, and never again where it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

__all__ = ["GraphRecorder", "GraphReplay"]

Recording = TypeVar("Recording")


class GraphRecorder(Protocol[Recording]):
    """What can record queued work and replay it: CUDA graphs on a stream."""

    def capture(self, queue: Callable[[], None]) -> Recording | None:
        """Record what the call queues, without doing it; None if that is not possible, with everything as before."""

    def launch(self, recording: Recording, /) -> None:
        """Queue what was recorded."""


class GraphReplay(Generic[Recording]):
    """Work of fixed shapes and addresses. The first call runs it plainly, because an engine sets itself up then.

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
        """Whether it is replayed."""
        return self._recording is not None

    def __call__(self) -> None:
        """Queue it."""
        if self._recording is None and self._ran and self._recorder is not None:
            self._recording = self._recorder.capture(self._queue)
            if self._recording is None:
                self._recorder = None  # it will not be possible the next time either
        if self._recording is None or self._recorder is None:
            self._queue()
            self._ran = True
        else:
            self._recorder.launch(self._recording)
