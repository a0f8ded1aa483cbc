"""Exits that no sample takes cost no head: the nodes that only they need are not even loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sdcompress.artifact.execution_target import ExecutionTarget
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.errors import ArtifactError
from sdcompress.options import EngineOptions
from sdcompress.quantizing.quantize import quantize
from sdcompress.runtime.cascade import CascadeEngine, array_cascade
from sdcompress.runtime.headless import joinable, joined, stretches, with_outputs
from sdcompress.runtime.open import open_cascade
from sdcompress.runtime.stepwise import Carried
from sdcompress.schema.manifest import Segment
from sdcompress.untrusted import Refused

Write = Callable[..., Path]
NEVER = 2.0
ANY = EngineOptions(threads=1, allow_uncertified=True)


def images(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, 1, 4, 4)).astype(np.float32)


def branching() -> onnx.ModelProto:
    """y = x + a, z = x * b; w = x + c or x - c, by an If whose branches read x and c of the graph around it."""
    info, node = helper.make_tensor_value_info, helper.make_node
    branches = {
        f"{name}_branch": helper.make_graph(
            [node(operator, ["x", "c"], [name])], name, [], [info(name, TensorProto.FLOAT, None)]
        )
        for name, operator in (("then", "Add"), ("else", "Sub"))
    }
    nodes = [
        node("Add", ["x", "a"], ["y"]),
        node("Mul", ["x", "b"], ["z"]),
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["w"], **branches),
    ]
    stored = {"a": 1.0, "b": 2.0, "c": 3.0, "zero": 0.0}
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, ["batch", 2])],
        [info(name, TensorProto.FLOAT, ["batch", 2]) for name in "yzw"],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(
    ("kept", "nodes", "stored"),
    [
        (["y"], ["Add"], {"a"}),
        (["z", "y"], ["Add", "Mul"], {"a", "b"}),
        (["w"], ["ReduceSum", "Greater", "If"], {"c", "zero"}),
    ],
)
def test_only_what_the_kept_outputs_need_stays(kept: list[str], nodes: list[str], stored: set[str]) -> None:
    model = branching()
    pruned = onnx.load_from_string(with_outputs(model.SerializeToString(), kept))
    onnx.checker.check_model(pruned, full_check=True)
    assert [node.op_type for node in pruned.graph.node] == nodes
    assert {tensor.name for tensor in pruned.graph.initializer} == stored
    assert {value.name for value in pruned.graph.output} == set(kept)
    assert pruned.opset_import == model.opset_import
    x = np.array([[1.0, 2.0]], np.float32)
    whole = dict(zip("yzw", ReferenceEvaluator(model).run(None, {"x": x}), strict=True))
    for name, value in zip(kept, ReferenceEvaluator(pruned).run(kept, {"x": x}), strict=True):
        assert (value == whole[name]).all()


def test_a_stretch_ends_at_each_exit_that_samples_take(tiny_artifact: Callable[..., Path]) -> None:
    assert [*stretches(4, {0, 2})] == [(0, 1), (2, 3)]
    assert [*stretches(3, ())] == [(0, 0), (1, 1), (2, 2)]
    cascade = open_artifact(tiny_artifact()).manifest
    assert [cascade.segments_between(*one) for one in stretches(3, {1})] == [range(1), range(1, 3)]
    whole = open_artifact(tiny_artifact("all")).manifest  # one segment computes all exits
    assert [len(whole.segments_between(k, k)) for k in range(3)] == [1, 0, 0]


def test_all_outputs_keep_the_bytes() -> None:
    model = branching().SerializeToString(deterministic=True)
    assert with_outputs(model, ["y", "z", "w"]) == model


def test_bytes_that_are_no_graph() -> None:
    with pytest.raises(Refused):
        with_outputs(b"no graph at all", ["y"])


def test_graphs_that_are_nested_deeper_than_functions_can_call_each_other() -> None:
    def message(number: int, content: bytes) -> bytes:
        length, size = bytearray(), len(content)
        while size > 0x7F:
            length.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes((number << 3 | 2, *length, size)) + content

    graph = message(12, message(1, b"inner"))
    for _ in range(1200):
        graph = message(1, message(2, b"y") + message(5, message(6, graph)))
    assert with_outputs(message(7, graph), ["y"]) == message(7, graph)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("thresholds", [(NEVER, NEVER), (NEVER, 0.6), (0.6, NEVER)])
def test_predictions_stay_the_same(
    tiny_artifact: Write, tiny_network: Any, thresholds: tuple[float, float], backend: str
) -> None:
    artifact = open_artifact(tiny_artifact(policy=thresholds))
    engine = open_cascade(artifact, EngineOptions(backend, 1, allow_uncertified=True))
    expected = tiny_network.exits(images(32))
    answer = engine(images(32))
    assert np.allclose(answer.outputs, expected[answer.exit_index, np.arange(32)], atol=1e-5)
    taken = {k for k, threshold in enumerate(thresholds) if threshold == NEVER}
    assert set(answer.exit_index).isdisjoint(taken)
    assert np.allclose(engine.exits(images(7)), tiny_network.exits(images(7)), atol=1e-5)
    assert len(engine.signals(images(7))) == 3
    assert (engine.forced(images(3), 0).exit_index == 0).all()
    assert (engine(images(4), deadline_ms=0.0).exit_index == 0).all()


def counted(
    artifact: Any, *, by_stages: bool = False
) -> tuple[CascadeEngine, list[str], list[tuple[str, tuple[str, ...]]]]:
    """An engine whose graphs do nothing, and what it loads: whole segments, and segments with some outputs."""
    whole, headless = list[str](), list[tuple[str, tuple[str, ...]]]()

    def graph(names: Collection[str], segment: Segment) -> Any:
        shapes = {tensor.name: tensor for tensor in segment.outputs}
        return lambda tensors: [
            np.zeros((len(next(iter(tensors.values()))), *shapes[name].shape[1:]), shapes[name].dtype) for name in names
        ]

    def load(segment: Segment) -> Any:
        whole.append(segment.file)
        return graph([tensor.name for tensor in segment.outputs], segment)

    def load_headless(segments: Sequence[Segment], kept: Collection[str]) -> Any:
        headless.append(("+".join(segment.file for segment in segments), tuple(kept)))
        given = tuple(tensor for segment in segments for tensor in segment.outputs)
        return graph(kept, segments[-1].model_copy(update={"outputs": given}))

    return array_cascade(artifact, load, headless=load_headless, by_stages=by_stages), whole, headless


def test_each_segment_is_loaded_once_until_its_head_is_asked_for(tiny_artifact: Write) -> None:
    engine, whole, headless = counted(open_artifact(tiny_artifact(policy=(NEVER, 0.5))))
    read = ("exit2_outputs", "deep", "exit2_signals", "exit2_decision")
    assert (whole, headless) == (["segment-2.onnx"], [("segment-0.onnx+segment-1.onnx", read)])
    engine(images(2))
    engine(images(2))
    assert len(whole) + len(headless) == 2
    engine.exits(images(2))
    engine.forced(images(2), 0)
    assert whole[1:] == ["segment-0.onnx", "segment-1.onnx"]


def test_who_runs_stage_by_stage_loads_what_a_whole_call_needs_with_the_first_one(tiny_artifact: Write) -> None:
    engine, whole, headless = counted(open_artifact(tiny_artifact(policy=(NEVER, 0.5))), by_stages=True)
    assert (whole, headless) == (["segment-2.onnx"], [])
    engine.stepwise()
    assert headless == [("segment-0.onnx", ("hidden",))]
    engine(images(2))
    assert [files for files, _ in headless[1:]] == ["segment-0.onnx+segment-1.onnx"]
    assert whole == ["segment-2.onnx"]


def test_without_any_exit_that_is_taken_one_graph_runs(tiny_artifact: Write) -> None:
    engine, whole, headless = counted(open_artifact(tiny_artifact(policy=(NEVER, NEVER))))
    engine(images(2))
    assert (whole, headless) == ([], [("segment-0.onnx+segment-1.onnx+segment-2.onnx", ("final_outputs",))])


def in_precision(artifact: Artifact, precision: str) -> Artifact:
    segments = tuple(one.model_copy(update={"precision": precision}) for one in artifact.manifest.segments)
    return Artifact(artifact.path, artifact.manifest.model_copy(update={"segments": segments}))


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_graphs_of_other_precisions_stay_apart(tiny_artifact: Write, precision: str) -> None:
    engine, whole, headless = counted(in_precision(open_artifact(tiny_artifact(policy=(NEVER, 0.5))), precision))
    assert headless == [("segment-0.onnx", ("hidden",))]
    assert sorted(whole) == ["segment-1.onnx", "segment-2.onnx"]  # no call waits for one
    engine(images(2))
    assert len(whole) == 2


def test_graphs_in_uint8_are_joined_for_onnxruntime_on_the_cpu(tiny_artifact: Write) -> None:
    artifact = in_precision(open_artifact(tiny_artifact(policy=(NEVER, NEVER))), "uint8")
    _, whole, headless = counted(artifact)
    assert (whole, headless) == ([], [("segment-0.onnx+segment-1.onnx+segment-2.onnx", ("final_outputs",))])
    segments = artifact.manifest.segments
    assert joinable(segments, ExecutionTarget())
    assert not joinable(segments, ExecutionTarget("openvino"))
    assert not joinable(segments, ExecutionTarget("onnxruntime", "cuda"))
    assert joinable(open_artifact(artifact.path).manifest.segments, ExecutionTarget("openvino"))  # in fp32


def test_segments_in_uint8_that_quantise_floats_of_each_other_run_apart(
    tiny_artifact: Write, tiny_network: Any, tmp_path: Path
) -> None:
    """``hidden`` is a tanh in float32, which the second segment quantises."""
    data = {"training": tiny_network.samples(64, seed=8), "validation": tiny_network.samples(64, seed=9)}
    quantize(tiny_artifact(), tmp_path / "uint8", precision="uint8", max_drop=0.5, **data)
    apart = open_cascade(tmp_path / "uint8", ANY)
    assert apart.policy is None
    policy = open_artifact(tiny_artifact(policy=(NEVER, NEVER), name="policy")).manifest.policy
    assert policy is not None
    answer = apart.with_policy(policy)(images(16))
    assert (answer.exit_index == 2).all()
    assert answer.outputs.tobytes() == apart.exits(images(16))[-1].tobytes()


def test_segments_that_cannot_be_joined_are_loaded_when_the_artifact_is_opened(
    tiny_artifact: Write, tiny_network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdcompress.runtime.open.joined", lambda *_: None)
    path = tiny_artifact(policy=(NEVER, 0.6))
    engine = open_cascade(path, ANY)
    for file in path.glob("segment-*.onnx"):
        file.unlink()
    answer = engine(images(8))
    assert np.allclose(answer.outputs, tiny_network.exits(images(8))[answer.exit_index, np.arange(8)], atol=1e-5)


def scaled(taken: str, given: str, scale: float) -> bytes:
    """A file that multiplies by a stored ``scale``, and adds a ``one`` that all files store."""
    info, node = helper.make_tensor_value_info, helper.make_node
    stored = {"scale": scale, "one": 1.0}
    graph = helper.make_graph(
        [node("Mul", [taken, "scale"], ["scaled"], name="mul"), node("Add", ["scaled", "one"], [given], name="add")],
        "g",
        [info(taken, TensorProto.FLOAT, ["batch", 2])],
        [info(given, TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def test_files_that_store_other_values_by_one_name_are_joined() -> None:
    """((x * 2 + 1) * 3 + 1) * 5 + 1: the scales differ, the one is the same."""
    models = [scaled("x", "y", 2.0), scaled("y", "z", 3.0), scaled("z", "w", 5.0)]
    content = joined(models, ["w"])
    assert content is not None
    whole = onnx.load_from_string(content)
    onnx.checker.check_model(whole, full_check=True)
    assert [value.name for value in (*whole.graph.input, *whole.graph.output)] == ["x", "w"]
    assert len(whole.graph.initializer) == 4
    assert len({node.name for node in whole.graph.node}) == 6
    (w,) = ReferenceEvaluator(whole).run(None, {"x": np.array([[1.0, 2.0]], np.float32)})
    assert w.tolist() == [[51.0, 81.0]]
    both = onnx.load_from_string(joined(models[:2], ["y", "z"]) or b"")
    assert [value.name for value in both.graph.output] == ["y", "z"]


def test_files_that_cannot_be_joined() -> None:
    other = helper.make_model(onnx.load_from_string(scaled("y", "z", 1.0)).graph)
    other.opset_import[0].version = 17
    assert joined([scaled("x", "y", 1.0), other.SerializeToString()], ["z"]) is None
    assert joined([branching().SerializeToString(), scaled("y", "v", 1.0)], ["v"]) is None


def test_files_are_joined_up_to_the_size_of_an_onnx_file(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [scaled("x", "y", 1.0), scaled("y", "z", 1.0)]
    monkeypatch.setattr("sdcompress.runtime.headless._LARGEST", len(models[0]) + len(models[1]))
    assert joined(models, ["z"]) is not None
    monkeypatch.setattr("sdcompress.runtime.headless._LARGEST", len(models[0]) + len(models[1]) - 1)
    assert joined(models, ["z"]) is None


def test_without_a_temporary_folder_all_heads_are_computed(
    tiny_artifact: Write, tiny_network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_artifact(policy=(NEVER, NEVER))

    def refuse(prefix: str) -> None:
        raise FileNotFoundError(prefix)

    monkeypatch.setattr("sdcompress.runtime.open.TemporaryDirectory", refuse)
    answer = open_cascade(path, ANY)(images(8))
    assert np.allclose(answer.outputs, tiny_network.exits(images(8))[-1], atol=1e-5)


def test_with_a_full_disk_all_heads_are_computed(
    tiny_artifact: Write, tiny_network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_artifact(policy=(NEVER, NEVER))

    def refuse(file: Path, _: bytes) -> int:
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    answer = open_cascade(path, ANY)(images(8))
    assert np.allclose(answer.outputs, tiny_network.exits(images(8))[-1], atol=1e-5)


def test_a_graph_that_was_replaced_after_opening_is_refused(tiny_artifact: Write) -> None:
    path = tiny_artifact(policy=(NEVER, 0.5))
    engine, other = open_cascade(path, ANY), path / "segment-0.onnx"
    other.write_bytes((path / "segment-1.onnx").read_bytes())
    engine(images(2))
    with pytest.raises(ArtifactError, match=r"(?s)'segment-0\.onnx' .* was changed or removed .*open it again"):
        engine.exits(images(2))
    (path / "segment-1.onnx").unlink()
    assert engine.policy is not None
    with pytest.raises(ArtifactError, match=r"'segment-1\.onnx' .* was changed or removed"):
        engine.with_policy(engine.policy.model_copy(update={"thresholds": (0.5, NEVER)}))


def test_a_policy_that_looks_back_needs_the_signals_of_every_exit(tiny_artifact: Write) -> None:
    engine, whole, headless = counted(open_artifact(tiny_artifact(policy=(NEVER, 0.5), kind="patience")))
    assert (len(whole), headless) == (3, [])
    engine(images(2))
    assert headless == []


def test_another_policy_over_the_same_graphs(tiny_artifact: Write) -> None:
    engine = open_cascade(tiny_artifact(policy=(0.6, 0.6)), ANY)
    assert engine.policy is not None
    taken = engine.with_policy(engine.policy.model_copy(update={"thresholds": (0.6, NEVER)}))(images(64)).exit_index
    assert set(taken) == {0, 2}
    assert set(engine(images(64)).exit_index) == {0, 1, 2}
    # where a temperature of 100 makes all classes alike, no probability of three reaches 0.6
    assert set(engine.with_policy(engine.policy, (100.0, 1.0, 1.0))(images(64)).exit_index) == {1, 2}
    assert set(engine.with_policy(engine.policy, (1.0, 100.0, 1.0))(images(64)).exit_index) == {0, 2}


def test_stages_one_by_one_load_a_head_for_the_first_call_that_wants_its_outputs(tiny_artifact: Write) -> None:
    engine, whole, headless = counted(open_artifact(tiny_artifact(policy=(NEVER, 0.5))))
    stages, rows = engine.stepwise(), Carried({"input": images(2)})
    result = stages.run(0, rows, outputs=False)
    assert (result.outputs, result.scores, result.exits.tolist()) == (None, None, [False, False])
    assert stages.run(1, result.carried, outputs=False).outputs is not None  # the policy may let rows exit here
    assert sorted(whole) == ["segment-1.onnx", "segment-2.onnx"]
    assert ("segment-0.onnx", ("hidden",)) in headless
    assert stages.run(0, rows).outputs is not None
    assert whole[2:] == ["segment-0.onnx"]


def test_an_exit_that_other_thresholds_take_keeps_its_outputs(tiny_artifact: Write) -> None:
    engine, _, _ = counted(open_artifact(tiny_artifact(policy=(NEVER, 0.5))))
    result = engine.stepwise([(0.9, 0.5)]).run(0, Carried({"input": images(2)}), outputs=False)
    assert result.outputs is not None
    assert result.scores is not None


@pytest.mark.parametrize("outputs", [True, False])
def test_rows_of_a_policy_that_looks_back_and_never_exits_carry_no_signals(tiny_artifact: Write, outputs: bool) -> None:
    engine, _, _ = counted(open_artifact(tiny_artifact(policy=(NEVER, NEVER), kind="patience")))
    result = engine.stepwise().run(0, Carried({"input": images(2)}), outputs=outputs)
    assert (result.scores, result.exits.tolist(), result.carried.signals) == (None, [False, False], ())
    levels = engine.stepwise([(0.9, NEVER)]).run(0, Carried({"input": images(2)}), outputs=outputs)
    assert (levels.scores is None, len(levels.carried.signals)) == (False, 1)
