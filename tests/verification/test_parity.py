"""The gate lets through what the checkpoint computes, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from signals import TASK

from sdcompress.errors import ParityError
from sdcompress.modalities import Inputs
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.onnx_graph.exit_signals import add_signals
from sdcompress.onnx_graph.partition import cut_segments, serialize
from sdcompress.schema.recipe import Export
from sdcompress.tasks.classification import Classification
from sdcompress.verification import parity
from sdcompress.verification.edge_cases import EdgeCases, edge_case_inputs
from sdcompress.verification.gate import ParityGate
from sdcompress.verification.sessions import SegmentSessions

SETTINGS = Export(atol=1e-4, rtol=1e-3, parity_max_batch=16)
EXITS = ("exit1", "final")


def sample(count: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Images whose pixels are their own logits: exit1 has the first three, final the last three."""
    images = np.random.default_rng(0).integers(0, 256, (count, 2, 3, 1), np.uint8)
    images[0] = 255
    return images, perfect(images)


def perfect(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), 2, 3).transpose(1, 0, 2).astype(np.float32)


def findings(run: Callable[[np.ndarray], np.ndarray]) -> tuple[parity.Finding, ...]:
    images, reference = sample()
    return parity.compare_outputs(lambda: run, images, reference, exits=EXITS, task=TASK, settings=SETTINGS)


def test_what_is_equal_passes_with_its_figures() -> None:
    result = findings(perfect)
    assert parity.describe_failures(result) == ""
    first, _ = parity.records(result)
    assert (first.exit, first.samples, first.batches) == ("exit1", 256, (1, 2, 7, 16))
    assert (first.max_abs_diff, first.flips) == (0.0, 0)
    assert first.tolerance == pytest.approx(1e-4 + 1e-3 * 255)


@pytest.mark.parametrize(("shift", "passes"), [(0.25, True), (0.26, False)])
def test_the_tolerance_is_atol_plus_rtol_times_the_largest_logit(shift: float, passes: bool) -> None:
    result = findings(lambda images: perfect(images) + np.float32([[[shift]], [[0]]]))
    assert (result[0].problem == "") is passes  # allowed: 0.2551
    assert result[0].max_abs_diff == pytest.approx(shift, abs=1e-4)
    assert result[1].problem == ""


def test_every_batch_size_is_used() -> None:
    sizes = set()

    def run(images: np.ndarray) -> np.ndarray:
        sizes.add(len(images))
        return perfect(images)

    findings(run)
    assert sizes == {1, 2, 7, 16}


def test_a_few_images_come_again_so_that_every_batch_size_is_used() -> None:
    sizes = set()

    def run(images: np.ndarray) -> np.ndarray:
        sizes.add(len(images))
        return perfect(images)

    images, reference = sample(3)
    result = parity.compare_outputs(lambda: run, images, reference, exits=EXITS, task=TASK, settings=SETTINGS)
    assert sizes == {1, 2, 3, 7, 16}
    first = parity.records(result)[0]
    assert (first.samples, first.batches) == (3, (1, 2, 7, 16))


def test_fewer_images_prove_less_and_the_warning_names_the_bound() -> None:
    assert parity.weaker(256, 256) == ""
    sentence = parity.weaker(45, 256)
    assert "45 held-out examples prove the export, not 256" in sentence
    # 0.95 = 1 - (1 - p)^n: 1 - 0.05^(1/45) = 0.0644, 1 - 0.05^(1/256) = 0.0116
    assert "6.4 % of new examples" in sentence
    assert "1.2 %" in sentence


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_a_fault_at_one_batch_size_only_is_seen(size: int) -> None:
    result = findings(lambda images: perfect(images) + (len(images) == size))
    assert all(finding.problem for finding in result)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_logit_that_is_not_finite_fails(value: float) -> None:
    def run(images: np.ndarray) -> np.ndarray:
        logits = perfect(images)
        logits[1][images[:, 0, 0, 0] == sample()[0][200, 0, 0, 0]] = value
        return logits

    first, final = findings(run)
    assert first.problem == ""
    assert (final.problem, final.max_abs_diff) == ("outputs are not finite", None)


def test_a_checkpoint_that_is_not_finite_is_not_exported() -> None:
    images, reference = sample()
    reference[0, 3, 1] = np.nan
    first, final = parity.compare_outputs(lambda: perfect, images, reference, exits=EXITS, task=TASK, settings=SETTINGS)
    assert first.problem == "the checkpoint's own outputs are not finite"
    assert final.problem == ""


