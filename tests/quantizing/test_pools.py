"""Average pools whose windows hang over the edge, against torch's, as onnxruntime optimises them and as written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from torch import from_numpy
from torch.nn import functional

from sdcompress.quantizing.precisions._base import FloatSegment, Rewriter
from sdcompress.quantizing.precisions.int8 import int8
from sdcompress.quantizing.precisions.uint8 import uint8

Made = Callable[..., onnx.ModelProto]
Segment = Callable[..., FloatSegment]

# kernel, stride, padding at each side, size of the map; what the last window misses is another part of it in each
POOLS = [
    (2, 2, 0, 7),
    (3, 2, 0, 8),
    (6, 6, 0, 8),
    (3, 2, 1, 8),
    (4, 3, 1, 7),
    (4, 2, 2, 7),
    (4, 6, 1, 7),
    (2, 3, 1, 6),  # the last window would start in the padding, and is left out
    (2, 2, 1, 7),  # likewise
    (3, 1, 1, 7),
]


def pooled(
    graph: Made, kernel: int, stride: int, padding: int, size: int, *, border: bool = False, **options: int
) -> onnx.ModelProto:
    """A pool between two convolutions that give what they are given; ``border``: its input is an output too."""
    pool = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4, **options}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="before"),
        helper.make_node("AveragePool", ["c"], ["p"], name="pool", **pool),
        helper.make_node("Conv", ["p", "w"], ["y"], name="after"),
    ]
    outputs: dict[str, list[str | int]] = {"y": ["batch", 2, "height", "width"]}
    if border:
        outputs["c"] = ["batch", 2, size, size]
    weights = {"w": np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1)}
    return graph(nodes, {"x": ["batch", 2, size, size]}, outputs, weights)


def images(size: int) -> np.ndarray:
    """Far from 0, so that what is counted as 0 would be seen."""
    return np.random.default_rng(0).uniform(2, 4, size=(3, 2, size, size)).astype(np.float32)


@pytest.mark.parametrize("precision", [int8, uint8])
@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), POOLS)
def test_overhang_does_not_count(
    *, kernel: int, stride: int, padding: int, size: int, include: int, border: bool, precision: Rewriter,
    graph: Made, segment_of: Segment,
) -> None:  # fmt: skip
    x = images(size)
    expected = functional.avg_pool2d(
        from_numpy(x), kernel, stride, padding, ceil_mode=True, count_include_pad=bool(include)
    )
    model = pooled(graph, kernel, stride, padding, size, border=border, ceil_mode=1, count_include_pad=include)
    quantised = precision(segment_of(model, [x]))
    for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # onnx 1.18 infers one window too many where one is left out
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(
            quantised.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (output,) = session.run(["y"], {"x": x})
        np.testing.assert_allclose(output, expected.numpy(), atol=3 * 4 / 127, err_msg=level)


@pytest.mark.parametrize(("padding", "wanted"), [(0, []), (1, ["Pad"])])
def test_the_pool_is_still_computed_in_integers(
    graph: Made, segment_of: Segment, tmp_path: Path, padding: int, wanted: list[str]
) -> None:
    quantised = uint8(segment_of(pooled(graph, 3, 2, padding, 8, ceil_mode=1, count_include_pad=1), [images(8)]))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(quantised.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kernels = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert "QLinearAveragePool" in kernels
    assert [name for name in kernels if name in {"Pad", "AveragePool"}] == wanted


@pytest.mark.parametrize("options", [{}, {"ceil_mode": 1}, {"count_include_pad": 1}])
def test_other_pools_are_left_as_they_are(options: dict[str, int], graph: Made, segment_of: Segment) -> None:
    model = pooled(graph, 3, 2, 1, 8, **options)
    quantised = int8(segment_of(model, [images(8)]))
    (pool,), (given,) = ([n for n in m.graph.node if n.op_type == "AveragePool"] for m in (quantised, model))
    assert pool.attribute == given.attribute
    assert not [node for node in quantised.graph.node if node.op_type == "Pad"]
