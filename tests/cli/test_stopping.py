"""Stopped from outside: Ctrl-C in the midst of training, and a reader that has seen enough."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

EPOCHS = 40


@pytest.fixture
def command(recipe: Path, tmp_path: Path) -> list[str]:
    settings = ["--set", f"train.epochs={EPOCHS}", "--set", "train.evaluate_every=1000"]
    return ["train", "-c", str(recipe), *settings, "--out", str(tmp_path / "run")]


def test_ctrl_c_keeps_what_was_done_and_the_same_command_goes_on(cli, command, environment, tmp_path: Path) -> None:
    metrics = tmp_path / "run" / "metrics.jsonl"
    running = subprocess.Popen(
        [sys.executable, "-m", "sdcompress", *command], env=environment, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not (metrics.is_file() and metrics.read_text()) and running.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130, told
    assert "run the same command again" in told
    assert "Traceback" not in told
    stopped = int(max((tmp_path / "run" / "steps").iterdir()).name)
    assert 0 < stopped < 5 * EPOCHS
    assert f"step {stopped} of {5 * EPOCHS}" in told

    again = cli(*command, "--json")
    assert json.loads(again.out)["step"] == 5 * EPOCHS
    # a run that began anew would have trained the first epochs twice
    epochs = [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()]
    assert epochs == list(range(1, EPOCHS + 1))
    assert "epoch   1 " not in again.err


@pytest.fixture
def interrupted_soon() -> Iterator[None]:
    """Ctrl-C after half a second."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("interrupted_soon")
def test_ctrl_c_in_a_measurement_is_130_and_says_how_to_go_on(made, cli) -> None:
    done = cli("bench", made.cascade, "--samples", "golden", "--duration", "60s", "--json")
    assert done.code == 130
    assert "Stopped during 'bench'" in done.err
    assert "run the same command again" in done.err
    assert not done.out


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("words", ["--help", "list", "train --print-config", "inspect {cascade}"])
def test_a_reader_that_has_seen_enough_is_no_error(made, environment, words: str) -> None:
    # `true` reads nothing: the pipe is broken before the first line is written
    line = f"set -o pipefail; '{sys.executable}' -m sdcompress {words.format(cascade=made.cascade)} | true"
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
