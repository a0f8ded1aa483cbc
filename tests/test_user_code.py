"""Code that a recipe or a checkpoint names: where it may lie, and when it may be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdcompress import data, registry, user_code
from sdcompress.errors import UnknownNameError, UsageError
from sdcompress.schema.recipe import Data
from sdcompress.user_code import check_module, check_trusted, trust_function


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a user who has trained nothing, with a module that says when it is imported."""
    (tmp_path / "my_nets.py").write_text("print('IMPORTED')\ndef make(**given): return given\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(user_code, "_trusted", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["torch.hub:load", "os:system", "sys:exit", "yaml:load", "sdcompress.verbs.report:report"]
)
def test_what_is_installed_cannot_be_named(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match="an installed package"):
        registry.call_user_function(name, width=2)


def test_a_module_of_this_folder_is_found_last_and_called(folder: Path) -> None:
    assert registry.call_user_function("my_nets:make", width=2) == {"width": 2}
    assert sys.path[-1] == str(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import not_there", "not_there"),
        ("def", "invalid syntax"),
        ("from sys import my", "my"),
        ("import my_n", "my_n'"),
    ],
)
def test_a_module_with_an_error_is_said_to_have_it(folder: Path, text: str, said: str) -> None:
    """It is the user's code: a traceback and exit code 1 would say that sdcompress is broken."""
    (folder / "my_nets.py").write_text(text)
    with pytest.raises(UsageError, match=f"'my_nets' of 'my_nets:make' cannot be imported: .*{said}") as caught:
        registry.call_user_function("my_nets:make")
    assert "correct the module" in caught.value.next_step
    with pytest.raises(UsageError, match="The module 'my_netz' of"):
        registry.call_user_function("my_netz:make")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("my_nets.py:make", "write 'my_nets:make'"),
        ("./nets/my.py:make", "write 'nets.my:make'"),
        ("../nets/my.py:make", "write 'my:make', and set PYTHONPATH to ../nets"),
        ("/nets/my.py:make", "write 'my:make', and set PYTHONPATH to /nets"),
    ],
)
def test_a_file_in_the_place_of_a_module_is_answered_with_the_module(folder: Path, name: str, meant: str) -> None:
    with pytest.raises(UsageError, match="names a file") as caught:
        registry.call_user_function(name)
    assert caught.value.next_step == meant


def test_arguments_that_do_not_fit_are_told_from_errors_of_the_function(folder: Path) -> None:
    (folder / "my_nets.py").write_text("def make(width):\n    return int(path=width)\n")
    with pytest.raises(registry.ArgumentsError, match=r"missing.* 'width'"):
        registry.call_user_function("my_nets:make")
    with pytest.raises(registry.ArgumentsError, match="unexpected keyword argument 'path'"):
        registry.call_user_function("my_nets:make", width=2, path=2)
    with pytest.raises(TypeError, match="int") as caught:
        registry.call_user_function("my_nets:make", width=2)
    assert not isinstance(caught.value, registry.ArgumentsError)


def test_a_module_that_an_installed_one_hides_is_said_to_be(folder: Path) -> None:
    (folder / "yaml.py").write_text("")
    with pytest.raises(UsageError, match="it hides the 'yaml' of this folder"):
        check_module("yaml:make")


def test_a_folder_half_of_which_is_installed_is_not_ones_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (folder / "spread", folder / "site-packages" / "spread"):
        place.mkdir(parents=True)
    assert check_module("spread.nets:make") == folder / "spread"
    monkeypatch.syspath_prepend(folder / "site-packages")
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(UsageError, match="installed"):
        check_module("spread.nets:make")


def test_an_installed_package_is_called_where_an_entry_point_offers_the_very_function(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = folder / "site-packages"
    (site / "theirs-1.dist-info").mkdir(parents=True)
    (site / "theirs-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    points = "[sdcompress.models.backbones]\nnets = theirs:make\n"
    (site / "theirs-1.dist-info" / "entry_points.txt").write_text(points)
    (site / "theirs.py").write_text("")
    monkeypatch.syspath_prepend(site)
    assert check_module("theirs:make") == site / "theirs.py"
    with pytest.raises(UsageError, match="installed"):
        check_module("theirs:other")


def test_a_checkpoint_imports_what_its_user_has_trained_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(name: str = "my_nets:make", width: int = 8, *, trust: bool = False) -> None:
        check_trusted(Path("run"), name, {"width": width}, trust=trust)

    with pytest.raises(UsageError, match="--trust-modules"):
        check()
    trust_function("my_nets:make", {"width": 8})
    check()
    monkeypatch.setattr(user_code, "_trusted", set())
    check()  # in a later process
    for other in ({"name": "my_nets:other"}, {"width": 9}):
        with pytest.raises(UsageError, match="--trust-modules"):
            check(**other)
    elsewhere = folder / "downloaded"
    elsewhere.mkdir()
    (elsewhere / "my_nets.py").write_text("print('IMPORTED')")
    monkeypatch.chdir(elsewhere)
    with pytest.raises(UsageError, match="downloaded"):
        check()
    assert "IMPORTED" not in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_a_word_once_given_holds_for_that_code() -> None:
    check_trusted(Path("run"), "my_nets:make", {"width": 8}, trust=True)
    check_trusted(Path("other run"), "my_nets:make", {"width": 8}, trust=False)
    with pytest.raises(UsageError, match="--trust-modules"):
        check_trusted(Path("run"), "my_nets:make", {"width": 9}, trust=False)


def test_data_that_a_stored_recipe_names_is_code_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my_data.py").write_text("print('IMPORTED')")
    spec = Data(name="my_data:make")
    with pytest.raises(UsageError, match="names code: 'my_data:make'"):
        data.load(spec, seed=0, stored_in=Path("artifact"))
    assert "IMPORTED" not in capsys.readouterr().out
    with pytest.raises(UnknownNameError):
        data.load(spec, seed=0, stored_in=Path("artifact"), trust_modules=True)
    assert "IMPORTED" in capsys.readouterr().out


def test_where_nothing_can_be_kept_it_holds_for_the_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "file"))
    trust_function("my_nets:make", {})
    check_trusted(Path("run"), "my_nets:make", {}, trust=False)


# python -m puts the working directory first, a console script does not; neither may run what lies there
STARTS = {
    "python -m": ["-m", "sdcompress"],
    "a console script": ["-c", "import sys; sys.path.remove('')\nfrom sdcompress.cli import main; main()"],
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("verb", [["verify", "nothing"], ["list", "data"], ["evaluate", "nothing"]])
def test_a_strangers_folder_runs_nothing(tmp_path: Path, start: str, verb: list[str]) -> None:
    for name in ("numpy", "yaml", "onnxruntime", "pydantic", "typer", "typing", "email", "csv", "torch", "PIL"):
        (tmp_path / f"{name}.py").write_text(f"print('RAN {name}')\nraise SystemExit(99)\n")
    root = str(Path(user_code.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, *STARTS[start], *verb],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "RAN" not in done.stdout + done.stderr
    assert done.returncode == (0 if verb[0] == "list" else 4), done.stderr
