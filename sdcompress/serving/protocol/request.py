"""Read the body of an infer request: its JSON, then its tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sdcompress.errors import InputError, brief, nearest
from sdcompress.serving.errors import TooLargeError
from sdcompress.serving.protocol.datatypes import BYTES, NUMBERS
from sdcompress.serving.protocol.tensors import MOST_BYTES, Tensor, tensor_of_binary, tensor_of_json

__all__ = [
    "InferRequest",
    "Output",
    "Parameter",
    "Parameters",
    "TensorHead",
    "check_parameters",
    "checked_request",
    "json_bytes",
    "parse",
    "request_of",
]

Parameter = bool | int | float | str
Parameters = Mapping[str, Parameter]

_MOST_JSON = (
    2**23
)  # bytes: parsing holds the interpreter's lock, and hostile JSON takes a third of a second for each MiB
_MOST_TENSORS, _MOST_AXES, _MOST_ELEMENTS = 64, 8, 2**31 - 1
_OF_INPUTS, _OF_OUTPUTS = ("binary_data_size", "content_type"), ("binary_data",)
_NOTHING = memoryview(b"")
_Name = Field(min_length=1, max_length=1000)


def _few(value: Any) -> Any:
    """Refuse many parameters before each of them is looked at: of half a million errors a list takes seconds."""
    if isinstance(value, dict) and len(value) > _MOST_TENSORS:
        raise ValueError(f"at most {_MOST_TENSORS} parameters")
    return value


_Given = Annotated[dict[str, Parameter], BeforeValidator(_few)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class TensorHead(_Strict):
    """An input of a request, as its JSON has it."""

    name: str = _Name
    shape: list[int] = Field(min_length=1, max_length=_MOST_AXES)
    datatype: str
    parameters: _Given = Field({})
    data: Any = None


class _Output(_Strict):
    name: str = _Name
    parameters: _Given = Field({})


class _Request(_Strict):
    id: str = Field("", max_length=1000)
    parameters: _Given = Field({})
    inputs: list[TensorHead] = Field(min_length=1, max_length=_MOST_TENSORS)
    outputs: list[_Output] = Field([], max_length=_MOST_TENSORS)


@dataclass(frozen=True)
class Output:
    """An output that is asked for.

    Attributes:
        name: of the tensor.
        binary: whether it is wanted as binary data; None: as the request says.
    """

    name: str
    binary: bool | None = None


@dataclass(frozen=True)
class InferRequest:
    """What a client asks.

    Attributes:
        id: comes back with the response.
        parameters: of the request.
        inputs: name -> tensor.
        outputs: that are asked for; empty: all.
    """

    id: str
    parameters: Parameters
    inputs: Mapping[str, Tensor]
    outputs: tuple[Output, ...] = ()


def parse(body: bytes | memoryview, header_length: str | None = None) -> InferRequest:
    """Read a request.

    Args:
        body: JSON, and behind it binary data if there is a header.
        header_length: of the HTTP header ``Inference-Header-Content-Length``: bytes of the JSON.

    Raises:
        InputError: says what is wrong.
        TooLargeError: if the JSON is larger than 8 MiB.
    """
    length = json_bytes(body, header_length)
    if length > _MOST_JSON:
        raise TooLargeError(
            f"The JSON of the request has {length} bytes.",
            allowed=f"{_MOST_JSON} bytes of JSON, and binary data behind it",
            next_step="send tensors as binary data (binary_data_size), or fewer rows in one request",
        )
    return request_of(_json(body[:length]), memoryview(body)[length:])


def request_of(value: Any, tail: memoryview = _NOTHING) -> InferRequest:
    """Check a request whose JSON was read.

    Args:
        value: of the JSON.
        tail: binary data behind it.

    Raises:
        InputError: says what is wrong.
    """

    def tensor(head: TensorHead) -> Tensor:
        nonlocal tail
        if (size := head.parameters.get("binary_data_size")) is None:
            return tensor_of_json(head.name, head.datatype, head.shape, head.data, _content_type(head))
        end = _binary_end(head.name, size, len(tail))
        data, tail = tail[:end], tail[end:]
        return tensor_of_binary(head.name, head.datatype, head.shape, data)

    request = checked_request(value, tensor)
    if len(tail):
        raise InputError(
            f"{len(tail)} bytes behind the JSON belong to no input.",
            allowed="binary data of as many bytes as the binary_data_size of the inputs add up to",
            next_step="correct binary_data_size, or Inference-Header-Content-Length",
        )
    return request


def checked_request(fields: Any, tensor: Callable[[TensorHead], Tensor]) -> InferRequest:
    """Return a request whose fields are as in JSON, checked.

    Args:
        fields: of the request.
        tensor: reads the data of an input; called for each in order, once its other fields are checked.

    Raises:
        InputError: says what is wrong.
    """
    request, inputs = _validated(fields), dict[str, Tensor]()
    for one in request.inputs:
        if one.name in inputs:
            raise InputError(f"Two inputs are called '{brief(one.name)}'.", next_step="give each input once")
        _check_input(one)
        inputs[one.name] = tensor(one)
    return InferRequest(request.id, request.parameters, inputs, tuple(map(_output, request.outputs)))


def json_bytes(body: bytes | memoryview, header_length: str | None) -> int:
    """Return how many bytes of a body are JSON.

    Raises:
        InputError: if the header is no such number.
    """
    if header_length is None:
        return len(body)
    text, most = header_length, len(body)
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and 0 < int(text) <= most):
        raise InputError(
            f"Inference-Header-Content-Length is '{brief(text)}'.",
            allowed=f"the bytes of the JSON, at most the {most} of the body",
            next_step="correct the header",
        )
    return int(text)


def _binary_end(name: str, size: Parameter, left: int) -> int:
    if isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= left:
        return size
    raise InputError(
        f"The input '{brief(name)}' has a binary_data_size of {brief(size)}, and {left} bytes are left.",
        allowed="its bytes behind the JSON, in the order of the inputs",
        next_step="send the header Inference-Header-Content-Length, and the sizes of all binary inputs",
    )


def _json(text: bytes | memoryview) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InputError(
            f"The body is no JSON: {error}.",
            allowed="RFC 8259 in UTF-8: no NaN or Infinity, at most 1024 levels",
            next_step="correct it; for binary data send the header Inference-Header-Content-Length",
        ) from error


def _validated(value: Any) -> _Request:
    try:
        return _Request.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise InputError(
            f"'{brief(where)}' does not fit the protocol: {first['msg']}.",
            allowed="{id?, parameters?, inputs: [{name, shape, datatype, parameters?, data}], outputs?: [{name}]}",
            next_step="correct it; see the Open Inference Protocol, version 2",
        ) from error


def _check_input(one: TensorHead) -> None:
    check_parameters(one.parameters, _OF_INPUTS, f"the input '{brief(one.name)}'")
    if one.datatype != BYTES and one.datatype not in NUMBERS:
        raise InputError(
            f"The input '{brief(one.name)}' has the datatype '{brief(one.datatype)}'.",
            allowed=", ".join((*NUMBERS, BYTES)),
            next_step="see the model's metadata: GET /v2/models/NAME",
        )
    # sizes beside a 0 count too: numpy refuses a huge shape without elements
    most = MOST_BYTES if one.datatype == BYTES else _MOST_ELEMENTS
    if min(one.shape) < 0 or math.prod(size or 1 for size in one.shape) > most:
        raise InputError(
            f"The input '{brief(one.name)}' has the shape {brief(one.shape)}.",
            allowed=f"sizes from 0, at most {most:,} elements",
            next_step="give the shape of the data, without -1",
        )


def _content_type(one: TensorHead) -> Literal["", "base64"]:
    given = one.parameters.get("content_type", "")
    if given not in ("", "base64"):
        raise InputError(
            f"The input '{brief(one.name)}' has the content_type {brief(given)}.",
            allowed="base64, for BYTES in JSON",
            next_step="leave it out, or encode the bytes as base64",
        )
    return "base64" if given else ""


def _output(one: _Output) -> Output:
    check_parameters(one.parameters, _OF_OUTPUTS, f"the output '{brief(one.name)}'")
    binary = one.parameters.get("binary_data")
    if binary is not None and not isinstance(binary, bool):
        raise InputError(
            f"The output '{brief(one.name)}' has a binary_data of {brief(binary)}.",
            allowed="true or false",
            next_step="correct it",
        )
    return Output(one.name, binary)


def check_parameters(given: Iterable[str], known: Sequence[str], what: str) -> None:
    """Refuse parameters that are unknown.

    Args:
        given: their names.
        known: names that there are.
        what: has them.

    Raises:
        InputError: names the first.
    """
    if unknown := next((name for name in given if name not in known), None):
        guess = nearest(unknown, known)
        raise InputError(
            f"There is no parameter '{brief(unknown)}' of {what}." + (f" Did you mean '{guess}'?" if guess else ""),
            allowed=", ".join(known),
            next_step="leave it out",
        )
