"""Write the body of an infer response: its JSON, then binary data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import orjson

from sdcompress.serving.protocol.tensors import binary_of, json_of

__all__ = ["HEADER_LENGTH", "ResponseTensor", "response_body"]

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class ResponseTensor:
    """A tensor of a response.

    Attributes:
        name: of the output.
        datatype: of the protocol.
        shape: of the data.
        data: an array, or elements of BYTES.
        binary: whether it is sent as binary data.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    data: npt.NDArray[Any] | tuple[bytes, ...]
    binary: bool


def response_body(fields: Mapping[str, Any], tensors: Sequence[ResponseTensor]) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a response.

    Args:
        fields: of the JSON beside the outputs.
        tensors: the outputs.
    """
    outputs, tails = list[dict[str, Any]](), list[bytes]()
    for tensor in tensors:
        written: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if tensor.binary:
            tails.append(binary_of(tensor.data))
            written["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            written["data"] = json_of(tensor.data)
        outputs.append(written)
    head = orjson.dumps({**fields, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tails:
        return head, {"content-type": "application/json"}
    return b"".join((head, *tails)), {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
