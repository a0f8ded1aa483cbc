"""The steps of docs/adding/model.md, followed to the letter by somebody whose code is not ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "adding" / "model.md"

# the page's commands, one after the other, in one interpreter: torch is imported once
DRIVER = """
import contextlib, shlex, sys
from sdcompress.cli import main
for line in sys.argv[1:]:
    sys.argv = shlex.split(line)
    try:
        main()
    except SystemExit as stopped:
        assert not stopped.code, line
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of somebody who wrote the page's files and typed its commands, and what was printed."""
    folder = tmp_path_factory.mktemp("page")
    nets, _, plain, largest = blocks("python")
    (recipe,), (toml,) = blocks("yaml"), blocks("toml")
    files = {"my_nets.py": nets, "plain.py": plain, "largest.py": largest, "own.yaml": recipe}
    points = re.sub(r'\[project\.entry-points\."(.+)"\]', r"[\1]", toml).replace('"', "")
    files["my_package-1.dist-info/METADATA"] = "Metadata-Version: 2.1\nName: my-package\nVersion: 1\n"
    files["my_package-1.dist-info/entry_points.txt"] = points
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    commands = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]
    return folder, run(folder, DRIVER, *commands)


def run(folder: Path, program: str, *arguments: str) -> str:
    path = os.pathsep.join([str(folder), str(PAGE.parents[2])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def exits(artifact: Path) -> list[str]:
    return [found["name"] for found in json.loads((artifact / "manifest.json").read_text())["exits"]]


def taps(train: Path) -> list[str]:
    """The modules that exits look at, in a fresh interpreter that has the page's folder on its path."""
    program = (
        f"from sdcompress.checkpoint import open_checkpoint\nprint(*open_checkpoint({str(train)!r}).network().taps)"
    )
    return run(train.parents[1], program).split()


def test_the_own_network_is_trained_exported_and_runs_without_torch(followed: tuple[Path, str]) -> None:
    folder, printed = followed
    assert exits(folder / "artifacts" / "own") == ["exit1", "exit2", "final"]
    assert "artifacts/own: intact" in printed
    program = blocks("python")[1] + "\nimport sys\nprint('torch' in sys.modules, 'my_nets' in sys.modules)"
    assert run(folder, program).splitlines() == ["('exit1', 'exit2', 'final') (1, 10)", "False False"]


def test_exits_are_where_the_recipe_names_them(followed: tuple[Path, str]) -> None:
    assert taps(followed[0] / "runs" / "placed") == ["stages.0", "stages.2"]


def test_the_family_is_listed_and_trained(followed: tuple[Path, str]) -> None:
    folder, printed = followed
    assert re.search(r"plain +from plain:plain", printed)
    state = next((folder / "runs" / "plain").rglob("state.json"))
    assert json.loads(state.read_text())["recipe"]["model"]["name"] == "plain:plain8"


def test_the_head_is_exported_with_its_own_operator(followed: tuple[Path, str]) -> None:
    import onnx

    artifact = followed[0] / "artifacts" / "largest"
    assert exits(artifact) == ["exit1", "exit2", "final"]
    operators = {node.op_type for path in artifact.glob("*.onnx") for node in onnx.load(path).graph.node}
    assert operators & {"GlobalMaxPool", "ReduceMax", "MaxPool"}
