"""Ranges do not depend on the order of the images, and neither infinities nor padding constants are data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from sdcompress.quantizing import ranges
from sdcompress.quantizing.precisions._base import FloatSegment
from sdcompress.quantizing.precisions.int8 import int8
from sdcompress.quantizing.precisions.uint8 import uint8
from sdcompress.quantizing.ranges import expected_maximum, measure_ranges
from sdcompress.quantizing.segments import output_layers

Made = Callable[..., onnx.ModelProto]


@pytest.mark.parametrize("group", [1, 2, 3, 6])
def test_the_expected_largest_is_the_mean_over_all_groups(group: int) -> None:
    values = np.array([3.0, -1.0, 4.0, 1.5, -9.0, 2.5])
    wanted = np.mean([max(each) for each in combinations(values, group)])
    assert expected_maximum(values, group) == pytest.approx(wanted, rel=1e-12)


def test_of_fewer_values_than_a_group_it_is_the_largest() -> None:
    assert expected_maximum(np.array([1.0, 7.0]), 32) == 7.0


@pytest.mark.parametrize("precision", [int8, uint8])
def test_neither_order_nor_batch_size_changes_a_byte(residual: onnx.ModelProto, precision: Callable) -> None:
    """Images sorted by their size, as the classes of a folder are, against shuffled ones; a last batch of one image."""
    rng = np.random.default_rng(0)
    images = (
        rng.normal(size=(97, 3, 6, 6)).astype(np.float32)
        * np.repeat(np.float32([0.1, 1, 5]), [32, 32, 33])[:, None, None, None]
    )

    def made(order: np.ndarray, size: int) -> bytes:
        def feeds() -> Iterator[dict[str, np.ndarray]]:
            return iter([{"x": images[order[at : at + size]]} for at in range(0, len(order), size)])

        return precision(FloatSegment(residual, output_layers(residual, ["exit1_outputs"]), feeds)).SerializeToString(
            deterministic=True
        )

    in_order = made(np.arange(97), 32)
    assert made(np.random.default_rng(1).permutation(97), 32) == in_order
    assert made(np.arange(97), 96) == in_order
    assert made(np.arange(97), 1) == in_order


def padded(graph: Made, value: float, *reader: onnx.NodeProto) -> onnx.ModelProto:
    """Convolution, padding of one row and column by a constant, and what reads that."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Pad", ["c", "pads", "value"], ["p"], name="pad"),
        *reader,
    ]
    weights = {
        "w": np.array([2.0], np.float32).reshape(1, 1, 1, 1),
        "pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        "value": np.array(value, np.float32),
        "v": np.array([1.0], np.float32).reshape(1, 1, 1, 1),
    }
    return graph(nodes, {"x": ["batch", 1, 3, 3]}, {"y": ["batch", 1, 2, 2]}, weights)


POOL = helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[2, 2], strides=[2, 2], name="pool")
IMAGES = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3) / 10 - 0.5


@pytest.mark.parametrize("precision", [int8, uint8])
@pytest.mark.parametrize("value", [-np.inf, np.finfo(np.float32).min, -1e4, -1.0])
def test_a_constant_of_which_only_maxima_are_taken_is_no_data(graph: Made, precision: Callable, value: float) -> None:
    """2 x is -0.8 to 0.8: codes are spread over that, whatever the padding, and none stands for the padding."""
    model = precision(FloatSegment(padded(graph, value, POOL), frozenset(), lambda: iter([{"x": IMAGES}])))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert stored["c_scale"] == pytest.approx(1.6 / (254 if precision is int8 else 255), rel=1e-5)
    assert not {"p_scale", "value_scale"} & stored.keys()
    for level in (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    ):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        (found,) = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": IMAGES})
        np.testing.assert_allclose(found, [[[[0.0, 0.2], [0.6, 0.8]]]], atol=0.01)


