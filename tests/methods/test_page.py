"""The site's page of a method says what its code says, and docs/methods.md leads to every method."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sdcompress import methods, registry

pytest.importorskip("mkdocs")
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
FILES = sorted(Path(methods.__file__).parent.glob("[!_]*.py"))
NAMES = [path.stem for path in FILES]


@pytest.fixture(scope="module")
def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "site" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_page_has_the_source_and_the_parameters_with_their_defaults(hooks: Any, path: Path) -> None:
    page = hooks.method_page(path)
    written = {key: float(default) for key, default in re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", page, re.MULTILINE)}
    method = registry.load(methods.ROOM, path.stem, extra="train")
    assert written == {field.name: field.default for field in fields(method)}
    lines = re.findall(r"^`preset: (\w+)` sets (.*)\.$", page, re.MULTILINE)
    shown = {name: {key: float(value) for key, value in re.findall(r"`(\w+): ([\d.]+)`", line)} for name, line in lines}
    assert shown == dict(method.presets)
    assert re.search(r"^    (first.*: +)?L = ", page, re.MULTILINE)
    assert "\n**Cost:** " in page
    assert "\n**Published:** " in page
    assert path.stem == "baseline" or "\n**Source:** " in page


@pytest.mark.parametrize("name", NAMES)
def test_the_table_says_what_a_method_takes(hooks: Any, name: str) -> None:
    row = re.search(rf"^\| \[`{name}`\]\(.*\) \| [^|]* \| (yes|no) \| (yes|no) \|", hooks.methods_table(), re.MULTILINE)
    assert row is not None
    method = registry.load(methods.ROOM, name, extra="train")
    assert row.groups() == tuple("yes" if flag else "no" for flag in (method().needs.exits, method().needs.mixing))


@pytest.mark.parametrize("name", NAMES)
def test_the_page_links_the_method(name: str) -> None:
    assert f"(../sdcompress/methods/{name}.py)" in PAGE
