"""Read the bytes of a gRPC message within limits, without a copy of its tensors."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from sdcompress.errors import InputError
from sdcompress.serving.errors import TooLargeError
from sdcompress.serving.grpc.open_inference_pb2 import ModelInferRequest

__all__ = ["message_of", "split_raw"]

_MOST_HEAD = 2**23  # bytes: an empty sub-message of 2 bytes takes a hundred in memory
_MOST_FIELDS = 4 * 64 + 8  # inputs, outputs, parameters and raw contents, and the names
_RAW = ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types of protobuf
_MOST_VARINT = 10  # bytes

_Message = TypeVar("_Message", bound=Message)


def message_of(kind: type[_Message], data: bytes) -> _Message:
    """Return a message.

    Raises:
        InputError: if the bytes are none of this kind.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise _broken() from error


def split_raw(message: bytes) -> tuple[bytes, list[memoryview]]:
    """Return a ``ModelInferRequest`` without its ``raw_input_contents``, and these as views of its bytes.

    Raises:
        InputError: if the bytes are no message.
        TooLargeError: if it has too many fields, or is larger than 8 MiB beside its raw contents.
    """
    view, kept, raw, at = memoryview(message), list[memoryview](), list[memoryview](), 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        end = _end(message, tag & 7, at)
        if tag == _RAW << 3 | _LENGTH:
            raw.append(view[_varint(message, at)[1] : end])
        else:
            kept.append(view[start:end])
        if len(kept) + len(raw) > _MOST_FIELDS:
            raise TooLargeError(
                f"The request has more than {_MOST_FIELDS} inputs, outputs and parameters.",
                allowed=f"{_MOST_FIELDS}",
                next_step="send fewer, or tensors of more rows",
            )
        at = end
    if (size := sum(map(len, kept))) > _MOST_HEAD:
        raise TooLargeError(
            f"The request has {size} bytes beside its raw_input_contents.",
            allowed=f"{_MOST_HEAD}",
            next_step="send tensors as raw_input_contents, or fewer rows in one request",
        )
    return b"".join(kept), raw


def _end(message: bytes, wire_type: int, at: int) -> int:
    """Return where the value of a field ends."""
    if wire_type == _LENGTH:
        length, at = _varint(message, at)
        end = at + length
    elif wire_type == _VARINT:
        _, end = _varint(message, at)
    elif wire_type in {_FIXED32, _FIXED64}:
        end = at + (4 if wire_type == _FIXED32 else 8)
    else:
        raise _broken()
    if end > len(message):
        raise _broken()
    return end


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a number, and where it ends."""
    value = 0
    for shift, byte in enumerate(message[at : at + _MOST_VARINT]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    raise _broken()


def _broken() -> InputError:
    return InputError(
        "The request is no message of the protocol.",
        allowed="the messages of inference.GRPCInferenceService, in protobuf's binary form",
        next_step="generate the client from the .proto of the Open Inference Protocol, version 2",
    )
