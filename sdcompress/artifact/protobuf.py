"""Iterate over the fields of a protobuf message, such as an ONNX file, without loading it.

Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sdcompress.untrusted import Refused

__all__ = ["LENGTH", "VARINT", "Field", "fields", "varints"]

VARINT, LENGTH = 0, 2  # wire types
_FIXED = {1: 8, 5: 4}  # wire type -> bytes


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: field number.
        wire: wire type.
        value: value of a VARINT, else 0.
        content: bytes of the value, a view without a copy.
    """

    number: int
    wire: int
    value: int
    content: memoryview


def fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of a message in order.

    Raises:
        Refused: if the bytes are not a protobuf message.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire, value, start = tag >> 3, tag & 7, 0, at
        if wire == VARINT:
            value, at = _varint(message, at)
        elif wire == LENGTH:
            length, start = _varint(message, at)
            at = start + length
        elif wire in _FIXED:
            at += _FIXED[wire]
        else:
            raise Refused("it is not ONNX")
        if tag >= 2**32 or number == 0 or at > end:
            raise Refused("it is not ONNX, or was cut short")
        yield Field(number, wire, value, message[start:at])


def varints(packed: memoryview) -> Iterator[int]:
    """Yield the integers of a packed field.

    Raises:
        Refused: if the last one is cut short.
    """
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Decode a base-128 varint; returns its value and the offset behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Refused("it is not ONNX, or was cut short")
