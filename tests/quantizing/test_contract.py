"""What every precision promises, that of docs/adding/precision.md included."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from sdcompress import registry
from sdcompress.errors import UsageError
from sdcompress.quantizing import quantize as module
from sdcompress.quantizing.precisions._base import FloatSegment, Rewriter
from sdcompress.quantizing.segments import count_products
from sdcompress.runtime.backends.onnxruntime import ORT_ERRORS

PAGE = (Path(__file__).parents[2] / "docs" / "adding" / "precision.md").read_text(encoding="utf-8")


def of_the_page() -> Rewriter:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/adding/precision.md", "exec"), names)
    (public,) = names["__all__"]
    return names[public]


@pytest.fixture(params=[*registry.names(module.ROOM), "docs"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def precision(name: str) -> Rewriter:
    return of_the_page() if name == "docs" else registry.load(module.ROOM, name, extra="quantize")


@pytest.fixture
def batches(wide_batches: list[np.ndarray]) -> list[np.ndarray]:
    return wide_batches


@pytest.fixture
def segment(wide_residual: onnx.ModelProto, batches: list[np.ndarray], segment_of: Callable[..., FloatSegment]) -> Any:
    return segment_of(wide_residual, batches, ("exit1_outputs",))


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})
    except ORT_ERRORS:  # no kernels for bfloat16
        return ReferenceEvaluator(model).run(None, {"x": x})


def test_borders_keep_their_names_shapes_and_type(precision: Rewriter, segment: FloatSegment) -> None:
    before = segment.model.SerializeToString(deterministic=True)
    quantised = precision(segment)
    assert segment.model.SerializeToString(deterministic=True) == before
    for kind in ("input", "output"):
        actual, expected = ([(v.name, v.type) for v in getattr(m.graph, kind)] for m in (quantised, segment.model))
        assert actual == expected
        assert {v.type.tensor_type.elem_type for v in getattr(quantised.graph, kind)} == {TensorProto.FLOAT}


def test_logits_come_from_what_computes_in_float32(precision: Rewriter, segment: FloatSegment) -> None:
    quantised = precision(segment)
    makers = {name: node for node in quantised.graph.node for name in node.output}
    assert makers["exit1_outputs"].op_type == "Gemm"


def test_something_is_narrow_and_the_answers_are_close(
    name: str, precision: Rewriter, segment: FloatSegment, batches: list[np.ndarray]
) -> None:
    quantised = precision(segment)
    assert count_products(quantised, name)[0] >= 2
    for exact, close in zip(run(segment.model, batches[0]), run(quantised, batches[0]), strict=True):
        assert close.dtype == np.float32
        assert 0 < np.abs(exact - close).max() < 0.1 * np.abs(exact).max()


def test_rows_do_not_look_at_each_other(precision: Rewriter, segment: FloatSegment, batches: list[np.ndarray]) -> None:
    """But for a few numbers that the order of a float32 sum rounds to the next code: a range of the batch moves all."""
    quantised = precision(segment)
    together = run(quantised, batches[1])
    for row in (0, 7, 15):
        for alone, all_ in zip(run(quantised, batches[1][row : row + 1]), together, strict=True):
            assert (~np.isclose(alone[0], all_[row], atol=1e-5)).mean() < 0.05


def test_the_same_bytes(precision: Rewriter, segment: FloatSegment) -> None:
    first, second = (precision(segment).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_a_precision_that_no_manifest_can_name_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tiny_artifact: Callable, tiny_network: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(module.registry, "names", lambda _: ["int16"])
    samples = tiny_network.samples(100)
    with pytest.raises(UsageError, match="No manifest can say") as caught:
        module.quantize(tiny_artifact(), tmp_path / "out", precision="int16", training=samples, validation=samples)
    assert "precision.md" in caught.value.next_step
