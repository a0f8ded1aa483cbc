"""What TensorRT 8.5 knows: norms that would become plugins in parts, and every network's operators."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from meaning import image_modality
from networks import SHALLOW, pictures
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from signals import TASK
from torch import Tensor, nn

from sdcompress.exporting.export import _warn_unsupported, export_all
from sdcompress.exporting.export_spec import ExportSpec
from sdcompress.exporting.graph import export_all_exits
from sdcompress.exporting.layout import LayoutGraphs
from sdcompress.models.build import build
from sdcompress.onnx_graph.exit_signals import add_signals
from sdcompress.onnx_graph.partition import cut_segments
from sdcompress.onnx_graph.tensorrt8 import TENSORRT_8_5, decompose_instance_norm, unsupported_by_8_5
from sdcompress.schema.recipe import Exits, Export, Model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, of its older exporter


def normalisation(
    scale: list[float],
    bias: list[float],
    shape: list[int | str],
    *,
    epsilon: float | None = None,
    constant: bool = False,
) -> onnx.ModelProto:
    """One InstanceNormalization of x [batch, 2, ...]; scale and bias stored, or made by a Constant."""
    named = {"scale": np.array(scale, np.float32), "bias": np.array(bias, np.float32)}
    stored = [numpy_helper.from_array(value, name) for name, value in named.items()]
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in stored if constant]
    attributes = {} if epsilon is None else {"epsilon": epsilon}
    nodes.append(helper.make_node("InstanceNormalization", ["x", "scale", "bias"], ["y"], name="norm", **attributes))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [] if constant else stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("shape", [(3, 2, 5), (3, 2, 5, 4), (3, 2, 3, 4, 2)])
@pytest.mark.parametrize("constant", [False, True])
def test_the_decomposed_norm_computes_what_onnx_defines(shape: tuple[int, ...], constant: bool) -> None:
    model = normalisation([2.0, -0.5], [0.25, 3.0], ["batch", *shape[1:]], epsilon=0.125, constant=constant)
    x = np.random.default_rng(0).normal(1, 3, shape).astype(np.float32)
    (wanted,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert decompose_instance_norm(model)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(ReferenceEvaluator(model).run(None, {"x": x})[0], wanted, atol=2e-6)
    torchs = nn.functional.instance_norm(
        torch.from_numpy(x), weight=torch.tensor([2.0, -0.5]), bias=torch.tensor([0.25, 3.0]), eps=0.125
    )
    np.testing.assert_allclose(wanted, torchs.numpy(), atol=2e-6)
    assert set(operators(model)) <= TENSORRT_8_5 - {"InstanceNormalization", "Constant"}
    # nothing is left behind that would be counted as weights of the network
    assert {tensor.name for tensor in model.graph.initializer} == {"y/two", "y/epsilon", "y/scale", "y/bias"}


def test_a_scale_of_ones_and_a_bias_of_zeros_cost_nothing_and_epsilon_has_onnx_default() -> None:
    model = normalisation([1.0, 1.0], [0.0, 0.0], ["batch", 2, 4])
    assert decompose_instance_norm(model)
    assert operators(model) == ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div"]
    outputs = ReferenceEvaluator(model).run(None, {"x": np.full((1, 2, 4), 7, np.float32)})[0]
    np.testing.assert_array_equal(outputs, np.zeros((1, 2, 4), np.float32))  # and not 0 / 0
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert stored["y/epsilon"] == np.float32(1e-5)


def test_a_scale_that_is_computed_is_left_as_it_is() -> None:
    model = normalisation([1.0, 1.0], [0.0, 0.0], ["batch", 2, 4])
    scaled = [helper.make_node("Abs", ["scale"], ["size"]), *model.graph.node]
    scaled[-1].input[1] = "size"
    del model.graph.node[:]
    model.graph.node.extend(scaled)
    before = model.SerializeToString()
    assert not decompose_instance_norm(model)
    assert model.SerializeToString() == before


class Grouped(nn.Module):
    """Images [B, 3, 8, 8]; a norm in groups, one of instances, logits [B, 5]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norms = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.Hardswish(), nn.InstanceNorm2d(6, affine=True)
        )
        self.last = nn.Linear(6, 5)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.last(self.norms(images).amax((2, 3))),)


