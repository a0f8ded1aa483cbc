"""The engine inspector's JSON, in the forms that its versions write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sdcompress.errors import VerificationError
from sdcompress.tensorrt.nvidia.inspector import UNKNOWN, layer_types, lower_problem, missing_problem


def layer(words: str, key: str = "Format/Datatype", **more: Any) -> dict[str, Any]:
    return {"Name": "a", "Outputs": [{"Name": "b", key: words}], **more}


def report(*layers: Any, **more: Any) -> str:
    return json.dumps({"Layers": list(layers), **more})


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Row major linear FP32", "fp32"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Half(64,1:8,32)", "fp16"),
        ("Float", "fp32"),
        ("BF16", "bf16"),
        ("Row major linear BFloat16 format", "bf16"),
        ("Int64", "int64"),
        ("Bool", "bool"),
        ("Row major linear FP8 format", "fp8"),
        ("N/A due to dynamic shapes", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_the_type_is_found_in_the_inspectors_words(words: str, kind: str) -> None:
    assert layer_types(report(layer(words))) == {kind: 1}


def test_11_reports_format_and_type_separately() -> None:
    text = report(
        layer("FP16", "DataType", Format="LINEAR"), **{"I/O Tensors": [{"Name": "input"}, {"Name": "logits"}]}
    )
    assert layer_types(text) == {"fp16": 1}


def test_a_fused_layer_with_fp32_outputs_has_an_unknown_type() -> None:
    fused = {"Name": "{ForeignNode[blocks.0/MatMul...head/Gemm]}"}
    assert layer_types(report(layer("Row major linear FP32", **fused))) == {UNKNOWN: 1}
    assert layer_types(report(layer("Row major linear FP16 format", **fused))) == {"fp16": 1}


def test_a_layer_without_outputs_has_an_unknown_type() -> None:
    assert layer_types(report({"Name": "a", "Outputs": []})) == {UNKNOWN: 1}


@pytest.mark.parametrize("text", ["", "[]", "{}", report("a bare name")])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(VerificationError, match="cannot be read"):
        layer_types(text)


@pytest.mark.parametrize(
    ("asked", "layers"),
    [
        ("fp32", {"fp32": 3, "int64": 1}),
        ("fp32", {UNKNOWN: 3}),
        ("fp16", {"fp16": 3, "fp32": 1}),
        ("int8", {"int8": 3, "fp16": 1, "fp32": 1}),
        ("fp8", {"fp8": 3, "fp16": 2, "bf16": 1, "fp32": 1}),
        ("bf16", {"bf16": 1, UNKNOWN: 4}),
    ],
)
def test_layers_as_asked_are_no_problem(asked: Any, layers: dict[str, int]) -> None:
    assert lower_problem(asked, layers) is None
    assert missing_problem(asked, layers, typed=False) is None


@pytest.mark.parametrize(
    ("asked", "layers", "words"),
    [
        ("fp32", {"fp32": 3, "fp16": 1}, "layers are fp16"),
        ("fp16", {"fp16": 3, "int8": 1}, "layers are int8"),
        ("fp8", {"fp8": 3, "int8": 1}, "layers are int8"),
        ("int8", {"int8": 3, "fp8": 1}, "layers are fp8"),
    ],
)
def test_a_lower_precision_is_a_problem(asked: Any, layers: dict[str, int], words: str) -> None:
    assert words in str(lower_problem(asked, layers))


@pytest.mark.parametrize(("asked", "layers"), [("fp16", {"fp32": 3}), ("int8", {"fp16": 3}), ("fp8", {"fp16": 3})])
@pytest.mark.parametrize("typed", [True, False])
def test_a_precision_without_layers_is_a_problem(asked: Any, layers: dict[str, int], typed: bool) -> None:
    assert "no layer has it" in str(missing_problem(asked, layers, typed=typed))


@pytest.mark.parametrize("layers", [{UNKNOWN: 2}, {UNKNOWN: 1, "fp32": 5}, {}])
def test_layers_of_unknown_types_are_believed_where_the_types_of_the_graph_bind(layers: dict[str, int]) -> None:
    assert missing_problem("fp16", layers, typed=True) is None
    assert "no layer has it" in str(missing_problem("fp16", layers, typed=False))
    assert missing_problem("fp32", layers, typed=False) is None  # 8.x may give less only where a flag allows it
