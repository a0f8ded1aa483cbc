"""Ctrl-C while C++ calls back."""

from __future__ import annotations

import signal
import threading

import pytest

from sdcompress.errors import SetupError
from sdcompress.tensorrt.building.interrupt import deferred_interrupt


def interrupted(seen: list[bool], error: SetupError | None) -> None:
    with deferred_interrupt() as stopped:
        seen.append(stopped())
        signal.raise_signal(signal.SIGINT)
        seen.append(stopped())
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [None, SetupError("no plan, because it was given up")])
def test_it_is_noted_and_raised_at_the_end(error: SetupError | None) -> None:
    seen: list[bool] = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupted(seen, error)
    assert seen == [False, True]
    assert signal.getsignal(signal.SIGINT) is before  # a job in a shell's background begins with none


def test_a_build_that_failed_has_failed() -> None:
    with pytest.raises(SetupError), deferred_interrupt():
        raise SetupError("no plan")


def test_another_thread_receives_no_signal() -> None:
    heard: list[bool] = []

    def work() -> None:
        with deferred_interrupt() as stopped:
            heard.append(stopped())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [False]