@pytest.mark.parametrize("opset", [16, 17])
def test_norms_of_groups_and_instances_are_exported_without_a_plugin(opset: int) -> None:
    net = Grouped().eval()
    model = export_all_exits(net, ["final"], image_modality((3, 8, 8)), opset=opset)
    assert "InstanceNormalization" not in operators(model)
    assert "HardSwish" in operators(model)  # 8.5 knows it
    assert set(operators(model)) <= TENSORRT_8_5
    shapes = {value.name: value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.value_info}
    assert {shapes[name] for node in model.graph.node for name in node.output if name.endswith("/mean")} == {"batch"}
    images = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
    outputs = ReferenceEvaluator(model).run(None, {"input": images})[0]
    with torch.no_grad():
        np.testing.assert_allclose(outputs, net(torch.from_numpy(images))[0].numpy(), atol=2e-5)


# one of each kind of operators: squeeze-excitation with hard swish, layer norm and attention, group norm, masks that
# bilinear resizing widens, pooling by averages
@pytest.mark.parametrize(
    ("name", "head", "side"),
    [
        ("cifar:wrn_10_1", "attention", 16),
        ("timm:mobilenetv3_small_050", "sepconv", 32),
        ("timm:test_efficientnet_gn", "linear", 64),
        ("timm:test_convnext2", "bottleneck", 64),
        ("timm:vit_tiny_patch16_224", "attention", 32),
    ],
)
def test_segments_with_signals_hold_only_operators_of_tensorrt_8_5(name: str, head: str, side: int) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    settings = Model(name=name, options=SHALLOW.get(name, {}))
    net = build(settings, Exits(count=1, head=head), outputs=(7,), inputs=pictures(3, side, side)).eval()
    model = export_all_exits(net.logits_only(), net.exit_names, image_modality((3, side, side)), opset=16)
    first, last = cut_segments(model, [f"{exit_}_outputs" for exit_ in net.exit_names])
    first, _ = add_signals(first, net.exit_names[0], f"{net.exit_names[0]}_outputs", TASK, batch="batch")
    assert set(operators(first)) | set(operators(last)) <= TENSORRT_8_5 - {"InstanceNormalization"}
    assert unsupported_by_8_5({"segment-0.onnx": first, "segment-1.onnx": last}) == ""
    (top,) = [node for node in first.graph.node if node.op_type == "TopK"]
    assert top.input[1] in {tensor.name for tensor in first.graph.initializer}  # 8.5 wants K as a weight


def test_operators_that_8_5_does_not_know_are_named_once_with_a_node_and_its_file() -> None:
    def of(*names: str) -> onnx.ModelProto:
        nodes = [helper.make_node(name, ["x"], ["y"], name=f"the-{name.lower()}") for name in names]
        nodes.append(helper.make_node("Relu", ["x"], ["y"], domain="mine"))
        return helper.make_model(helper.make_graph(nodes, "g", [], []))

    listed = unsupported_by_8_5({"a.onnx": of("Relu", "IsInf"), "b.onnx": of("IsInf", "Mish")})
    assert (
        listed == "IsInf (node 'the-isinf' of a.onnx), mine.Relu (node '' of a.onnx), Mish (node 'the-mish' of b.onnx)"
    )


def test_each_artifact_is_named_although_their_files_have_equal_names() -> None:
    def layout(operator: str) -> LayoutGraphs:
        node = helper.make_node(operator, ["x"], ["y"], name=f"the-{operator.lower()}")
        return LayoutGraphs(
            "single", ("final",), {"model.onnx": helper.make_model(helper.make_graph([node], "g", [], []))}
        )

    with pytest.warns(UserWarning, match="Mish .node 'the-mish' of first/model.onnx"):
        _warn_unsupported({"first": layout("Mish"), "second": layout("Relu")})


def test_the_table_is_of_onnx_operators_that_opset_17_has() -> None:
    schemas = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.since_version <= 17}
    assert schemas >= TENSORRT_8_5
    assert not TENSORRT_8_5 & {"LayerNormalization", "IsInf", "NonZero", "DynamicQuantizeLinear"}


@pytest.mark.parametrize(("opset", "warned"), [(16, True), (18, False)])
def test_an_export_warns_of_them_at_the_opsets_that_are_for_tensorrt_8(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opset: int, warned: bool
) -> None:
    monkeypatch.setattr("sdcompress.onnx_graph.tensorrt8.TENSORRT_8_5", TENSORRT_8_5 - {"Relu"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export_all(checkpoint, [ExportSpec(tmp_path / "out", "cascade")], settings=Export(opset=opset))
    messages = [str(warning.message) for warning in caught if "TensorRT 8.5" in str(warning.message)]
    assert len(messages) == warned
    if warned:
        for words in ("Relu (node '", "of out/segment-0.onnx)", "--opset 16", "another backbone", "TensorRT 10 or 11"):
            assert words in messages[0]
    assert (tmp_path / "out" / "manifest.json").exists()
