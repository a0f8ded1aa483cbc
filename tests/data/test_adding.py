"""The steps of docs/adding/dataset.md, followed to the letter by a package that is not ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "adding" / "dataset.md"


@pytest.fixture
def package(tmp_path: Path) -> tuple[str, dict[str, str]]:
    """The last program of the guide, and an environment where the package of the guide is installed."""
    text = GUIDE.read_text(encoding="utf-8")
    source, program = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    group, entry, target = re.findall(r'entry-points\."(.+)"\]\n(\w+) = "(.+)"', toml)[0]
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    (tmp_path / "my_package" / "shapes.py").write_text(source, encoding="utf-8")
    installed = tmp_path / "my_package-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(f"[{group}]\n{entry} = {target}\n")
    path = os.pathsep.join([str(tmp_path), str(GUIDE.parents[2])])
    return program, {**os.environ, "PYTHONPATH": path}


def run(program: str, environment: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_data_set_of_the_guide_is_found_loaded_and_has_the_mean_it_states(package: tuple) -> None:
    program, environment = package
    look = "from sdcompress import registry\nfrom sdcompress.data import ROOM\nprint(registry.names(ROOM))\n"
    assert "'shapes'" in run(look, environment)
    counts = (
        "\nprint(len(found.train), len(found.val), len(found.test), found.modality.tensors[0].shape, found.outputs)"
    )
    mean_and_std, facts = run(program + counts, environment).splitlines()
    assert facts == "1440 160 400 ('batch', 1, 24, 24) ('disc', 'square')"
    stated = re.search(r"mean=\((.+?),\), std=\((.+?),\)\)\n    return", GUIDE.read_text(encoding="utf-8"))
    assert stated is not None
    assert mean_and_std == f"[{stated[1]}] [{stated[2]}]"
