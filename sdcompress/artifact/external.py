"""Refuse ONNX files whose tensors keep their data in other files.

A runtime may follow such a reference to any file of the machine; onnxruntime before 1.24 does. This module therefore
checks every tensor by the field numbers of onnx.proto before a runtime opens the file.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from sdcompress.artifact.protobuf import LENGTH, fields
from sdcompress.untrusted import Refused

__all__ = ["SUBMESSAGES", "check_no_external_data"]

# message -> field number -> type of the submessage: every path from a model to a tensor
SUBMESSAGES: dict[str, dict[int, str]] = {
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
_MAX_FIELDS = 1_000_000


def check_no_external_data(path: Path) -> None:
    """Refuse an ONNX file with external tensor data.

    Args:
        path: a regular file.

    Raises:
        Refused: if a tensor has external data, or the file is not ONNX.
        OSError: if it cannot be read.
    """
    if path.suffix != ".onnx":
        raise Refused("its name does not end in .onnx, so that a runtime may read it as another format")
    if path.stat().st_size == 0:
        raise Refused("it is empty")
    with path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    pending, count = [("ModelProto", content)], 0
    while pending:
        message, part = pending.pop()
        for field in fields(part):
            count += 1
            if count > _MAX_FIELDS:
                raise Refused(f"it has more than {_MAX_FIELDS} fields")
            if message == "TensorProto" and (
                field.number == _EXTERNAL_DATA or (field.number == _DATA_LOCATION and field.value)
            ):
                raise Refused("a tensor in it has its data in another file")
            if field.wire == LENGTH and (inner := SUBMESSAGES[message].get(field.number)):
                pending.append((inner, field.content))
