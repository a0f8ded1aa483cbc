"""The verbs as Python calls: there whatever was imported before, and without torch where torch is not needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sdcompress
from sdcompress.errors import RecipeError


@pytest.mark.parametrize("verb", sdcompress.__all__)
def test_a_verb_is_callable_whatever_room_was_imported_before(verb: str) -> None:
    import sdcompress.benchmarking.run
    import sdcompress.calibration.calibrate
    import sdcompress.evaluation.evaluate
    import sdcompress.exporting.export
    import sdcompress.reporting.build
    import sdcompress.training.run

    assert callable(getattr(sdcompress, verb))


def test_dir_lists_the_verbs_before_any_was_used() -> None:
    code = "import sdcompress; print(*dir(sdcompress)); print(*sdcompress.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed, verbs = (set(line.split()) for line in done.stdout.splitlines())
    using = {"bench", "calibrate", "evaluate", "explain", "open", "plan", "predict", "quantize", "report"}
    looking = {"Options", "doctor", "inspect", "list_entries"}
    assert verbs == using | looking | {"build_engines", "export", "run", "sign", "train", "verify"}
    assert verbs <= listed
    assert "__version__" in listed


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        sdcompress.tarin  # noqa: B018


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after some code."""
    script = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "torchvision", "timm", "lightning_fabric", "onnx", "onnxscript", "sklearn", "matplotlib", "pandas"}


def test_import_loads_next_to_nothing() -> None:
    assert not loaded_after("import sdcompress") & (HEAVY | {"numpy", "onnxruntime", "pydantic"})


def test_the_verbs_for_artifacts_load_no_torch() -> None:
    code = "import sdcompress; sdcompress.open, sdcompress.bench, sdcompress.calibrate, sdcompress.verify"
    found = loaded_after(code)
    assert "numpy" in found
    assert not found & HEAVY


def test_a_loss_that_cannot_be_is_an_error_of_ours(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'calibrate\.max_drop' is 2"):
        sdcompress.calibrate(tiny_artifact(), tmp_path / "out", {"max_drop": 2.0})
