"""Tensors of the protocol, there and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcompress.errors import InputError
from sdcompress.serving.errors import TooLargeError
from sdcompress.serving.protocol.datatypes import NUMBERS, datatype_of
from sdcompress.serving.protocol.request import parse
from sdcompress.serving.protocol.tensors import binary_of, json_of, tensor_of_binary, tensor_of_json


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_survive_both_encodings(datatype: str) -> None:
    dtype = NUMBERS[datatype]
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    assert datatype_of(array.dtype) == datatype
    binary = tensor_of_binary("x", datatype, [2, 3], memoryview(binary_of(array)))
    flat = json_of(array)
    written = tensor_of_json("x", datatype, [2, 3], np.asarray(flat).tolist())
    for tensor in (binary, written):
        assert tensor.shape == (2, 3)
        assert isinstance(tensor.data, np.ndarray)
        assert tensor.data.dtype == dtype
        assert (tensor.data == array).all()


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_bytes_survive_as_binary_data(elements: list[bytes]) -> None:
    tensor = tensor_of_binary("x", "BYTES", [len(elements)], memoryview(binary_of(elements)))
    assert tensor.data == tuple(elements)


@pytest.mark.parametrize("data", [b"\1", b"\5\0\0\0abc", b"\0\0\0\0\0"])
def test_bytes_that_end_within_an_element(data: bytes) -> None:
    with pytest.raises(InputError, match=r"ends within an element|has . elements"):
        tensor_of_binary("x", "BYTES", [1], memoryview(data))


def test_integers_out_of_range_and_truth_values() -> None:
    for datatype, value in (("UINT8", 256), ("INT8", -129), ("UINT64", -1), ("INT64", 2**63)):
        with pytest.raises(InputError, match="out of range"):
            tensor_of_json("x", datatype, [1], [value])
    assert tensor_of_json("x", "UINT64", [1], [2**64 - 1]).data.tolist() == [2**64 - 1]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="neither 0 nor 1"):
        tensor_of_binary("x", "BOOL", [1], memoryview(b"\2"))


@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=5)))
def test_any_body_is_read_or_refused(body: bytes, header: str | None) -> None:
    with pytest.raises(InputError):  # random bytes are no request
        parse(body, header)


def test_json_of_more_than_8_mib_is_refused_and_binary_data_is_not() -> None:
    data = np.zeros((1, 2**21 + 1), np.float32)
    tensor = {"name": "input", "datatype": "FP32", "shape": list(data.shape)}
    with pytest.raises(TooLargeError, match="The JSON of the request has 12582928 bytes"):
        parse(b'{"inputs": [' + b"[]," * 2**22 + b"[]]}")
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": data.nbytes}}]}).encode()
    assert parse(head + data.tobytes(), str(len(head))).inputs["input"].data.shape == data.shape


def test_millions_of_empty_elements_are_refused_before_they_are_read() -> None:
    data = bytes(2**22)
    parameters = {"binary_data_size": len(data)}
    head = json.dumps(
        {"inputs": [{"name": "raw", "datatype": "BYTES", "shape": [2**20], "parameters": parameters}]}
    ).encode()
    with pytest.raises(InputError, match="at most 65,536 elements"):
        parse(head + data, str(len(head)))
    with pytest.raises(InputError, match="has 65537 elements"):
        tensor_of_binary("raw", "BYTES", [1], memoryview(data))


def test_too_many_elements_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(InputError, match="has 3 elements"):
        tensor_of_json("x", "BYTES", [1], ["no base64!"] * 3, "base64")
