"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from sdcompress.cli.app import app
from sdcompress.verbs.list_entries import ROOMS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sdcompress"
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py"))
PUBLIC = [name for name in MODULES if Path(name).name == "__init__.py" or not Path(name).name.startswith("_")]
# hints that something has two jobs, far enough away that nobody packs code to stay under them
LONGEST_FILE, LONGEST_FUNCTION = 450, 60
NO_NAMES = {"utils", "util", "common", "helpers", "helper", "core", "misc", "tools"}
MACHINE_PATHS = re.compile(r"(?<![\w.$~}])/(?:work|home|root|Users|mnt|tmp/\w)[/\w]*")


def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"))


def exported(name: str) -> list[str] | None:
    """``__all__`` of a module, None where it has none."""
    for node in tree(name).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def in_repository() -> list[Path]:
    """What git keeps, or would keep; all files below where there is no git (a source distribution)."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode == 0:
        names = listed.stdout.split("\0")[:-1]
        return [ROOT / name for name in names if (ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_module_says_what_is_public_and_has_it(name: str) -> None:
    bound = {name for node in tree(name).body for name in _binds(node)}
    if not bound - {"annotations"}:
        return  # a docstring alone: the door of a room
    names = exported(name)
    assert names is not None
    # the package's own verbs are imported only when they are asked for
    assert name == "sdcompress/__init__.py" or set(names) <= bound


def _binds(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return [alias.asname or alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []


@pytest.mark.parametrize("room", ROOMS.values())
def test_an_entry_of_a_room_is_one_public_name_and_a_line_that_describes_it(room: str) -> None:
    folder = room.replace(".", "/")
    entries = [name for name in PUBLIC if Path(name).parent.as_posix() == folder and Path(name).stem != "__init__"]
    assert entries
    for name in entries:
        assert len(exported(name) or []) == 1, name
        first = (ast.get_docstring(tree(name)) or "").partition("\n")[0]
        assert first.endswith((".", ":")), name


@pytest.mark.parametrize("name", MODULES)
def test_a_file_and_its_functions_are_short(name: str) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) < LONGEST_FILE
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert _lines(node) < LONGEST_FUNCTION, node.name


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its signature and its docstring: what there is to follow."""
    body = function.body[1 if ast.get_docstring(function) else 0 :]
    assert function.end_lineno is not None
    return function.end_lineno - body[0].lineno + 1 if body else 0


def test_no_module_is_named_after_nothing() -> None:
    parts = {part: name for name in MODULES for part in Path(name).with_suffix("").parts}
    assert not {name for part, name in parts.items() if part in NO_NAMES}


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found = []
    for path in in_repository():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group(0)}" for match in MACHINE_PATHS.finditer(text)]
    assert found == []


def test_tests_lie_where_what_they_test_lies() -> None:
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert not [folder.as_posix() for folder in folders if not (PACKAGE / folder).is_dir()]


def test_every_room_stands_on_the_map() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Rooms")[2].partition("## Where")[0]
    named = set(re.findall(r"`(\w+)`", table))
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"__init__", "__main__"} <= named


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.stem)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text(encoding="utf-8")))
    ours = {name for name in named if any((folder / name.partition("/")[0]).is_dir() for folder in (ROOT, PACKAGE))}
    assert not [name for name in ours if not any((folder / name).is_file() for folder in (ROOT, PACKAGE))]


def test_the_readme_lists_every_extra_and_every_verb() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    extras = re.findall(r"^(\w+) = \[", _section("optional-dependencies"), flags=re.MULTILINE)
    assert len(extras) > 10
    assert [name for name in extras if f"`sdcompress[{name}]`" not in page] == ["all", "dev"]
    rows = page.partition("## The verbs")[2].partition("## The methods")[0]
    named = set(re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\|([^|]*)\|", rows, flags=re.MULTILINE))))
    assert {command.name for command in app.registered_commands} <= named


def _section(name: str) -> str:
    """The lines of pyproject.toml below ``[project.name]``; Python 3.10 has no tomllib."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return text.partition(f"[project.{name}]")[2].partition("\n[")[0]
