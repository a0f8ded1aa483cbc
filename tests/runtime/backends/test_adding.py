"""The steps of docs/adding/backend.md, followed to the letter by a package that is not ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

GUIDE = Path(__file__).parents[3] / "docs" / "adding" / "backend.md"


def installed(folder: Path) -> dict[str, str]:
    """The package of the guide as pip leaves it on the path; the environment that sees it."""
    text = GUIDE.read_text(encoding="utf-8")
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    group, entry, target = re.findall(r'entry-points\."(.+)"\]\n(\w+) = "(.+)"', toml)[0]
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").touch()
    source = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    (folder / "my_package" / "reference.py").write_text(source, encoding="utf-8")
    facts = folder / "my_package-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(f"[{group}]\n{entry} = {target}\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(GUIDE.parents[2])])}


def test_the_backend_of_the_guide_runs_a_cascade(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    cascade = tiny_artifact("cascade", (0.9, 0.9))
    program = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)[1]
    look = "\nprint(type(mine).__name__, sorted(set(mine(inputs).exit_index.tolist())))"
    done = subprocess.run(
        [sys.executable, "-c", program + look],
        env=installed(tmp_path),
        cwd=cascade.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    exits, leaves, facts = done.stdout.splitlines()
    assert float(exits.removeprefix("exits: ")) < 1e-5
    assert leaves == "leaves: True"
    assert facts == "CascadeEngine [0, 1, 2]"


def test_the_room_lists_it(tmp_path: Path) -> None:
    program = "from sdcompress import registry; from sdcompress.runtime.open import ROOM; print(registry.names(ROOM))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=installed(tmp_path), capture_output=True, text=True, check=False
    )
    assert "'reference'" in done.stdout, done.stderr
