"""Bilinear Resize nodes by stored scales or by products: the same maps as torch's, and what is left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn.functional import interpolate

from sdcompress.onnx_graph.edit import copy_model
from sdcompress.onnx_graph.macs import macs, parameters
from sdcompress.onnx_graph.resizes import is_interpolation, multiply_resizes, rewrite_resizes

Size = tuple[int, int]


def resize(
    before: Size,
    after: Size,
    *,
    scales: tuple[float, float] | None = None,
    constant_node: bool = False,
    channels: int = 3,
    output: bool = False,
    axes: tuple[int | str, int | str] = ("batch", 0),
    **attributes: Any,
) -> onnx.ModelProto:
    """y = Resize(x) - 1, or y = Resize(x): by sizes that are computed from x as torch's exporter does, or by scales."""
    rows: Any = axes[1] or before[0]
    result = "y" if output else "resized"
    settings = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"} | attributes
    weights = {"one": np.array(1, np.float32)}
    nodes = []
    if scales is None:
        weights["given"] = np.array([channels, *after], np.int64)
        nodes += [
            helper.make_node("Shape", ["x"], ["batch"], start=0, end=1),
            helper.make_node("Concat", ["batch", "given"], ["sizes"], axis=0),
        ]
        inputs = ["x", "", "", "sizes"]
    else:
        stored = np.array([1, 1, *scales], np.float32)
        inputs = ["x", "", "scales"]
        if constant_node:
            nodes.append(helper.make_node("Constant", [], ["scales"], value=numpy_helper.from_array(stored)))
        else:
            weights["scales"] = stored
    nodes.append(helper.make_node("Resize", inputs, [result], name="resize", **settings))
    if not output:
        nodes.append(helper.make_node("Sub", ["resized", "one"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [axes[0], channels, rows, before[1]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [axes[0], channels, *after])],
        [numpy_helper.from_array(value, name) for name, value in weights.items() if not output or name != "one"],
        value_info=[helper.make_tensor_value_info("resized", TensorProto.FLOAT, [axes[0], channels, *after])]
        * (not output),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": x})[0])


def by_torch(x: np.ndarray, **options: Any) -> np.ndarray:
    """In float64, as torch rounds coordinates too."""
    return interpolate(torch.from_numpy(x.astype(np.float64)), mode="bilinear", **options).numpy() - 1


def random_map(model: onnx.ModelProto, rows: int) -> np.ndarray:
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(0).normal(size=(rows, *shape[1:])).astype(np.float32)


SIZES = [
    ((4, 4), (8, 8)),
    ((5, 3), (13, 7)),
    ((1, 1), (3, 4)),
    ((1, 6), (2, 6)),
    ((9, 8), (4, 3)),  # smaller, without antialiasing
    ((16, 16), (32, 32)),
    ((17, 11), (40, 29)),
    ((30, 12), (31, 96)),
]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_products_interpolate_as_torch_does(before: Size, after: Size, align_corners: bool) -> None:
    mode = "align_corners" if align_corners else "half_pixel"
    model = resize(before, after, coordinate_transformation_mode=mode)
    multiply_resizes(model)
    assert "Resize" not in operators(model)
    assert not {"Shape", "Concat"} & set(operators(model))
    for rows in (1, 2, 5):
        x = random_map(model, rows)
        np.testing.assert_allclose(run(model, x), by_torch(x, size=after, align_corners=align_corners), atol=2e-6)


def test_the_weights_of_an_axis_are_those_of_its_neighbours() -> None:
    """Two values become four: their centres lie at -0.25, 0.25, 0.75 and 1.25 of the old ones."""
    model = resize((20, 2), (400, 4))  # too many rows for one product
    multiply_resizes(model)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (columns,) = (array for name, array in stored.items() if name.endswith("/columns"))
    np.testing.assert_array_equal(columns.T, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])


@pytest.mark.parametrize("constant_node", [False, True])
def test_given_scales_count_where_the_sizes_were_rounded(constant_node: bool) -> None:
    """2.3 times 5 rows are 11 rows, which are 1 / 2.3 of an old row apart, and not 5 / 11."""
    model = resize((5, 7), (11, 16), scales=(2.3, 2.3), constant_node=constant_node)
    x = random_map(model, 2)
    multiply_resizes(model)
    assert "Resize" not in operators(model)
    expected = by_torch(x, scale_factor=2.3)
    by_sizes = by_torch(x, size=(11, 16))
    np.testing.assert_allclose(run(model, x), expected, atol=2e-6)
    assert np.abs(expected - by_sizes).max() > 0.01


def test_scales_give_the_sizes_that_torch_and_runtimes_compute() -> None:
    """3 times 5 / 3 is 5, also in float32, and less in float64 where 5 / 3 was rounded; so infers ONNX: 4 and 6."""
    model = resize((3, 10), (4, 6), scales=(5 / 3, 0.7))
    for value in (*model.graph.value_info, *model.graph.output):  # as torch's exporter writes them
        for axis, size in zip(value.type.tensor_type.shape.dim[2:], (5, 7), strict=True):
            axis.dim_value = size
    x = random_map(model, 2)
    multiply_resizes(model)
    assert "Resize" not in operators(model)
    np.testing.assert_allclose(run(model, x), by_torch(x, scale_factor=(5 / 3, 0.7)), atol=2e-6)


def test_one_row_has_the_coordinate_0_by_torchs_rule_only() -> None:
    x = np.arange(5, dtype=np.float32).reshape(1, 1, 5, 1) * np.ones((1, 1, 1, 2), np.float32)
    for mode, value in (("half_pixel", 2.0), ("pytorch_half_pixel", 0.0)):  # (0 + 0.5) * 5 - 0.5 = 2
        model = resize((5, 2), (1, 2), channels=1, output=True, coordinate_transformation_mode=mode)
        np.testing.assert_array_equal(run(model, x), np.full((1, 1, 1, 2), value))
        multiply_resizes(model)
        np.testing.assert_array_equal(run(model, x), np.full((1, 1, 1, 2), value))


@pytest.mark.parametrize(
    ("before", "after", "products"),
    [
        ((8, 8), (11, 11), ["Reshape", "MatMul", "Reshape"]),  # 7744 weights
        ((8, 8), (16, 16), ["MatMul", "MatMul"]),  # 16384
        ((32, 32), (256, 256), ["MatMul", "MatMul"]),  # 32 * 32 / 256 + 32 = 36 for each value
        ((45, 60), (360, 480), ["MatMul", "MatMul"]),  # 45 * 60 / 360 + 45 = 52.5
        ((64, 64), (128, 128), ["Resize"]),  # 96
    ],
)
def test_the_form_follows_from_what_it_costs(before: Size, after: Size, products: list[str]) -> None:
    model = resize(before, after, scales=(after[0] / before[0], after[1] / before[1]))
    multiply_resizes(model)
    assert operators(model) == [*products, "Sub"]


def test_whole_scales_are_stored_and_others_are_products() -> None:
    whole = resize((16, 16), (32, 48))
    rewrite_resizes(whole)
    assert operators(whole) == ["Resize", "Sub"]
    scales = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in whole.graph.initializer}
    assert scales["resized/scales"] == [1, 1, 2, 3]
    x = random_map(whole, 3)
    np.testing.assert_allclose(run(whole, x), by_torch(x, size=(32, 48)), atol=1e-5)  # Resize rounds coordinates
    broken = resize((16, 16), (32, 40))
    rewrite_resizes(broken)
    assert operators(broken) == ["MatMul", "MatMul", "Sub"]


