"""build-engines on a machine without a GPU: what is read, what is refused, and by which exit code."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.tensorrt.building.validation import find_reference


def driver_is_here() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


without_driver = pytest.mark.skipif(driver_is_here(), reason="this machine has an NVIDIA driver")


@without_driver
@pytest.mark.parametrize(
    "options",
    [
        "",
        "--batch 1:1:1,2:4:8 --workspace 1GiB --no-tf32 --level 0 --timing-cache a.timing",
        "--validation-samples 0 --max-drop 2% --against nowhere",
    ],
)
def test_without_a_gpu_it_says_what_is_missing(
    cli: Callable, tiny_artifact: Callable[..., Path], tmp_path: Path, options: str
) -> None:
    done = cli("build-engines", tiny_artifact(), "--out", tmp_path / "out", *options.split())
    assert done.code == 3, done.err
    assert "There is no NVIDIA driver here" in done.err
    assert "next: install the driver" in done.err
    assert not (tmp_path / "out").exists()


@without_driver
def test_an_artifact_is_enough_where_only_the_core_is_installed(
    process: Callable, tiny_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    absent = "import sys\nfor name in ('torch', 'onnx', 'tensorrt', 'cuda'): sys.modules[name] = None\n"
    (tmp_path / "sitecustomize.py").write_text(absent, encoding="utf-8")
    out = tmp_path / "out"
    done = process("build-engines", tiny_artifact(), "--out", out, PYTHONPATH=str(tmp_path))
    assert done.code == 3
    assert "There is no NVIDIA driver here" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--batch", "8:1:32"), "does not rise"),
        (("--batch", "1:8:32", "--opt-shapes", "input:8x1x4x4"), "given together"),
        (("--min-shapes", "input:1x1x4x4"), "not complete"),
        (("--opt-shapes", "input:8x3x4x4"), "not a shape of the network's input"),
        (("--workspace", "2GB"), "--workspace is '2GB'"),
        (("--max-drop", "1"), "--max-drop is '1'"),
    ],
)
def test_options_that_cannot_be_are_refused_first(
    cli: Callable, tiny_artifact: Callable[..., Path], tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    done = cli("build-engines", tiny_artifact(), "--out", tmp_path / "out", *options)
    assert done.code == 2, done.err
    assert words in done.err
    assert "next: " in done.err


def test_a_checkpoint_is_exported_first(cli: Callable, made, tmp_path: Path) -> None:
    done = cli("build-engines", made.train, "--out", tmp_path / "out")
    assert done.code == 2
    assert "is a checkpoint" in done.err
    assert f"sdcompress export {made.train} --out ARTIFACT" in done.err


def test_the_doctor_names_each_missing_piece(cli: Callable) -> None:
    done = cli("doctor")
    assert done.code == 0
    assert "TensorRT: " in done.out
    if driver_is_here():
        return
    assert "missing for build-engines: GPU: There is no NVIDIA driver here" in done.out


def test_images_are_found_by_the_recipe_as_many_as_are_asked_for(made) -> None:
    every = find_reference(open_trained_model(made.cascade), count=10**6)
    some = find_reference(open_trained_model(made.cascade), count=20)
    assert every is not None
    assert some is not None
    assert len(some.samples) == 20 < len(every.samples)
    assert some.graphs.exit_names == ("exit1", "exit2", "final")
    assert find_reference(open_trained_model(made.cascade), count=0) is None
