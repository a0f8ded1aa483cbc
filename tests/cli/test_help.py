"""Help: every verb shows how it is used, and asking costs no heavy import."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from typing import get_args, get_type_hints

import pytest

from sdcompress.cli.app import app
from sdcompress.cli.export import export
from sdcompress.cli.list import Kind
from sdcompress.schema import graphs
from sdcompress.verbs.list_entries import ROOMS

VERBS = sorted(command.name for command in app.registered_commands)

# what the console script runs, and then which packages this interpreter has loaded
PROGRAM = """
import contextlib, io, json, sys
from sdcompress.cli import main
shown = {}
for verb in sys.argv[1:]:
    sys.argv, text = ["sdcompress", *verb.split()], io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main()
    shown[verb] = text.getvalue()
print(json.dumps({"shown": shown, "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


@pytest.fixture(scope="module")
def fresh() -> dict:
    asked = ["--help", *(f"{verb} --help" for verb in VERBS), "train --print-config", "list"]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *asked], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_all_verbs_are_there(fresh: dict) -> None:
    training = {"train", "tune", "prune", "run", "export", "build-engines", "calibrate", "quantize"}
    using = {"verify", "sign", "inspect", "evaluate", "predict", "explain", "bench", "report", "serve", "package"}
    using |= {"capacity", "compress"}
    assert set(VERBS) == training | using | {"list", "doctor"}
    assert all(re.search(rf"^  {verb} ", fresh["shown"]["--help"], re.MULTILINE) for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_ends_in_an_example_of_it(fresh: dict, verb: str) -> None:
    assert f"Example: sdcompress {verb}" in fresh["shown"][f"{verb} --help"]


def test_no_sentence_of_the_help_breaks_off(fresh: dict) -> None:
    assert not any(re.search(r"[a-z,;:]\.\.\.", text) for text in fresh["shown"]["--help"].splitlines())
    listed = " ".join(fresh["shown"]["--help"].split())
    for command in app.registered_commands:
        first = (command.callback.__doc__ or "").partition("\n")[0]
        assert first.endswith(".")
        assert first in listed


def test_help_and_lists_and_recipes_load_nothing_heavy(fresh: dict) -> None:
    assert "sdcompress" in fresh["loaded"]
    heavy = {"torch", "torchvision", "timm", "lightning_fabric", "onnx", "onnxruntime", "sklearn", "matplotlib"}
    heavy |= {"starlette", "uvicorn", "optuna"}
    assert not heavy & set(fresh["loaded"])


def test_the_list_of_verbs_loads_neither_numpy_nor_pydantic_nor_rich() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, "--help"], capture_output=True, text=True, check=True)
    assert not {"numpy", "pydantic", "rich", "yaml"} & set(json.loads(done.stdout)["loaded"])


def test_version_is_that_of_the_package(cli) -> None:
    assert cli("--version").out.strip() == version("sdcompress")


@pytest.mark.parametrize("verb", ["export", "inspect", "quantize", "bench", "run"])
def test_a_verb_without_what_it_needs_shows_its_help(cli, verb: str) -> None:
    done = cli(verb)
    assert done.code == 2
    assert f"Example: sdcompress {verb}" in done.out + done.err


def test_choices_are_those_of_the_schema_which_help_does_not_load() -> None:
    layout, ensemble = (get_type_hints(export)[name] for name in ("layout", "ensemble"))
    assert get_args(layout) == get_args(graphs.Layout)
    assert set(get_args(ensemble)) == {graphs.Ensemble, type(None)}
    assert get_args(Kind) == (*ROOMS, "recipes", "keys")
