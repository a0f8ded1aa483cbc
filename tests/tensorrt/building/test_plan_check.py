"""Whether a plan has its graph's border."""

from __future__ import annotations

import pytest

from sdcompress.errors import VerificationError
from sdcompress.schema.graphs import Segment, Tensor
from sdcompress.tensorrt.building.plan_check import PlanFacts, border_problem, check_precision


def tensor(name: str, dtype: str = "float32") -> Tensor:
    return Tensor(name=name, dtype=dtype, shape=("batch", 3))


SEGMENT = Segment(
    file="a.onnx", sha256="0" * 64, bytes=1, inputs=(tensor("x"),),
    outputs=(tensor("y"), tensor("answer", "int64")), macs=1, parameters=1,
)  # fmt: skip


def test_the_graphs_own_border_and_int32_for_int64_are_right() -> None:
    tensors = [(tensor("x"), True), (tensor("y"), False)]
    assert border_problem(SEGMENT, [*tensors, (tensor("answer", "int64"), False)]) is None
    assert border_problem(SEGMENT, [*tensors, (tensor("answer", "int32"), False)]) is None


def test_another_name_type_or_direction_is_reported() -> None:
    right = [(tensor("y"), False), (tensor("answer", "int64"), False)]
    assert "inputs {'z': 'float32'}" in str(border_problem(SEGMENT, [*right, (tensor("z"), True)]))
    assert "inputs {'x': 'float16'}" in str(border_problem(SEGMENT, [*right, (tensor("x", "float16"), True)]))
    assert "outputs" in str(border_problem(SEGMENT, [(tensor("x"), True), *right[:1]]))
    assert "inputs {}" in str(border_problem(SEGMENT, [(tensor("x"), False), *right]))


def plan(**layers: int) -> PlanFacts:
    return PlanFacts(0, layers, unknown=False)


def test_a_precision_is_looked_for_in_all_plans_together() -> None:
    head = ("int8", plan(fp32=4))  # a segment of a cascade may be a head alone, which stays fp32
    check_precision([("int8", plan(int8=3, fp32=1)), head], typed=False)
    with pytest.raises(VerificationError, match=r"int8 was requested, and no layer has it \(8 fp32\)"):
        check_precision([head, head, ("fp16", plan(fp16=1))], typed=True)
