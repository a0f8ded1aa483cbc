"""Fills that float16 cannot hold become its largest numbers; nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sdcompress.quantizing.float16_range import clip_fills
from sdcompress.quantizing.precisions._base import Rewriter
from sdcompress.quantizing.precisions.fp8 import fp8
from sdcompress.quantizing.precisions.fp16 import fp16

Made = Callable[..., onnx.ModelProto]
MASK = np.array([[True, False, False], [True, True, True]])


def masked(graph: Made, fill: float, how: str) -> onnx.ModelProto:
    """Softmax over three scores, of which a mask hides one in the first row and all in the second."""
    weights: dict[str, np.ndarray] = {"w": np.eye(3, dtype=np.float32), "v": np.eye(3, dtype=np.float32)}
    if how == "where":
        weights |= {"mask": MASK, "fill": np.array(fill, np.float32)}
        nodes = [helper.make_node("Where", ["mask", "fill", "s"], ["m"], name="fill")]
    else:
        weights["bias"] = np.where(MASK, fill, 0).astype(np.float32)
        nodes = [helper.make_node("Add", ["s", "bias"], ["m"], name="fill")]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"], name="scores"),
        *nodes,
        helper.make_node("Softmax", ["m"], ["p"], name="softmax"),
        helper.make_node("MatMul", ["p", "v"], ["y"], name="last"),
    ]
    return graph(nodes, {"x": [2, 3]}, {"y": [2, 3]}, weights)


@pytest.mark.parametrize("how", ["where", "add"])
@pytest.mark.parametrize("fill", [-1e9, float(np.finfo(np.float32).min)])
def test_a_row_that_is_masked_as_a_whole_stays_a_number(
    graph: Made, segment_of: Callable, fill: float, how: str
) -> None:
    model = masked(graph, fill, how)
    x = np.array([[50.0, 1, 1], [1, 1, 1]], np.float32)
    (wanted,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(wanted, [[0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]], atol=1e-6)
    with np.errstate(all="raise", under="ignore"):
        (output,) = ReferenceEvaluator(fp16(segment_of(model, [], ("y",)))).run(None, {"x": x})
    np.testing.assert_allclose(output, wanted, atol=1e-3)


def test_infinities_and_weights_are_left_as_they_are(graph: Made) -> None:
    weights = {"w": np.full((3, 3), 1e6, np.float32), "low": np.array([-np.inf, 0, -70000], np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"]),
        helper.make_node("Max", ["s", "low"], ["y"]),
    ]
    model = graph(nodes, {"x": ["batch", 3]}, {"y": ["batch", 3]}, weights)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in clip_fills(model).graph.initializer}
    np.testing.assert_array_equal(stored["w"], weights["w"])
    np.testing.assert_array_equal(stored["low/within-65504"], [-np.inf, 0, -65504])
    assert set(stored) == {"w", "low/within-65504"}


def test_a_mask_that_is_added_leaves_room_for_the_scores(graph: Made) -> None:
    """Here or in a later segment: -65504 and a score below zero would be infinite in float16."""
    weights = {"low": np.array(-3e38, np.float32), "nothing": np.array(0, np.float32)}
    nodes = [
        helper.make_node("Greater", ["x", "nothing"], ["seen"]),
        helper.make_node("Where", ["seen", "nothing", "low"], ["mask"]),
    ]
    carried = clip_fills(graph(nodes, {"x": ["batch", 3]}, {"mask": ["batch", 3]}, weights))
    added = clip_fills(
        graph(
            [*nodes, helper.make_node("Add", ["x", "mask"], ["y"])], {"x": ["batch", 3]}, {"y": ["batch", 3]}, weights
        )
    )
    for model in (carried, added):
        assert -32752 in [numpy_helper.to_array(tensor).item() for tensor in model.graph.initializer]


@pytest.mark.parametrize("precision", [fp16, fp8])
def test_a_bound_of_the_outputs_stays_as_they_are_computed_in_float32(
    graph: Made, segment_of: Callable, precision: Rewriter
) -> None:
    """A regression of prices: 3 * 40000, at most a million."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["price"], name="last"),
        helper.make_node("Clip", ["price", "least", "most"], ["y"], name="bound"),
    ]
    weights = {
        "w": np.full((1, 1), 4e4, np.float32),
        "least": np.array(0, np.float32),
        "most": np.array(1e6, np.float32),
    }
    model = graph(nodes, {"x": ["batch", 1]}, {"y": ["batch", 1]}, weights)
    x = np.array([[3], [-3], [1000]], np.float32)
    (output,) = ReferenceEvaluator(precision(segment_of(model, [x], ("y",)))).run(None, {"x": x})
    np.testing.assert_array_equal(output, [[120000], [0], [1000000]])
