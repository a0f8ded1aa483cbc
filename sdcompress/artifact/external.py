"""Look into an ONNX file without loading it: a graph whose weights lie in other files is refused.

A runtime may follow such a reference to any file of the machine; onnxruntime before 1.24 does. So every tensor of the
file is looked at here, by the field numbers of onnx.proto, before a runtime is given the file.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from sdcompress.untrusted import Refused

__all__ = ["WAYS", "check_no_external_data"]

# from a message by the number of a field to the message that this holds: every way from a model to a tensor
WAYS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a TensorProto
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # wire types
_MOST_FIELDS = 1_000_000


def check_no_external_data(path: Path) -> None:
    """Refuse an ONNX file with a tensor whose values lie elsewhere.

    Args:
        path: a regular file.

    Raises:
        Refused: if there is one, or the file is not ONNX.
        OSError: if it cannot be read.
    """
    if path.suffix != ".onnx":
        raise Refused("its name does not end in .onnx, so that a runtime may read it as another format")
    if path.stat().st_size == 0:
        raise Refused("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        waiting, fields = [("ModelProto", 0, len(content))], 0
        while waiting:
            message, start, end = waiting.pop()
            for number, wire, value, after in _fields(content, start, end):
                fields += 1
                if fields > _MOST_FIELDS:
                    raise Refused(f"it has more than {_MOST_FIELDS} fields")
                if message == "TensorProto" and (
                    number == _EXTERNAL_DATA or (number == _DATA_LOCATION and wire == _VARINT and value)
                ):
                    raise Refused("a tensor in it has its data in another file")
                if wire == _LENGTH and (inner := WAYS[message].get(number)):
                    waiting.append((inner, value, after))


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, value (of a field with a length: where it starts) and end of each field of a message."""
    while at < end:
        tag, at = _varint(content, at, end)
        number, wire = tag >> 3, tag & 7
        if tag >= 2**32 or number == 0 or wire not in {_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES}:
            raise Refused("it is not ONNX")
        value = at
        if wire == _VARINT:
            value, at = _varint(content, at, end)
        elif wire == _LENGTH:
            length, value = _varint(content, at, end)
            at = value + length
        else:
            at += 8 if wire == _EIGHT_BYTES else 4
        if at > end:
            raise Refused("it is not ONNX, or was cut short")
        yield number, wire, value, at


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """An integer of seven bits a byte, least first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Refused("it is not ONNX, or was cut short")
