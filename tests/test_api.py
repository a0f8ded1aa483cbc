"""The verbs as Python calls: there whatever was imported before, and without torch where torch is not needed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sdcompress
from sdcompress.artifact import read
from sdcompress.data.samples import Dataset
from sdcompress.errors import RecipeError, UnknownNameError
from sdcompress.evaluation.trained_model import TrainedModel
from sdcompress.modalities import modality_of
from sdcompress.options import Options
from sdcompress.tasks import task_of


@pytest.mark.parametrize("verb", sdcompress.__all__)
def test_a_verb_is_callable_whatever_room_was_imported_before(verb: str) -> None:
    import sdcompress.benchmarking.run
    import sdcompress.calibration.calibrate
    import sdcompress.evaluation.evaluate
    import sdcompress.exporting.export
    import sdcompress.reporting.report.build
    import sdcompress.training.run

    assert callable(getattr(sdcompress, verb))


def test_dir_lists_the_verbs_before_any_was_used() -> None:
    code = "import sdcompress; print(*dir(sdcompress)); print(*sdcompress.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed, verbs = (set(line.split()) for line in done.stdout.splitlines())
    using = {"bench", "calibrate", "evaluate", "explain", "open", "plan", "predict", "quantize", "report"}
    looking = {"Options", "capacity", "doctor", "inspect", "list_entries"}
    making = {
        "build_engines",
        "compress",
        "export",
        "package",
        "prune",
        "run",
        "serve",
        "sign",
        "train",
        "tune",
        "verify",
    }
    assert verbs == using | looking | making
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


VERBS: dict[str, Callable[[Path, Path], object]] = {
    "inspect": lambda artifact, _: sdcompress.inspect(artifact),
    "verify": lambda artifact, _: sdcompress.verify(artifact),
    "evaluate": lambda artifact, _: sdcompress.evaluate(artifact, Options(threads=1)),
    "explain": sdcompress.explain,
    "bench": lambda artifact, _: sdcompress.bench([artifact], QUICK),
    "bench golden": lambda artifact, _: sdcompress.bench([artifact], QUICK, samples="golden"),
    "calibrate": lambda artifact, out: sdcompress.calibrate(artifact, out, {"max_drop": 0.05}),
    "plan": lambda artifact, _: sdcompress.plan(artifact, {"max_drop": 0.05, "confidence": 0.9}),
    "quantize": lambda artifact, out: sdcompress.quantize(artifact, out, "fp16", {"max_drop": 0.5}, Options(threads=1)),
    "report": lambda artifact, out: sdcompress.report({"tiny": artifact}, out),
}
QUICK = {"scenarios": ["single-stream"], "warmup_ms": 1, "duration_s": 0.01, "rounds": 5}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
def test_a_verb_hashes_each_file_of_an_artifact_once(
    verb: Callable[[Path, Path], object],
    tiny_artifact: Callable[..., Path],
    tiny_network: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifact, samples = tiny_artifact(policy=(0.6, 0.6)), tiny_network.samples(600)
    manifest = sdcompress.inspect(artifact)
    data = Dataset("mine", samples, samples, samples, task_of(manifest), modality_of(manifest), "3" * 64)
    hashed, sha256 = Counter[str](), read.sha256_of

    def counted(path: Path, *args: Any) -> str:
        hashed[str(path)] += 1
        return sha256(path, *args)

    monkeypatch.setattr(TrainedModel, "dataset", lambda _: data)
    monkeypatch.setattr(read, "sha256_of", counted)
    verb(artifact, tmp_path / "out")
    assert {str(artifact / name) for name in ("segment-0.onnx", "golden.npz", "README.md")} <= set(hashed)
    assert set(hashed.values()) == {1}


def test_what_can_be_named_is_listed_as_the_command_line_lists_it() -> None:
    listed = sdcompress.list_entries()
    assert listed["policies"] == sdcompress.list_entries("policies")["policies"]
    assert "max_prob" in listed["policies"]
    assert "digits" in listed["recipes"]
    with pytest.raises(UnknownNameError, match="Did you mean 'policies'"):
        sdcompress.list_entries("polices")


def test_the_doctor_names_the_machine() -> None:
    assert sdcompress.doctor().machine.cores >= 1


def test_a_loss_that_cannot_be_is_an_error_of_ours(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'calibrate\.max_drop' is 2"):
        sdcompress.calibrate(tiny_artifact(), tmp_path / "out", {"max_drop": 2.0})
