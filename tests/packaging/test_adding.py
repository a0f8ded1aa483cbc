"""The page docs/adding/target.md, followed by a package that is not ours."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sdcompress
from sdcompress import registry
from sdcompress.artifact.read import open_artifact
from sdcompress.errors import UsageError
from sdcompress.verbs.package import ROOM

PAGE = (Path(__file__).parents[2] / "docs" / "adding" / "target.md").read_text(encoding="utf-8")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    entry_points = re.sub(r'\[project\.entry-points\."(.+)"\]', r"[\1]", toml).replace('"', "")
    files = {
        "my_package/__init__.py": "",
        "my_package/ovms.py": code,
        "my_package-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: my-package\nVersion: 1\n",
        "my_package-1.dist-info/entry_points.txt": entry_points,
    }
    for name, text in files.items():
        (tmp_path / "site" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "site" / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]


@pytest.mark.usefixtures("package")
def test_a_target_of_somebody_elses(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    assert "ovms" in registry.names(ROOM)
    artifact = tiny_artifact("single")
    record = sdcompress.package(artifact, tmp_path / "out", "ovms", {"name": "net", "nireq": 4})
    assert (record.models, record.guarantee) == (("net",), "")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {"model_config_list": [{"config": {"name": "net", "base_path": "/models/net", "nireq": 4}}]}
    graph = open_artifact(artifact).manifest.segments[0]
    sums = (tmp_path / "out" / "SHA256SUMS").read_text()
    assert f"{graph.sha256}  net/1/model.onnx" in sums
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "out", check=False)
    assert done.returncode == 0


@pytest.mark.usefixtures("package")
def test_it_refuses_as_the_page_says(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a cascade of 3 graphs"):
        sdcompress.package(tiny_artifact(policy=(0.9, 0.9)), tmp_path / "out", "ovms")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="nireq"):
        sdcompress.package(tiny_artifact("single"), tmp_path / "out", "ovms", {"nireq": 0})