@pytest.mark.parametrize(
    "mix",
    [
        lambda logits: logits - logits.mean(1, keepdims=True),  # as batch norm in training mode
        lambda logits: logits + np.roll(logits, 1, axis=1),  # each row sees the one before
        lambda logits: logits * (1 + 0.01 * np.arange(logits.shape[1])[None, :, None]),  # by place in the batch
    ],
)
def test_rows_that_influence_each_other_are_seen(mix: Callable[[np.ndarray], np.ndarray]) -> None:
    result = findings(lambda images: mix(perfect(images)).astype(np.float32))
    assert all("depend on the other examples of the batch" in finding.problem for finding in result)


def test_a_class_that_changes_is_counted_only_beyond_the_tolerance() -> None:
    images = np.zeros((256, 2, 3, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(256)  # an image says which one it is
    reference = np.zeros((2, 256, 3), np.float32)
    reference[:, :, 0] = 100.0
    reference[:, :15, 1] = 99.95
    exported = reference.copy()
    exported[:, :10, 1] = 100.01  # another class, but within the 0.1001 that an output may be off
    exported[:, 10:15, 1] = 101.95

    def run(images: np.ndarray) -> np.ndarray:
        return exported[:, images[:, 0, 0, 0]]

    first, _ = parity.compare_outputs(lambda: run, images, reference, exits=EXITS, task=TASK, settings=SETTINGS)
    assert first.worst[:5] == (10, 11, 12, 13, 14)
    assert first.flips == 5
    assert first.problem == "outputs are off by 2 (allowed 0.1), 5 of 256 decisions change"


@pytest.fixture
def gate(model: onnx.ModelProto) -> ParityGate:
    """The gate over the tiny network, the reference taken from its own graph."""
    images = np.random.default_rng(0).integers(0, 256, (256, 8, 8, 3), np.uint8)
    spec = Preprocess(channels=3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    modality = Image(spec, (3, 8, 8))
    reference = onnx.reference.ReferenceEvaluator(model)

    def answers(inputs: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(TENSORS, reference.run(None, {"input": inputs}), strict=True))

    kinds, hard = edge_case_inputs(modality)
    edge_cases = EdgeCases(kinds, hard, answers(np.asarray(hard)), answers(np.asarray(hard)))
    inputs = ((images / 255 - 0.5) / 0.25).astype(np.float32).transpose(0, 3, 1, 2)
    return ParityGate(
        images,
        answers(inputs),
        edge_cases,
        modality=modality,
        task=TASK,
        settings=Export(),
        advance=lambda _: None,
    )


TENSORS = {name: f"{name}_outputs" for name in ("exit1", "exit2", "final")}


def files(models: tuple[onnx.ModelProto, ...]) -> dict[str, bytes]:
    return {f"segment-{index}.onnx": serialize(model) for index, model in enumerate(models)}


def test_a_right_chain_passes(gate: ParityGate, model: onnx.ModelProto, tmp_path: Path) -> None:
    records = gate(files(cut_segments(model, list(TENSORS.values()))), TENSORS, out=tmp_path / "out", what="chain")
    assert [record.exit for record in records] == list(TENSORS)
    assert list(tmp_path.iterdir()) == []


def test_signals_are_compared_in_batches_of_the_recipe(
    gate: ParityGate, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """256 images at once would take eight times the memory of the largest batch of the gate, 32."""
    first, *others = cut_segments(model, list(TENSORS.values()))
    first, names = add_signals(first, "exit1", "exit1_outputs", TASK, batch="batch")
    run, sizes = SegmentSessions.run, list[int]()

    def counted(sessions: SegmentSessions, inputs: Inputs) -> dict[str, np.ndarray]:
        sizes.append(len(inputs))
        return run(sessions, inputs)

    monkeypatch.setattr(SegmentSessions, "run", counted)
    gate.signals(files((first, *others)), {}, TENSORS)
    assert sizes == []  # a layout without signals runs nothing
    gate.signals(files((first, *others)), {"exit1": names}, TENSORS)
    assert sizes == [32] * 8


def test_what_is_nan_for_a_blank_image_alone_is_found_and_the_node_is_named(
    gate: ParityGate, model: onnx.ModelProto, tmp_path: Path
) -> None:
    """The logits of exit1 times span / span: 1 for every real image, 0 / 0 for a blank one."""
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    for node in broken.graph.node:
        node.output[:] = [name.replace("exit1_outputs", "whole") for name in node.output]
    axes = numpy_helper.from_array(np.array([1, 2, 3]), "axes")
    flat = numpy_helper.from_array(np.array([-1, 1]), "flat")
    broken.graph.initializer.extend([axes, flat])
    broken.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["input", "axes"], ["high"]),
            helper.make_node("ReduceMin", ["input", "axes"], ["low"]),
            helper.make_node("Sub", ["high", "low"], ["span"]),
            helper.make_node("Div", ["span", "span"], ["one"], name="the-ratio"),
            helper.make_node("Reshape", ["one", "flat"], ["column"]),
            helper.make_node("Mul", ["whole", "column"], ["exit1_outputs"]),
        ]
    )
    with pytest.raises(ParityError) as caught:
        gate({"model.onnx": serialize(broken)}, TENSORS, out=tmp_path / "out", what="graph")
    assert (
        "exit1: of an example that is black, outputs are not finite, which the checkpoint's are" in caught.value.problem
    )
    assert "node 'the-ratio' (Div) of model.onnx" in caught.value.problem
    assert "epsilon" in caught.value.next_step
    assert (tmp_path / "out.failed" / "model.onnx").exists()


def test_one_perturbed_weight_is_found_at_the_exits_behind_it(
    gate: ParityGate, model: onnx.ModelProto, tmp_path: Path
) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    (weight,) = [tensor for tensor in broken.graph.initializer if tensor.name == "second.weight"]
    values = numpy_helper.to_array(weight).copy()
    values += 1.0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    with pytest.raises(ParityError, match=r"exit2: outputs are off by .* final: outputs are off by") as caught:
        gate(files(cut_segments(broken, list(TENSORS.values()))), TENSORS, out=tmp_path / "out", what="chain")
    assert "exit1" not in caught.value.problem
    assert sorted(path.name for path in (tmp_path / "out.failed").iterdir()) == [
        "parity.json",
        *(f"segment-{index}.onnx" for index in range(3)),
    ]
    figures = json.loads((tmp_path / "out.failed" / "parity.json").read_text())
    assert [bool(figure["problem"]) for figure in figures] == [False, True, True]


def test_a_later_failure_replaces_only_an_earlier_one(gate: ParityGate, model: onnx.ModelProto, tmp_path: Path) -> None:
    wrong = dict(zip(TENSORS, reversed(TENSORS.values()), strict=True))
    failed = tmp_path / "out.failed"
    with pytest.raises(ParityError):
        gate(files(cut_segments(model, list(TENSORS.values()))), wrong, out=tmp_path / "out", what="chain")
    with pytest.raises(ParityError):
        gate({"model.onnx": serialize(model)}, wrong, out=tmp_path / "out", what="graph")
    assert sorted(path.name for path in failed.iterdir()) == ["model.onnx", "parity.json"]
    (failed / "parity.json").unlink()
    (failed / "model.onnx").rename(failed / "mine.onnx")
    with pytest.raises(ParityError):
        gate({"model.onnx": serialize(model)}, wrong, out=tmp_path / "out", what="graph")
    assert sorted(path.name for path in failed.iterdir()) == ["mine.onnx", "model.onnx", "parity.json"]


def test_a_frozen_batch_is_a_failure_with_the_runtimes_reason(gate: ParityGate, tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([2, 192]), "shape")
    nodes = [helper.make_node("Reshape", ["input", "shape"], ["final_outputs"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("final_outputs", TensorProto.FLOAT, None)],
        [shape],
    )
    frozen = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with pytest.raises(ParityError, match=r"cannot be run in every batch size: .*Reshape"):
        gate({"model.onnx": serialize(frozen)}, {"final": "final_outputs"}, out=tmp_path / "out", what="graph")


def test_a_graph_that_the_runtime_cannot_load_is_a_failure(gate: ParityGate, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("NoSuchOperator", ["input"], ["final_outputs"])],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("final_outputs", TensorProto.FLOAT, ["batch", 5])],
    )
    unknown = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with pytest.raises(ParityError, match="NoSuchOperator"):
        gate({"model.onnx": serialize(unknown)}, {"final": "final_outputs"}, out=tmp_path / "out", what="graph")


def test_numbers_that_round_are_no_flips() -> None:
    class Numbers(Classification):
        def decide(self, outputs: np.ndarray) -> np.ndarray:
            """The first output."""
            return outputs[..., 0]

    outputs = np.float32([[1, 2], [3, 4]])
    assert parity.count_flips(Numbers(("a", "b")), [outputs + 1e-3], outputs) == 0
    assert parity.count_flips(Classification(("a", "b")), [outputs * [3, 1]], outputs) == 2
