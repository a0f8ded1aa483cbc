"""A plan's first bytes, as NVIDIA's trtexec reads them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdcompress.tensorrt.nvidia.header import PlanHeader, read_header

BYTE = st.integers(0, 255)


@given(st.tuples(BYTE, BYTE, BYTE, BYTE), st.binary(max_size=64))
def test_the_version_stands_in_bytes_24_to_27(version: tuple[int, ...], rest: bytes) -> None:
    plan = b"ftrt" + bytes(4) + b"x" * 16 + bytes(version) + rest
    assert read_header(plan) == PlanHeader(True, ".".join(map(str, version)))


@given(st.binary(max_size=64))
def test_other_bytes_are_no_plan(data: bytes) -> None:
    assert read_header(b"PK" + data) == PlanHeader(False, None)


@given(st.integers(0, 27))
def test_a_truncated_plan_has_no_version(length: int) -> None:
    assert read_header((b"ftrt" + bytes(24))[:length]).version is None


def test_another_serialization_has_a_tag_but_no_version_that_can_be_read() -> None:
    assert read_header(b"ftrt" + b"\1" + bytes(40)) == PlanHeader(True, None)
