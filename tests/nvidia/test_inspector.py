"""The engine inspector's JSON, in the forms that its versions write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sdcompress.errors import VerificationError
from sdcompress.nvidia.inspector import UNKNOWN, border_names, layer_types, precision_problem


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


def test_11_says_format_and_type_apart() -> None:
    text = report(
        layer("FP16", "DataType", Format="LINEAR"), **{"I/O Tensors": [{"Name": "input"}, {"Name": "logits"}]}
    )
    assert layer_types(text) == {"fp16": 1}
    assert border_names(text) == ("input", "logits")


def test_up_to_10_borders_are_names() -> None:
    assert border_names(report(Bindings=["input", "logits"])) == ("input", "logits")


def test_with_several_batch_sizes_weights_and_kernels_say_it() -> None:
    unknown = "N/A due to dynamic shapes"
    text = report(
        layer(unknown, Weights={"Type": "Half", "Count": 9408}),
        layer(unknown, TacticName="sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32"),
        layer(unknown, TacticName="sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nchw"),
        layer(unknown, LayerType="Reformat"),
    )
    assert layer_types(text) == {"fp16": 1, "fp32": 1, "int8": 1, UNKNOWN: 1}


@pytest.mark.parametrize("text", ["", "[]", "{}", report("a bare name")])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(VerificationError, match="cannot be read"):
        layer_types(text)


def test_a_report_without_borders_is_refused() -> None:
    with pytest.raises(VerificationError, match="no inputs and outputs"):
        border_names(report())


@pytest.mark.parametrize(
    ("asked", "layers"),
    [
        ("fp32", {"fp32": 3, "int64": 1}),
        ("fp16", {"fp16": 3, "fp32": 1}),
        ("int8", {"int8": 3, "fp16": 1, "fp32": 1}),
        ("bf16", {"bf16": 1, UNKNOWN: 4}),
    ],
)
def test_layers_as_asked_are_no_problem(asked: Any, layers: dict[str, int]) -> None:
    assert precision_problem(asked, layers, typed=False) is None


@pytest.mark.parametrize(
    ("asked", "layers", "words"),
    [
        ("fp16", {"fp32": 3}, "no layer gives it (3 fp32)"),
        ("int8", {"fp16": 3}, "no layer gives it"),
        ("fp32", {"fp32": 3, "fp16": 1}, "layers give fp16"),
        ("fp16", {"fp16": 3, "int8": 1}, "layers give int8"),
    ],
)
def test_other_layers_than_asked_are_one(asked: Any, layers: dict[str, int], words: str) -> None:
    assert words in str(precision_problem(asked, layers, typed=True))


def test_silence_is_refused_only_where_nothing_binds_tensorrt() -> None:
    assert precision_problem("fp16", {UNKNOWN: 2}, typed=True) is None
    assert "does not say" in str(precision_problem("fp16", {UNKNOWN: 2}, typed=False))
