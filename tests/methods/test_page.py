"""docs/methods.md says of each method what its code says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from sdcompress import methods, registry

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
OURS = sorted(path.stem for path in Path(methods.__file__).parent.glob("[!_]*.py"))


@pytest.mark.parametrize("name", OURS)
def test_parameters_and_defaults_are_the_codes(name: str) -> None:
    (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
    written = {key: float(default) for key, default in re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", section, re.MULTILINE)}
    method = registry.load(methods.ROOM, name, extra="train")
    assert written == {field.name: field.default for field in fields(method)}


@pytest.mark.parametrize("name", OURS)
def test_the_table_says_what_a_method_takes(name: str) -> None:
    row = re.search(rf"^\| \[`{name}`\]\(#{name}\) \| [^|]* \| (yes|no) \| (yes|no) \|", PAGE, re.MULTILINE)
    assert row is not None
    method = registry.load(methods.ROOM, name, extra="train")
    assert row.groups() == tuple("yes" if flag else "no" for flag in (method().needs.exits, method().needs.mixing))
