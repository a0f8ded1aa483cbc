"""Segments in a chain compute what the whole graph computes, and hold nothing that they do not need."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from meaning import image_modality
from networks import SHALLOW, pictures
from onnx import TensorProto, helper, numpy_helper

from sdcompress.errors import UsageError
from sdcompress.exporting.graph import export_all_exits
from sdcompress.modalities import Inputs
from sdcompress.models.build import build
from sdcompress.onnx_graph.partition import cut_segments, serialize, tensor_specs
from sdcompress.schema.recipe import Exits, Model
from sdcompress.verification.sessions import SegmentSessions

LOGITS = ("exit1_outputs", "exit2_outputs", "final_outputs")
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def run(models: list[onnx.ModelProto], images: np.ndarray, logits: list[str]) -> np.ndarray:
    graphs = [serialize(model) for model in models]
    return SegmentSessions(graphs, outputs=logits, threads=1)(Inputs({"input": images}))


def stored(model: onnx.ModelProto) -> set[str]:
    return {tensor.name for tensor in model.graph.initializer}


def test_the_chain_equals_the_whole_graph_bit_for_bit(model: onnx.ModelProto, images: np.ndarray) -> None:
    pieces = list(cut_segments(model, LOGITS))
    assert len(pieces) == 3
    for batch in (1, 3, 5):
        full = run([model], images[:batch], list(LOGITS))
        np.testing.assert_array_equal(run(pieces, images[:batch], list(LOGITS)), full)


def test_each_segment_holds_its_own_weights_only(model: onnx.ModelProto) -> None:
    first, second, third = cut_segments(model, LOGITS)
    assert {"first.weight", "heads.0.weight"} <= stored(first)
    assert {"second.weight", "heads.1.weight"} <= stored(second)
    assert {"third.weight", "heads.2.weight"} <= stored(third)
    weights = [{name for name in stored(piece) if "." in name} for piece in (first, second, third)]
    assert sum(len(own) for own in weights) == len(set.union(*weights)) == 12


def test_borders_carry_one_tensor_with_the_batch_first(model: onnx.ModelProto) -> None:
    first, second, third = cut_segments(model, LOGITS)
    (border,) = tensor_specs(second.graph.input)
    assert (border.dtype, border.shape) == ("float32", ("batch", 4, 8, 8))
    assert [port.name for port in tensor_specs(first.graph.output)] == ["exit1_outputs", border.name]
    assert [port.shape for port in tensor_specs(third.graph.input)] == [("batch", 8, 4, 4)]
    assert [port.name for port in tensor_specs(third.graph.output)] == ["final_outputs"]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_one_exit_alone_equals_its_output_of_the_whole_graph(
    model: onnx.ModelProto, images: np.ndarray, index: int
) -> None:
    (alone,) = cut_segments(model, [LOGITS[index]])
    np.testing.assert_array_equal(run([alone], images, [LOGITS[index]])[0], run([model], images, list(LOGITS))[index])
    others = {f"heads.{other}.weight" for other in range(3) if other != index}
    assert not stored(alone) & others
    assert ("third.weight" in stored(alone)) == (index == 2)
    used = {name for node in alone.graph.node for name in node.input}
    assert stored(alone) <= used


# The graphs below are written by hand. "shape" is taken from the network's input, which segment 1 does not have:
#   segment 0: early = Flatten(input), exit1_outputs = early @ weight
#   segment 1: final_outputs = Reshape(Neg(early), Concat(Shape(input)[0:1], [4])) @ weight
def by_hand(*, late_axes: list[int | str] | None = None) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "weight")
    four = numpy_helper.from_array(np.array([4]), "four")
    nodes = [
        helper.make_node("Flatten", ["input"], ["early"], axis=1),
        helper.make_node("MatMul", ["early", "weight"], ["exit1_outputs"]),
        helper.make_node("Shape", ["input"], ["rows"], start=0, end=1),
        helper.make_node("Concat", ["rows", "four"], ["shape"], axis=0),
        helper.make_node("Neg", ["early"], ["late"]),
        helper.make_node("Reshape", ["late", "shape"], ["reshaped"]),
        helper.make_node("MatMul", ["reshaped", "weight"], ["final_outputs"]),
    ]
    graph = helper.make_graph(
        nodes,
        "by_hand",
        [helper.make_tensor_value_info("input", FLOAT, ["batch", 1, 2, 2])],
        [helper.make_tensor_value_info(name, FLOAT, ["batch", 2]) for name in ("exit1_outputs", "final_outputs")],
        [weight, four],
        value_info=[helper.make_tensor_value_info("early", FLOAT, late_axes or ["batch", 4])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_the_shape_of_a_tensor_that_is_not_there_is_taken_from_one_that_is() -> None:
    model = by_hand()
    first, second = cut_segments(model, ["exit1_outputs", "final_outputs"])
    assert [node.op_type for node in first.graph.node] == ["Flatten", "MatMul"]
    assert [port.name for port in tensor_specs(second.graph.input)] == ["early"]
    taken = [node for node in second.graph.node if node.op_type == "Shape"]
    assert [list(node.input) for node in taken] == [["early"]]
    assert stored(first) == {"weight"}
    assert stored(second) == {"weight", "four"}  # a weight that both need is in both
    x = np.array([[[[1, 2], [3, 4]]], [[[0, 0], [0, 1]]]], np.float32)
    expected = x.reshape(2, 4) @ np.arange(8, dtype=np.float32).reshape(4, 2)
    outputs = run([first, second], x, ["exit1_outputs", "final_outputs"])
    np.testing.assert_array_equal(outputs, np.stack([expected, -expected]))


def test_an_input_of_the_network_that_a_later_segment_reads_is_an_input_of_it() -> None:
    """exit1 = x summed over tokens; final = x * mask, of which both the values and the number of tokens are used."""
    axes = ["batch", "tokens"]
    nodes = [
        helper.make_node("ReduceSum", ["x", "one"], ["exit1_outputs"]),
        helper.make_node("Shape", ["mask"], ["count"], start=1, end=2),
        helper.make_node("Cast", ["count"], ["tokens"], to=FLOAT),
        helper.make_node("Mul", ["x", "mask"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "one"], ["sum"]),
        helper.make_node("Div", ["sum", "tokens"], ["final_outputs"]),
    ]
    graph = helper.make_graph(
        nodes,
        "masked",
        [helper.make_tensor_value_info(name, FLOAT, axes) for name in ("x", "mask")],
        [helper.make_tensor_value_info(name, FLOAT, ["batch", 1]) for name in ("exit1_outputs", "final_outputs")],
        [numpy_helper.from_array(np.array([1]), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    first, second = cut_segments(model, ["exit1_outputs", "final_outputs"])
    assert [port.name for port in tensor_specs(first.graph.input)] == ["x"]
    assert {port.name: list(port.shape) for port in tensor_specs(second.graph.input)} == {"x": axes, "mask": axes}
    inputs = Inputs({"x": np.array([[1, 2, 3], [4, 5, 6]], np.float32), "mask": np.eye(2, 3, dtype=np.float32)})
    graphs = [serialize(model) for model in (first, second)]
    outputs = SegmentSessions(graphs, outputs=["exit1_outputs", "final_outputs"], threads=1)(inputs)
    np.testing.assert_allclose(outputs[..., 0], [[6, 15], [1 / 3, 5 / 3]], rtol=1e-6)


def test_a_border_whose_rows_are_not_images_is_refused_with_a_way_out() -> None:
    with pytest.raises(UsageError, match="'early' between two segments") as caught:
        cut_segments(by_hand(late_axes=["4*batch", 1]), ["exit1_outputs", "final_outputs"])
    assert "exits.modules" in caught.value.next_step
    assert "--layout single" in caught.value.next_step


@pytest.mark.parametrize("name", ["height", ""])
def test_a_shape_that_no_border_carries_is_refused(name: str) -> None:
    """An axis without a name is unknown."""
    model = by_hand()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = name
    (end,) = [attribute for attribute in model.graph.node[2].attribute if attribute.name == "end"]
    end.i = 3
    with pytest.raises(UsageError, match="the shape of 'input', which none of its inputs has"):
        cut_segments(model, ["exit1_outputs", "final_outputs"])


def test_two_exits_on_one_tensor_are_refused() -> None:
    with pytest.raises(UsageError, match="same tensor as the outputs of an earlier exit"):
        cut_segments(by_hand(), ["final_outputs", "exit1_outputs", "final_outputs"])


def test_an_exit_that_hangs_on_an_earlier_exit_takes_its_logits_over_the_border() -> None:
    weight = numpy_helper.from_array(np.eye(4, 2, dtype=np.float32), "weight")
    nodes = [
        helper.make_node("Flatten", ["input"], ["early"], axis=1),
        helper.make_node("MatMul", ["early", "weight"], ["exit1_outputs"]),
        helper.make_node("Neg", ["exit1_outputs"], ["final_outputs"]),
    ]
    outputs = [helper.make_tensor_value_info(name, FLOAT, ["batch", 2]) for name in ("exit1_outputs", "final_outputs")]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("input", FLOAT, ["batch", 1, 2, 2])], outputs, [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    first, second = cut_segments(model, ["exit1_outputs", "final_outputs"])
    assert [port.name for port in tensor_specs(first.graph.output)] == ["exit1_outputs"]
    assert [port.name for port in tensor_specs(second.graph.input)] == ["exit1_outputs"]


# ConvNeXt asks for shapes of early tensors late; ViT has tokens instead of maps, EfficientNet gates its channels.
@pytest.mark.parametrize(
    "name", ["timm:test_resnet", "timm:convnext_atto", "timm:vit_tiny_patch16_224", "timm:test_efficientnet"]
)
def test_networks_of_several_families_are_cut_right(name: str) -> None:
    pytest.importorskip("timm")
    side = 32
    torch.manual_seed(0)
    model = Model(name=name, options=SHALLOW.get(name, {}))
    net = build(model, Exits(count=3, head="linear"), outputs=(7,), inputs=pictures(3, side, side)).eval()
    graph = export_all_exits(net.logits_only(), net.exit_names, image_modality((3, side, side)))
    logits = [f"{exit_}_outputs" for exit_ in net.exit_names]
    pieces = cut_segments(graph, logits)
    assert len(pieces) == 4
    images = np.random.default_rng(0).normal(size=(3, 3, side, side)).astype(np.float32)
    with torch.no_grad():
        wanted = np.stack([exit_.numpy() for exit_ in net(torch.from_numpy(images)).logits])
    full = onnxruntime.InferenceSession(serialize(graph)).run(logits, {"input": images})
    np.testing.assert_allclose(full, wanted, atol=2e-5)
    np.testing.assert_allclose(run(list(pieces), images, logits), full, atol=2e-6)
