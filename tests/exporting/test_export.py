"""From a checkpoint on real images to artifacts that prove themselves without torch."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from sdcompress import export
from sdcompress.artifact.read import open_artifact
from sdcompress.checkpoint import open_checkpoint
from sdcompress.errors import OutputExistsError, ParityError, UnknownNameError, UsageError
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.exporting.export import export_all
from sdcompress.exporting.export_spec import ExportSpec
from sdcompress.modalities._image_preprocess import normalise
from sdcompress.options import Options
from sdcompress.runtime.open import open_engine
from sdcompress.schema.recipe import Export
from sdcompress.verification.verify import verify

LAYOUTS = ("single", "cascade", "all")


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All layouts, from one export."""
    folder = tmp_path_factory.mktemp("artifacts")
    targets = [ExportSpec(folder / layout, layout) for layout in LAYOUTS]
    targets.append(ExportSpec(folder / "truncated", "single", exit="exit1"))
    ticks: list[tuple[int, int]] = []
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        export_all(checkpoint, targets, Export(), Options(progress=lambda *tick: ticks.append(tick)))
    assert printed.getvalue() == ""
    assert ticks == sorted(ticks)
    assert ticks[-1][0] == ticks[-1][1]
    return folder


@pytest.mark.parametrize(
    ("file", "exits"),
    [
        ("single/model.onnx", ["final"]),
        ("truncated/model.onnx", ["exit1"]),
        ("all/model.onnx", ["exit1", "exit2", "final"]),
        ("cascade/segment-1.onnx", ["exit2"]),
    ],
)
def test_the_file_alone_describes_its_tensors(folder: Path, checkpoint: Path, file: str, exits: list[str]) -> None:
    source = open_checkpoint(checkpoint)
    session = onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
    metadata = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert metadata == {
        "sdcompress.task": {"name": "classification", "parameters": {}},
        "sdcompress.outputs": list(source.task.outputs),
        "sdcompress.modality": source.modality.record.model_dump(mode="json"),
        "sdcompress.exits": exits,
    }


@pytest.fixture(scope="module")
def truth(checkpoint: Path) -> tuple[np.ndarray, np.ndarray]:
    """Validation images and the checkpoint's logits on them, by torch alone."""
    source = open_checkpoint(checkpoint)
    val = open_trained_model(source).dataset().val
    images = val.examples(np.arange(len(val)))
    with torch.no_grad():
        logits = source.network()(torch.from_numpy(normalise(images, source.modality.preprocess))).logits
    return images, np.stack([exit_.numpy() for exit_ in logits])


@pytest.mark.parametrize(
    ("name", "files", "exits"),
    [
        ("single", ["model.onnx"], ["final"]),
        ("truncated", ["model.onnx"], ["exit1"]),
        ("cascade", ["segment-0.onnx", "segment-1.onnx", "segment-2.onnx"], ["exit1", "exit2", "final"]),
        ("all", ["model.onnx"], ["exit1", "exit2", "final"]),
    ],
)
def test_every_layout_gives_the_checkpoints_logits(
    folder: Path, truth: tuple[np.ndarray, np.ndarray], name: str, files: list[str], exits: list[str]
) -> None:
    manifest = open_artifact(folder / name).manifest
    assert [segment.file for segment in manifest.segments] == files
    assert [exit_.name for exit_ in manifest.exits] == exits
    engine = open_engine(folder / name, threads=1)
    images, logits = truth
    rows = [("exit1", "exit2", "final").index(exit_) for exit_ in exits]
    np.testing.assert_allclose(engine.exits(engine.preprocess(images)), logits[rows], atol=2e-5)


def test_the_manifest_carries_scores_costs_and_provenance(
    folder: Path, checkpoint: Path, truth: tuple[np.ndarray, np.ndarray]
) -> None:
    source = open_checkpoint(checkpoint)
    manifest = open_artifact(folder / "cascade").manifest
    right = (truth[1].argmax(2) == open_trained_model(source).dataset().val.targets).mean(1)
    assert [exit_.metrics["accuracy"] for exit_ in manifest.exits] == pytest.approx(right.tolist())
    assert all("ece" in exit_.metrics for exit_ in manifest.exits)
    full = open_artifact(folder / "all").manifest.segments[0]
    assert sum(segment.macs for segment in manifest.segments) == full.macs
    assert sum(segment.parameters for segment in manifest.segments) == full.parameters
    truncated = open_artifact(folder / "truncated").manifest.segments[0]
    assert truncated.macs == manifest.segments[0].macs
    origin = manifest.provenance
    assert origin.recipe == source.recipe.model_dump(mode="json")
    assert (origin.weights_sha256, origin.data_fingerprint) == (source.weights_sha256, source.data_fingerprint)
    assert {"torch", "onnx", "onnxruntime", "sdcompress", "python"} <= origin.versions.keys()
    for record in manifest.parity:
        assert record.samples == 256
        assert record.batches == (1, 2, 7, 32)
        assert 0 <= record.max_abs_diff <= record.tolerance


def test_the_golden_samples_are_the_checkpoints_own(folder: Path, checkpoint: Path) -> None:
    source = open_checkpoint(checkpoint)
    golden = open_artifact(folder / "cascade").golden()
    assert len(golden.targets) == 32
    with torch.no_grad():
        logits = source.network()(torch.from_numpy(normalise(golden.examples, source.modality.preprocess))).logits
    np.testing.assert_allclose(golden.outputs, np.stack([exit_.numpy() for exit_ in logits]), atol=1e-5)
    assert len(set(golden.targets.tolist())) > 5  # spread over the split, not its first images


