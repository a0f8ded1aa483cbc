"""What the doctor says of this machine, of metadata and of machines with a problem."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import onnxruntime
import pytest

from sdcompress.machine import machine
from sdcompress.verbs.doctor import Diagnosis, _warnings, doctor, new_enough, read_requirements

METADATA = [
    "numpy>=1.26",
    "sdcompress[train,vision]; extra == 'all'",
    'torch>=2.9; extra == "train"',
    "scikit-learn>=1.4 ; extra == 'train'",
    "pytest>=8; extra == 'dev'",
    "timm; python_version >= '3.10' and extra == 'vision'",
    "onnxruntime>=1.24.1; python_version >= '3.2'",
    "onnxruntime>=1.20; python_version < '3.2'",
]


def test_the_extras_are_read_from_the_metadata() -> None:
    assert read_requirements(METADATA) == {
        "core": [("numpy", "1.26"), ("onnxruntime", "1.24.1")],
        "train": [("torch", "2.9"), ("scikit-learn", "1.4")],
        "vision": [("timm", None)],
    }


@pytest.mark.parametrize(
    ("installed", "minimum", "enough"),
    [
        ("2.10.1", "2.9", True),
        ("2.8.9", "2.9", False),
        ("2.9", "2.9.0", True),
        ("2.9.0+cpu", "2.9", True),
        ("3.0rc1", "2.9", True),
        ("1.0", None, True),
    ],
)
def test_versions_are_compared_as_numbers(installed: str, minimum: str | None, enough: bool) -> None:
    assert new_enough(installed, minimum) is enough


def test_this_machine() -> None:
    diagnosis = doctor()
    core = next(extra for extra in diagnosis.extras if extra.name == "core")
    assert core.complete
    assert {p.name: p.installed for p in core.packages}["pydantic"] == version("pydantic")
    assert {extra.name: extra.install for extra in diagnosis.extras}[
        "train"
    ] == "pip install --upgrade 'sdcompress[train]'"
    assert diagnosis.providers == tuple(onnxruntime.get_available_providers())
    assert Diagnosis.model_validate_json(diagnosis.model_dump_json()) == diagnosis


def test_every_problem_is_named() -> None:
    ill = machine().model_copy(
        update={
            "cores": 2,
            "quota": 1.5,
            "governor": "powersave",
            "busy_cores": 3.0,
            "gpu": "NVIDIA X",
            "versions": {"onnxruntime": "1", "onnxruntime-gpu": "1"},
        }
    )
    warnings = _warnings(ill, 64, ("CPUExecutionProvider",))
    for warning, words in zip(
        warnings, ("1.5 of 64 cores", "powersave", f"3.0 of {os.cpu_count()} cores", "a GPU", "overwrite"), strict=True
    ):
        assert words in warning
    well = ill.model_copy(
        update={"quota": 64.0, "governor": "performance", "busy_cores": 0.0, "gpu": None, "versions": {}}
    )
    assert _warnings(well, 64, ()) == []


def test_it_loads_nothing_heavy() -> None:
    code = "import sys, sdcompress; sdcompress.doctor(); print([m for m in ('torch', 'onnx') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