def test_outputs_of_the_network_are_products_unless_they_are_large() -> None:
    """They leave the blocked layout of convolutions anyway."""
    small, large = (resize((size, size), (2 * size, 2 * size), output=True) for size in (32, 64))
    rewrite_resizes(small)
    assert operators(small) == ["MatMul", "MatMul"]
    assert small.graph.output[0].name == "y"
    rewrite_resizes(large)
    assert operators(large) == ["Resize"]
    assert large.graph.node[0].input[2] == "y/scales"


def test_a_large_map_whose_scales_are_no_whole_numbers_is_left_as_it_is() -> None:
    model = resize((90, 90), (128, 128))
    before = copy_model(model)
    rewrite_resizes(model)
    assert model == before


@pytest.mark.parametrize(
    "model",
    [
        resize((8, 8), (4, 4), antialias=1),
        resize((8, 8), (16, 16), mode="nearest"),
        resize((8, 8), (16, 16), mode="cubic"),
        resize((8, 8), (16, 16), coordinate_transformation_mode="asymmetric"),
        resize((8, 8), (16, 16), exclude_outside=1),
        resize((8, 8), (16, 16), axes=("batch", "rows")),
        resize((8, 8), (16, 16), axes=("", 0)),
    ],
    ids=["antialias", "nearest", "cubic", "asymmetric", "exclude_outside", "rows vary", "batch unknown"],
)
def test_what_is_not_bilinear_or_not_known_stays(model: onnx.ModelProto) -> None:
    before = copy_model(model)
    for rewrite in (rewrite_resizes, multiply_resizes):
        rewrite(model)
        assert model == before


def test_a_resize_of_channels_stays() -> None:
    """[B, 3, 8, 8] to [B, 6, 8, 8]."""
    model = resize((8, 8), (8, 8), scales=(1, 1))
    model.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.array([1, 2, 1, 1], np.float32), "scales"))
    assert {tensor.name for tensor in model.graph.initializer} == {"one", "scales"}
    before = copy_model(model)
    multiply_resizes(model)
    assert model == before


def test_a_second_time_changes_nothing() -> None:
    for model in (resize((16, 16), (32, 32)), resize((16, 16), (23, 23))):
        rewrite_resizes(model)
        once = copy_model(model)
        rewrite_resizes(model)
        assert model == once


@pytest.mark.parametrize("size", [4, 16])
def test_interpolation_counts_neither_macs_nor_parameters(size: int) -> None:
    """Targets of pruning are shares of the MACs in torch, which counts none of it."""
    stored, multiplied = (resize((size, size), (2 * size, 2 * size)) for _ in range(2))
    rewrite_resizes(stored)
    multiply_resizes(multiplied)
    assert [node.op_type for node in multiplied.graph.node if is_interpolation(node)].count("MatMul") == (
        1 if size == 4 else 2
    )
    for model in (stored, multiplied):
        assert macs(model, {"batch": 1}) == 0
        assert parameters(model) == 0


def test_two_outputs_of_two_maps_keep_their_own_matrices() -> None:
    first, second = (onnx.compose.add_prefix(resize((4, 4), size), f"{size[0]}/") for size in ((7, 7), (9, 9)))
    model = onnx.compose.merge_models(first, second, io_map=[])
    multiply_resizes(model)
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString())
    for size, output in zip((7, 9), session.run(None, {"7/x": x, "9/x": x}), strict=True):
        np.testing.assert_allclose(output, by_torch(x, size=(size, size)), atol=2e-6)
