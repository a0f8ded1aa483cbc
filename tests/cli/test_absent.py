"""Without the extras: what needs them says which pip line helps, everything else works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

CORE_ONLY = """
import sys

ABSENT = {"torch", "torchvision", "timm", "lightning_fabric", "onnx", "onnxscript", "onnx_ir", "safetensors", "sklearn",
          "scipy", "tensorboard", "matplotlib", "jinja2", "model_signing", "starlette", "uvicorn", "orjson",
          "prometheus_client", "optuna"}


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def core(process: Callable, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """The command line where only the core of sdcompress is installed."""
    folder = tmp_path_factory.mktemp("core")
    (folder / "sitecustomize.py").write_text(CORE_ONLY, encoding="utf-8")
    return lambda *arguments: process(*arguments, PYTHONPATH=str(folder))


def refused(done, extra: str) -> None:
    assert done.code == 3, done.err
    assert f"pip install 'sdcompress[{extra}]'" in done.err
    assert "Traceback" not in done.err
    assert not done.out


def test_train_names_its_extra(core, tmp_path: Path) -> None:
    refused(core("train", "-c", "digits", "--out", tmp_path / "run"), "train")
    assert not (tmp_path / "run").exists()


def test_run_names_its_extra(core, tmp_path: Path) -> None:
    refused(core("run", "digits", "--out", tmp_path / "run"), "train")


def test_export_and_the_evaluation_of_a_checkpoint_name_theirs(core, made, tmp_path: Path) -> None:
    refused(core("export", made.train, "--out", tmp_path / "artifact"), "export")
    refused(core("evaluate", made.train), "train")


def test_quantize_names_its_extra(core, made, tmp_path: Path) -> None:
    refused(core("quantize", made.cascade, "--precision", "int8", "--out", tmp_path / "int8"), "quantize")


def test_report_names_its_extra(core, made, tmp_path: Path) -> None:
    refused(core("report", made.cascade, "--out", tmp_path / "report"), "report")


def test_serve_names_its_extra(core, made) -> None:
    refused(core("serve", made.cascade), "serve")


def test_signatures_name_theirs(core, made, tmp_path: Path) -> None:
    refused(core("sign", made.cascade, "--key", tmp_path / "key.pem"), "sign")


def test_an_artifact_is_verified_inspected_and_measured(core, made) -> None:
    assert core("verify", made.cascade).code == 0
    told = json.loads(core("inspect", made.cascade, "--json").out)
    assert told["layout"] == "cascade"
    quick = ["--samples", "golden", "--scenario", "single-stream", "--duration", "100ms", "--warmup", "1ms"]
    measured = json.loads(core("bench", made.cascade, *quick, "--rounds", "5", "--json").out)
    assert measured["records"][0]["name"] == "cascade"


def test_list_and_doctor_tell_what_is_there(core) -> None:
    assert {"methods", "models"} <= set(json.loads(core("list", "--json").out))
    assert core("doctor").code == 0
