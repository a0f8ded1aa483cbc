"""An artifact whose files are intact but which computes something else is refused, without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from meaning import image_modality, meaning
from onnx import helper, numpy_helper

from sdcompress.artifact.golden import Golden
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import entry, seal
from sdcompress.errors import ArtifactError, ParityError
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.onnx_graph.partition import cut_segments, serialize, tensor_specs
from sdcompress.policies._base import Signals
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.schema.manifest import Exit, Manifest, ParityRecord, Provenance, Segment
from sdcompress.verification.verify import verify

TENSORS = {name: f"{name}_outputs" for name in ("exit1", "exit2", "final")}


def make(folder: Path, models: tuple[onnx.ModelProto, ...], golden: Golden) -> Manifest:
    """A cascade written by hand, whose digest and hashes are right."""
    folder.mkdir()
    golden.save(folder / "golden.npz", image_modality((3, 8, 8)))
    (folder / "README.md").write_text("a card\n")
    listed = []
    for index, model in enumerate(models):
        (folder / f"segment-{index}.onnx").write_bytes(serialize(model))
        file = entry(folder, f"segment-{index}.onnx").model_dump()
        inputs, outputs = tensor_specs(model.graph.input), tensor_specs(model.graph.output)
        listed.append(Segment(**file, inputs=inputs, outputs=outputs, macs=1, parameters=1))
    spec = Preprocess(channels=3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    figures = {"samples": 256, "batches": (1,), "max_abs_diff": 0.0, "tolerance": 1e-4, "flips": 0}
    return seal(
        folder,
        **meaning(tuple("abcde"), spec, (3, 8, 8)),
        layout="cascade",
        segments=listed,
        exits=[Exit(name=name, segment=index, outputs=TENSORS[name]) for index, name in enumerate(TENSORS)],
        golden=entry(folder, "golden.npz"),
        card=entry(folder, "README.md"),
        parity=[ParityRecord(exit=name, **figures) for name in TENSORS],
        provenance=Provenance(
            created="now", recipe={}, recipe_sha256="0" * 64, weights_sha256="0" * 64, data_fingerprint="0" * 64
        ),
    )


def golden_of(model: onnx.ModelProto) -> Golden:
    """Six random images and what the graph says of them when they are run together."""
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    inputs = ((images / 255 - 0.5) / 0.25).astype(np.float32).transpose(0, 3, 1, 2)
    logits = onnx.reference.ReferenceEvaluator(model).run(list(TENSORS.values()), {"input": inputs})
    return Golden(images, np.zeros(6, np.int64), np.stack(logits).astype(np.float32))


def edited(model: onnx.ModelProto, change: Callable[[onnx.GraphProto], None]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    change(copy.graph)
    return copy


def mix_rows(graph: onnx.GraphProto) -> None:
    """final_outputs becomes final_outputs - its mean over the batch."""
    (last,) = [node for node in graph.node if node.output[0] == "final_outputs"]
    last.output[0] = "alone"
    graph.initializer.append(numpy_helper.from_array(np.array([0]), "batch_axis"))
    graph.node.append(helper.make_node("ReduceMean", ["alone", "batch_axis"], ["batch_mean"], keepdims=1))
    graph.node.append(helper.make_node("Sub", ["alone", "batch_mean"], ["final_outputs"]))


def test_a_right_artifact_gives_its_figures(model: onnx.ModelProto, tmp_path: Path) -> None:
    manifest = make(tmp_path / "a", cut_segments(model, list(TENSORS.values())), golden_of(model))
    report = verify(tmp_path / "a")
    assert (report.digest, report.layout, report.files, report.samples) == (manifest.digest, "cascade", 6, 6)
    assert [exit_.name for exit_ in report.exits] == list(TENSORS)
    assert all(
        exit_.max_abs_diff < 1e-5 and exit_.batch_max_abs_diff < 1e-5 and exit_.flips == 0 for exit_ in report.exits
    )


def test_another_backend_is_held_to_the_same_outputs(model: onnx.ModelProto, tmp_path: Path) -> None:
    golden = golden_of(model)
    make(tmp_path / "right", cut_segments(model, list(TENSORS.values())), golden)
    report = verify(tmp_path / "right", backend="openvino")
    assert (report.backend, report.device) == ("openvino", "cpu")
    assert any(sentence.startswith("outputs: openvino on cpu gives") for sentence in report.proved)
    golden.outputs[1, 4, 2] += 0.5
    make(tmp_path / "wrong", cut_segments(model, list(TENSORS.values())), golden)
    with pytest.raises(ParityError, match=r"(?s)'exit2' .* off by 0\.5.*try the backend onnxruntime"):
        verify(tmp_path / "wrong", backend="openvino")


def test_other_logits_than_the_checkpoints_are_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    golden = golden_of(model)
    golden.outputs[1, 4, 2] += 0.5
    make(tmp_path / "a", cut_segments(model, list(TENSORS.values())), golden)
    with pytest.raises(ParityError, match=r"'exit2' .* off by 0\.5") as caught:
        verify(tmp_path / "a")
    assert caught.value.exit_code == 4


def test_golden_logits_that_are_not_numbers_are_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    golden = golden_of(model)
    golden.outputs[0, 0, 0] = np.nan
    make(tmp_path / "a", cut_segments(model, list(TENSORS.values())), golden)
    with pytest.raises(ParityError, match="'exit1'"):
        verify(tmp_path / "a")


def test_an_image_that_depends_on_the_others_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    mixing = edited(model, mix_rows)
    make(tmp_path / "a", cut_segments(mixing, list(TENSORS.values())), golden_of(mixing))
    with pytest.raises(ParityError, match=r"'final' .* depend on the other examples"):
        verify(tmp_path / "a")


def test_a_damaged_file_is_found_before_anything_runs(model: onnx.ModelProto, tmp_path: Path) -> None:
    make(tmp_path / "a", cut_segments(model, list(TENSORS.values())), golden_of(model))
    segment = open_artifact(tmp_path / "a").file(open_artifact(tmp_path / "a").manifest.segments[1])
    segment.write_bytes(segment.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"segment-1\.onnx"):
        verify(tmp_path / "a")


def test_signals_that_are_not_those_of_the_logits_are_found(
    tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, full = tiny_artifact(), CascadeEngine.signals

    def doubtful(network: CascadeEngine, *given: Any) -> tuple[Signals, ...]:
        first, *others = full(network, *given)
        return (Signals({**first.columns, "max_prob": first["max_prob"] - np.float32(1e-4)}, first.decision), *others)

    verify(folder)
    monkeypatch.setattr(CascadeEngine, "signals", doubtful)
    with pytest.raises(ParityError, match="signals of the exit 'exit1'"):
        verify(folder)
