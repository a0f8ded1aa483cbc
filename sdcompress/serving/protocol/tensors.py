"""Turn the data of tensors into arrays and back, in JSON and as binary data."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.errors import InputError, brief
from sdcompress.serving.protocol.datatypes import BYTES, NUMBERS

__all__ = ["MOST_BYTES", "Tensor", "binary_of", "json_of", "tensor_of_binary", "tensor_of_json", "tensor_of_values"]

_TYPES: dict[str, set[type]] = {"b": {bool}, "u": {int}, "i": {int}, "f": {int, float}}  # of JSON, by kind of dtype
MOST_BYTES = 2**16
"""Elements of one BYTES tensor: each takes Python's time, and 64 MiB may hold 16 million empty ones."""

_PREFIX = 4  # bytes of the length before each element of BYTES


@dataclass(frozen=True)
class Tensor:
    """A tensor as the protocol has it.

    Attributes:
        datatype: of the protocol.
        shape: of the array.
        data: an array of this shape; of BYTES the elements in row-major order.
    """

    datatype: str
    shape: tuple[int, ...]
    data: npt.NDArray[Any] | tuple[bytes, ...]


def tensor_of_json(name: str, datatype: str, shape: Sequence[int], data: Any, content_type: str = "") -> Tensor:
    """Return a tensor whose data is a JSON list, flat or nested like its shape.

    Args:
        name: of the input, for messages.
        datatype: BYTES or one of ``NUMBERS``.
        shape: of no negative sizes.
        data: from the JSON.
        content_type: "base64" if BYTES are encoded so; else they are texts.

    Raises:
        InputError: if the data does not fit.
    """
    if not isinstance(data, list):
        raise InputError(
            f"The input '{brief(name)}' has no data, or it is no list.",
            allowed="a list, or binary data with its binary_data_size",
            next_step="add 'data' to the input",
        )
    flat = _flat(name, datatype, shape, data)
    if datatype == BYTES:
        _check_count(name, shape, len(flat))  # before each of them takes time
        flat = [_element(name, value, content_type) for value in flat]
    return tensor_of_values(name, datatype, shape, flat)


def tensor_of_values(name: str, datatype: str, shape: Sequence[int], flat: list[Any]) -> Tensor:
    """Return a tensor of Python's numbers, or of bytes.

    Args:
        name: of the input, for messages.
        datatype: BYTES or one of ``NUMBERS``.
        shape: of no negative sizes.
        flat: its elements in row-major order.

    Raises:
        InputError: if they do not fit.
    """
    _check_count(name, shape, len(flat))
    if datatype == BYTES:
        return Tensor(BYTES, tuple(shape), tuple(flat))
    dtype = NUMBERS[datatype]
    # before numpy looks at them: one long text among numbers would make it an array of texts as long
    if not set(map(type, flat)) <= _TYPES[dtype.kind]:
        raise _does_not_fit(name, datatype, shape, "it holds other values")
    if flat and dtype.kind in "iu" and not np.iinfo(dtype).min <= min(flat) <= max(flat) <= np.iinfo(dtype).max:
        raise _does_not_fit(name, datatype, shape, "a value is out of range")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused later
        return Tensor(datatype, tuple(shape), np.array(flat, dtype).reshape(shape))


def tensor_of_binary(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> Tensor:
    """Return a tensor of binary data: little-endian, row-major; elements of BYTES behind their length in 4 bytes.

    Args:
        name: of the input, for messages.
        datatype: BYTES or one of ``NUMBERS``.
        shape: of no negative sizes.
        data: all bytes of the tensor.

    Raises:
        InputError: if the data does not fit.
    """
    if datatype == BYTES:
        elements = tuple(islice(_elements(name, data), MOST_BYTES + 1))
        _check_count(name, shape, len(elements))
        return Tensor(BYTES, tuple(shape), elements)
    dtype = NUMBERS[datatype]
    if (expected := math.prod(shape) * dtype.itemsize) != len(data):
        raise _does_not_fit(name, datatype, shape, f"{len(data)} bytes are {expected} by shape and datatype")
    if datatype == "BOOL" and bool((np.frombuffer(data, np.uint8) > 1).any()):
        raise _does_not_fit(name, datatype, shape, "a byte is neither 0 nor 1")
    # behind JSON of any length the data lies at any address, which vector instructions do not like
    return Tensor(datatype, tuple(shape), np.require(np.frombuffer(data, dtype).reshape(shape), requirements="A"))


def binary_of(data: npt.NDArray[Any] | Sequence[bytes]) -> bytes:
    """Return an array, or elements of BYTES, as binary data."""
    if isinstance(data, np.ndarray):
        return data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()
    return b"".join(chain.from_iterable((len(one).to_bytes(_PREFIX, "little"), one) for one in data))


def json_of(data: npt.NDArray[Any] | Sequence[bytes]) -> Any:
    """Return an array, or elements of BYTES that are UTF-8, as orjson writes them: a flat list."""
    if isinstance(data, np.ndarray):
        flat = np.ascontiguousarray(data).reshape(-1)
        return flat if flat.dtype != np.float16 else flat.astype(np.float32)
    return [one.decode() for one in data]


def _flat(name: str, datatype: str, shape: Sequence[int], data: list[Any]) -> list[Any]:
    """Return the elements of a list that is flat, or nested as the shape says."""
    if data and isinstance(data[0], list):
        for size in shape[1:]:
            if not all(isinstance(one, list) and len(one) == size for one in data):
                raise _does_not_fit(name, datatype, shape, "it is nested in another way")
            data = list(chain.from_iterable(data))
    return data


def _element(name: str, value: Any, content_type: str) -> bytes:
    if not isinstance(value, str):
        raise InputError(
            f"The input '{brief(name)}' holds a {type(value).__name__}.",
            allowed="texts, or base64 with the parameter content_type",
            next_step="send other bytes as binary data",
        )
    if content_type != "base64":
        return value.encode()
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(
            f"The input '{brief(name)}' holds a text that is no base64.",
            allowed="RFC 4648, with padding and without line breaks",
            next_step="encode the bytes again, such as with base64 -w0",
        ) from error


def _elements(name: str, data: memoryview) -> Iterable[bytes]:
    at = 0
    while at < len(data):
        start = at + _PREFIX
        end = start + int.from_bytes(data[at:start], "little")
        if start > len(data) or end > len(data):
            raise InputError(
                f"The input '{brief(name)}' ends within an element.",
                allowed="for each element its length as 4 bytes, little-endian, and its bytes",
                next_step="encode it again",
            )
        yield bytes(data[start:end])
        at = end


def _check_count(name: str, shape: Sequence[int], count: int) -> None:
    if math.prod(shape) != count:
        raise InputError(
            f"The input '{brief(name)}' has {count} elements.",
            allowed=f"{math.prod(shape)}, as its shape {list(shape)} says",
            next_step="correct the shape or the data",
        )


def _does_not_fit(name: str, datatype: str, shape: Sequence[int], why: str) -> InputError:
    return InputError(
        f"The data of the input '{brief(name)}' does not fit: {why}.",
        allowed=f"{datatype} of shape {list(shape)}, as the input says",
        next_step="correct the data, the shape or the datatype",
    )
