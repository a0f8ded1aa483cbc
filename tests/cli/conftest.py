"""The command line as a user has it: what the console script calls, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from sdcompress.cli import main

RECIPE = """\
name: tiny
modality: {image_size: 16}
data: {name: digits, validation: 0.2, train_limit: 160, test_limit: 160}
model: {name: "cifar:resnet8"}
exits: {count: 2, head: linear}
method: byot
train: {epochs: 1, batch_size: 32, device: cpu}
bench: {scenarios: [single-stream], warmup_ms: 1, duration_s: 0.02, rounds: 5}
"""


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cli() -> Callable[..., Done]:
    """``cli("inspect", folder)``: the console script's own function, here, so that torch is imported only once."""

    def run(*arguments: str | Path) -> Done:
        out, err, path, argv = io.StringIO(), io.StringIO(), list(sys.path), sys.argv
        sys.argv = ["sdcompress", *map(str, arguments)]
        code: int | str | None = 0
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main()
        except SystemExit as stopped:
            code = stopped.code
        finally:
            sys.path[:], sys.argv = path, argv
        return Done(int(code or 0), out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For processes of their own: one thread, so that they do not fight with each other."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def process(environment: dict[str, str]) -> Callable[..., Done]:
    """The same in a fresh interpreter, with further variables of the environment by keyword."""

    def run(*arguments: str | Path, **variables: str) -> Done:
        command = [sys.executable, "-m", "sdcompress", *map(str, arguments)]
        done = subprocess.run(
            command, env={**environment, **variables}, capture_output=True, text=True, check=False, timeout=120
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@dataclass(frozen=True)
class Made:
    """One trained network and its artifacts, with what the commands said; tests that change one copy it first."""

    train: Path
    trained: Done
    cascade: Path
    exported: Done


@pytest.fixture(scope="session")
def made(cli: Callable[..., Done], recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    trained = cli("train", "-c", recipe, "--out", folder / "train", "--json")
    exported = cli("export", folder / "train", "--layout", "cascade", "--out", folder / "cascade", "--json")
    return Made(folder / "train", trained, folder / "cascade", exported)
