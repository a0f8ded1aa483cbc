"""What is left out of a merged graph, and that it computes the same to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sdcompress.onnx_graph.cpu_session import cpu_session
from sdcompress.onnx_graph.edit import copy_model, drop_unused, graphs_within
from sdcompress.onnx_graph.shortcuts import pass_codes, read_parts

Edit = Callable[[onnx.ModelProto], None]
FLOAT = TensorProto.FLOAT
CODES = {"scale": np.float32(0.1), "zero": np.uint8(3)}


def built(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], outputs: dict[str, list[int | str]]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "merged",
        [helper.make_tensor_value_info("x", FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def shortened(model: onnx.ModelProto, edit: Edit) -> list[str]:
    """The operators that are left after an edit; asserts that the graph computes the same."""
    edited = copy_model(model)
    edit(edited)
    drop_unused(edited.graph)
    onnx.checker.check_model(edited, full_check=True)
    x = np.random.default_rng(0).normal(scale=5, size=(9, 4)).astype(np.float32)
    names = [value.name for value in model.graph.output]
    before, after = (cpu_session(each.SerializeToString(), threads=1).run(names, {"x": x}) for each in (model, edited))
    for expected, found in zip(before, after, strict=True):
        np.testing.assert_array_equal(found, expected)
    return [node.op_type for graph in graphs_within(edited.graph) for node in graph.node]


def branching(inside: list[onnx.NodeProto], out: str, shape: list[int | str]) -> list[onnx.NodeProto]:
    """An If that runs the nodes where x adds up to more than 0, and else gives as many zeros."""
    value = helper.make_tensor_value_info
    then = helper.make_graph(inside, "then", [], [value(out, FLOAT, shape)])
    zeros = [helper.make_node("Mul", [out + "/like", "none"], ["zeros"], name="zeros")]
    return [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "none"], ["positive"]),
        helper.make_node(
            "If",
            ["positive"],
            ["y"],
            then_branch=then,
            else_branch=helper.make_graph(zeros, "else", [], [value("zeros", FLOAT, shape)]),
        ),
    ]


SIGNALS = [
    helper.make_node("TopK", ["x", "two"], ["top", "order"], axis=1),
    helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1),
    helper.make_node("Concat", ["top", "sum"], ["signals"], axis=1),
]
SIGNAL_CONSTANTS = {"two": np.array([2]), "axis": np.array([1])}


def column(at: int) -> onnx.NodeProto:
    return helper.make_node("Gather", ["signals", "at"], ["column"], axis=1, name=f"column-{at}")


@pytest.mark.parametrize(
    ("at", "left"), [(0, ["TopK", "Gather"]), (1, ["TopK", "Gather"]), (2, ["ReduceSum", "Gather"])]
)
def test_only_the_part_that_is_read_is_computed(at: int, left: list[str]) -> None:
    model = built([*SIGNALS, column(at)], {**SIGNAL_CONSTANTS, "at": np.int64(at)}, {"column": ["batch"]})
    assert shortened(model, read_parts) == left


def test_within_a_branch_too() -> None:
    inside = [helper.make_node("Gather", ["signals", "at"], ["found"], axis=1)]
    nodes = [*SIGNALS, helper.make_node("ReduceMax", ["x", "axis"], ["found/like"], keepdims=0)]
    model = built(
        [*nodes, *branching(inside, "found", ["batch"])],
        {**SIGNAL_CONSTANTS, "at": np.int64(1), "none": np.float32(0)},
        {"y": ["batch"]},
    )
    assert "Concat" not in shortened(model, read_parts)


@pytest.mark.parametrize(
    "case", ["negative column", "several columns", "whole Concat", "a row", "joined rows", "unknown width"]
)
def test_what_may_not_be_shortened(case: str) -> None:
    at = {"negative column": np.int64(-3), "several columns": np.array([0, 2])}.get(case, np.int64(0))
    outputs: dict[str, list[int | str]] = {"column": ["batch", 2] if at.ndim else ["batch"]}
    nodes, gather = list(SIGNALS), column(0)
    if case == "whole Concat":
        outputs["signals"] = ["batch", 3]
    if case == "a row":
        gather, outputs["column"] = helper.make_node("Gather", ["signals", "at"], ["column"], axis=0), [3]
    if case == "joined rows":
        nodes, outputs["column"] = [helper.make_node("Concat", ["x", "x"], ["signals"], axis=0)], ["twice"]
    if case == "unknown width":
        chosen = helper.make_node("Compress", ["x", "which"], ["some"], axis=1)
        nodes = [chosen, helper.make_node("Concat", ["some", "x"], ["signals"], axis=1)]
    model = built([*nodes, gather], {**SIGNAL_CONSTANTS, "at": at, "which": np.array([False, True])}, outputs)
    assert "Concat" in shortened(model, read_parts)


def test_branches_that_share_names_are_left_as_they_are() -> None:
    """Either branch reads its own first column: of p and q, or of q and p."""
    value = helper.make_tensor_value_info

    def branch(*parts: str) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Concat", list(parts), ["cat"], axis=1),
            helper.make_node("Gather", ["cat", "at"], ["found"], axis=1),
        ]
        return helper.make_graph(nodes, "branch", [], [value("found", FLOAT, ["batch"])])

    nodes = [
        *(helper.make_node("ReduceSum", ["x", "axis"], [name], keepdims=1) for name in ("p", "sum")),
        helper.make_node("Neg", ["sum"], ["q"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "none"], ["more"]),
        helper.make_node("If", ["more"], ["y"], then_branch=branch("p", "q"), else_branch=branch("q", "p")),
    ]
    constants = {"axis": np.array([1]), "at": np.int64(0), "none": np.float32(0)}
    model = built(nodes, constants, {"y": ["batch"]})
    assert shortened(model, read_parts).count("Concat") == 2
    for sign in (1, -1):  # one branch each
        edited, x = copy_model(model), np.full((3, 4), sign, np.float32)
        read_parts(edited)
        (y,) = cpu_session(edited.SerializeToString()).run(None, {"x": x})
        assert y.tolist() == [4.0] * 3


def pair(source: str, out: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [source, "scale", "zero"], [f"{out}/codes"], name=f"{out}/q"),
        helper.make_node("DequantizeLinear", [f"{out}/codes", "scale", "zero"], [out], name=f"{out}/dq"),
    ]


def test_codes_pass_into_a_branch() -> None:
    nodes = [*pair("x", "border"), *branching(pair("border", "again"), "again", ["batch", 4])]
    nodes.insert(0, helper.make_node("Identity", ["x"], ["again/like"]))
    model = built(nodes, {**CODES, "none": np.float32(0)}, {"y": ["batch", 4]})
    operators = shortened(model, pass_codes)
    assert (operators.count("QuantizeLinear"), operators.count("DequantizeLinear")) == (1, 1)


def test_codes_pass_a_segment_that_passes_them_on() -> None:
    model = built([*pair("x", "a"), *pair("a", "b"), *pair("b", "c")], CODES, {"c": ["batch", 4]})
    assert shortened(model, pass_codes) == ["QuantizeLinear", "DequantizeLinear"]


def test_of_some_rows_the_codes_are_gathered() -> None:
    gather = helper.make_node("Gather", ["border", "rows"], ["stay"], axis=0)
    model = built(
        [*pair("x", "border"), gather, *pair("stay", "y")], {**CODES, "rows": np.array([5, 1])}, {"y": [2, 4]}
    )
    assert shortened(model, pass_codes) == ["QuantizeLinear", "Gather", "DequantizeLinear"]


def test_what_is_gathered_from_other_axes_than_rows_is_made_anew() -> None:
    gather = helper.make_node("Gather", ["border", "columns"], ["some"], axis=1)
    model = built(
        [*pair("x", "border"), gather, *pair("some", "y")], {**CODES, "columns": np.array([3, 1])}, {"y": ["batch", 2]}
    )
    assert shortened(model, pass_codes).count("QuantizeLinear") == 2


def test_other_codes_are_made_anew() -> None:
    nodes = [*pair("x", "border"), helper.make_node("QuantizeLinear", ["border", "finer", "zero"], ["codes"])]
    nodes.append(helper.make_node("DequantizeLinear", ["codes", "finer", "zero"], ["y"]))
    model = built(nodes, {**CODES, "finer": np.float32(0.09)}, {"y": ["batch", 4]})
    assert shortened(model, pass_codes).count("QuantizeLinear") == 2