def test_a_constant_that_is_multiplied_is_data(graph: Made) -> None:
    conv = helper.make_node("Conv", ["p", "v"], ["y"], name="last", strides=[2, 2])
    ranges_ = measure_ranges(padded(graph, -4.0, conv), ["c", "p"], [{"x": IMAGES}], threads=1)
    assert ranges_.extremes["p"] == pytest.approx((-4.0, 0.8))
    assert not ranges_.fills


def test_a_constant_that_is_a_maximum_is_data(graph: Made) -> None:
    ranges_ = measure_ranges(padded(graph, 3.0, POOL), ["c", "p"], [{"x": IMAGES}], threads=1)
    assert ranges_.extremes["p"] == pytest.approx((-0.8, 3.0))
    assert not ranges_.fills


@pytest.mark.parametrize("precision", [int8, uint8])
def test_infinities_stay_infinities_where_they_are_added(graph: Made, precision: Callable) -> None:
    """A mask that is computed: log(0) is -inf, and a code for it would let what is masked through."""
    nodes = [
        helper.make_node("Log", ["x"], ["mask"], name="log"),
        helper.make_node("MatMul", ["x", "w"], ["scores"], name="product"),
        helper.make_node("Add", ["scores", "mask"], ["sum"], name="add"),
        helper.make_node("Softmax", ["sum"], ["y"], name="softmax"),
    ]
    model = graph(nodes, {"x": ["batch", 3]}, {"y": ["batch", 3]}, {"w": np.eye(3, dtype=np.float32)})
    x = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]], np.float32)
    ranges_ = measure_ranges(model, ["scores", "mask", "sum"], [{"x": x}], threads=1)
    assert ranges_.infinite == {"mask", "sum"}
    assert ranges_.extremes["mask"] == (0.0, 0.0)
    quantised = precision(FloatSegment(model, frozenset(), lambda: iter([{"x": x}])))
    (y,) = onnxruntime.InferenceSession(quantised.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(y, [[0, 0.5, 0.5], [0.5, 0, 0.5]], atol=1e-6)


def test_a_tensor_that_is_infinite_everywhere_has_no_range(graph: Made) -> None:
    model = graph([helper.make_node("Log", ["x"], ["y"])], {"x": ["batch", 2]}, {"y": ["batch", 2]}, {})
    feeds = [{"x": np.array([[0, 0], [0, np.e]], np.float32)}]
    ranges_ = measure_ranges(model, ["y"], feeds, threads=1)
    assert ranges_.extremes["y"] == pytest.approx((1.0, 1.0))  # of the second image alone
    assert measure_ranges(model, ["y"], [{"x": np.zeros((1, 2), np.float32)}], threads=1).extremes["y"] == (0, 0)


def test_the_second_graph_is_run_only_where_there_is_an_infinity(graph: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []
    real = ranges._Reductions

    def counted(*given: object, finite: bool = False) -> object:
        made.append(finite)
        return real(*given, finite=finite)  # type: ignore[arg-type]

    monkeypatch.setattr(ranges, "_Reductions", counted)
    measure_ranges(padded(graph, -1.0, POOL), ["c", "p"], [{"x": IMAGES}], threads=1)
    assert made == [False]


def test_the_lowest_number_is_a_fill_as_an_infinity_is(graph: Made) -> None:
    """transformers adds it to the scores of masked attention; a range with it would leave no codes to the scores."""
    fill = float(np.finfo(np.float32).min)
    model = graph([helper.make_node("Add", ["x", "mask"], ["y"])], {"x": ["batch", 3]}, {"y": ["batch", 3]},
                  {"mask": np.array([0, 0, fill], np.float32)})  # fmt: skip
    feeds = [{"x": np.array([[1.0, 2.0, 3.0]], np.float32)}]
    measured = measure_ranges(model, ["x", "y"], feeds, threads=1)
    assert measured.infinite == {"y"}
    assert measured.extremes == {"x": (1.0, 3.0), "y": (1.0, 2.0)}
