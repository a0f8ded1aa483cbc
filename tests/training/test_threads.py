"""The number of threads: chosen, recorded, and kept when a run goes on, because the bits depend on it."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sdcompress.checkpoint import open_checkpoint
from sdcompress.errors import Interrupted, UsageError
from sdcompress.machine import ThreadCount
from sdcompress.schema.recipe import Recipe
from sdcompress.training import run
from sdcompress.training.run import train

Small = Callable[..., Recipe]


@pytest.fixture
def eight_cores(monkeypatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)


def stop(_done: int, _all: int) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def short(small: Small) -> Small:
    """Two steps."""
    return lambda *settings: small("train.epochs=1", "data.train_limit=64", "data.test_limit=16", *settings)


def begun(recipe: Recipe, out: Path) -> int | None:
    """The threads that the record of a run names which was stopped after a step."""
    with pytest.raises(Interrupted):
        train(recipe, out, on_step=stop)
    return open_checkpoint(out).state.threads


@pytest.mark.usefixtures("eight_cores")
def test_threads_are_used_recorded_and_put_back(short: Small, tmp_path: Path) -> None:
    said: list[str] = []
    seen: set[int] = set()
    train(
        short("train.threads=2"),
        tmp_path / "run",
        on_step=lambda *_: seen.add(torch.get_num_threads()),
        on_start=said.append,
    )
    assert seen == {2}
    assert open_checkpoint(tmp_path / "run").state.threads == 2
    assert torch.get_num_threads() == 1
    assert said == ["training on cpu with 2 thread(s): train.threads says so"]


@pytest.mark.usefixtures("eight_cores")
def test_a_run_goes_on_with_the_threads_it_began_with_whatever_is_free_now(short: Small, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(run, "default_threads", lambda: ThreadCount(2, "free"))
    assert begun(short(), tmp_path / "run") == 2
    monkeypatch.setattr(run, "default_threads", lambda: ThreadCount(1, "other work"))
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = train(short(), tmp_path / "run", on_start=said.append)
    assert done.state.finished
    assert done.state.threads == 2
    assert said == ["training on cpu with 2 thread(s): as before, so that the run ends with the same bits"]


@pytest.mark.usefixtures("eight_cores")
def test_a_run_that_goes_on_with_another_number_says_that_its_bits_change(short: Small, tmp_path: Path) -> None:
    assert begun(short("train.threads=2"), tmp_path / "run") == 2
    with pytest.warns(UserWarning, match=r"trained with 2 thread\(s\), the run goes on with 1: not with the bits"):
        done = train(short("train.threads=1"), tmp_path / "run")
    assert done.state.threads == 1


def test_a_run_of_a_larger_machine_goes_on_with_what_there_is(short: Small, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert begun(short("train.threads=3"), tmp_path / "run") == 3
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with pytest.warns(UserWarning, match="goes on with 1"):
        assert train(short(), tmp_path / "run").state.threads == 1


def test_more_threads_than_there_are_is_refused_before_anything_is_written(short: Small, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.threads is 100000"):
        train(short("train.threads=100000"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
