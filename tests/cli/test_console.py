"""What a verb writes while it works, where stderr is a file."""

from __future__ import annotations

import threading

import pytest

from sdcompress.cli import console


def test_where_stderr_is_no_terminal_a_line_a_minute_shows_the_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter([0.0, 59.0, 61.0, 61.0, 100.0, 121.5, 121.5])
    monkeypatch.setattr(console, "monotonic", lambda: next(seconds))
    with console.bar("train") as update:
        for done in (10, 20, 30, 40):
            update(done, 40)
    lines = [line for line in capsys.readouterr().err.splitlines() if "━" not in line and line]
    assert lines == ["train 20/40", "train 40/40"]


def test_no_thread_draws_a_bar_while_times_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())  # those of earlier tests may end meanwhile
    with console.bar("bench", timed=True) as update:
        update(1, 2)
        assert not set(threading.enumerate()) - before
    assert "1/2" in capsys.readouterr().err
    with console.bar("train"):
        assert len(set(threading.enumerate()) - before) == 1