def test_graphs_hold_nothing_of_the_machine_and_are_the_same_each_time(
    folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    again = export(checkpoint, tmp_path / "again", layout="cascade", settings=Export())
    assert again.segments == open_artifact(folder / "cascade").manifest.segments
    for segment in again.segments:
        text = (tmp_path / "again" / segment.file).read_bytes()
        for word in (b"site-packages", b'File "', str(Path.home()).encode(), str(Path(__file__).parents[2]).encode()):
            assert word not in text


def test_verify_passes_and_reports_each_exit(folder: Path) -> None:
    for name in LAYOUTS:
        report = verify(folder / name)
        assert report.layout == name
        assert report.samples == 32
        assert all(exit_.max_abs_diff <= exit_.tolerance for exit_ in report.exits)
        assert all(exit_.flips == 0 for exit_ in report.exits)


def test_verify_runs_without_torch_or_onnx(folder: Path) -> None:
    script = (
        "import sys; from sdcompress.verification.verify import verify; verify(sys.argv[1]);"
        "print([m for m in ('torch', 'onnx', 'timm', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, folder / "cascade"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["single", "cascade", "all"])
def test_the_card_runs_as_written(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (folder / name / "README.md").read_text(encoding="utf-8")
    with_us, without = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(folder / name)
    golden = np.load("golden.npz")
    assert "sdcompress" not in without
    names: dict[str, Any] = {}
    monkeypatch.setattr(sys, "argv", ["classify.py"])
    exec(without, names)
    inputs = [{"input": names["network_input"](Image.fromarray(image[..., 0]))} for image in golden["examples"]]
    predictions = [names["predict"](one) for one in inputs]
    answers = [one[0] for one in predictions] if name == "cascade" else predictions
    assert answers == golden["outputs"][-1].argmax(1).tolist()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(with_us, {"raw_example": golden["examples"][0]})
    assert printed.getvalue().split()[0] == str(golden["outputs"][-1, 0].argmax())


def test_one_exit_alone_is_a_plain_onnx_file(folder: Path) -> None:
    session = onnxruntime.InferenceSession(folder / "truncated" / "model.onnx")
    assert [(port.name, port.shape) for port in session.get_inputs()] == [("input", ["batch", 1, 32, 32])]
    assert [(port.name, port.shape) for port in session.get_outputs()] == [("exit1_outputs", ["batch", 10])]
    full = onnxruntime.InferenceSession(folder / "all" / "model.onnx")
    assert (folder / "truncated" / "model.onnx").stat().st_size < (folder / "all" / "model.onnx").stat().st_size / 2
    x = np.random.default_rng(0).normal(size=(3, 1, 32, 32)).astype(np.float32)
    truncated, whole = session.run(None, {"input": x}), full.run(["exit1_outputs"], {"input": x})
    np.testing.assert_allclose(truncated[0], whole[0], atol=1e-6)


def test_every_exit_of_a_cascade_but_the_last_has_signals(folder: Path) -> None:
    manifest = open_artifact(folder / "cascade").manifest
    assert [exit_.signals is None for exit_ in manifest.exits] == [False] * (len(manifest.exits) - 1) + [True]
    for name in ("single", "all"):
        assert all(exit_.signals is None for exit_ in open_artifact(folder / name).manifest.exits)


def test_an_unknown_exit_and_a_cascade_of_its_first_exit_alone_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'exit1'"):
        export(checkpoint, tmp_path / "a", layout="single", truncate_at="exit11", settings=Export())
    with pytest.raises(UsageError, match="'exit1' is the only exit to keep"):
        export(checkpoint, tmp_path / "a", layout="cascade", truncate_at="exit1", settings=Export())
    assert list(tmp_path.iterdir()) == []


def test_an_existing_artifact_is_kept_without_overwrite(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    before = (folder / "single" / "manifest.json").read_bytes()
    targets = [ExportSpec(tmp_path / "new", "all"), ExportSpec(folder / "single", "single")]
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export_all(checkpoint, targets, settings=Export())
    assert (folder / "single" / "manifest.json").read_bytes() == before
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_the_gate_is_set_aside_with_its_figures(checkpoint: Path, tmp_path: Path) -> None:
    strict = Export(atol=1e-12, rtol=1e-12)  # float32 sums differ by more, so that this must fail
    with pytest.raises(ParityError, match="outputs are off by") as caught:
        export(checkpoint, tmp_path / "out", layout="single", settings=strict)
    assert caught.value.exit_code == 4
    assert str(tmp_path / "out.failed" / "parity.json") in caught.value.next_step
    assert [path.name for path in tmp_path.iterdir()] == ["out.failed"]
    assert sorted(path.name for path in (tmp_path / "out.failed").iterdir()) == ["model.onnx", "parity.json"]
    findings = json.loads((tmp_path / "out.failed" / "parity.json").read_text())
    assert [finding["exit"] for finding in findings] == ["exit1", "exit2", "final"]
    assert all(1e-12 < finding["max_abs_diff"] < 1e-4 for finding in findings)
    assert all(len(finding["worst"]) == 8 for finding in findings)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
