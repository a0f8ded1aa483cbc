"""Write protobuf text format, as config.pbtxt of Triton has it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Enum", "Fields", "pbtxt"]


class Enum(str):
    """A name that is written without quotes."""

    __slots__ = ()


Scalar = str | int | bool | Enum
Value = Scalar | Sequence[Scalar] | Mapping[str, "Value"] | Sequence[Mapping[str, "Value"]]
Fields = Mapping[str, Value]


def pbtxt(fields: Fields) -> str:
    """Return a message as text, one field a line.

    Args:
        fields: name -> string, ``Enum``, number, bool, list of numbers or strings, message, or list of messages.
    """
    return "".join(f"{line}\n" for line in _lines(fields))


def _lines(fields: Fields, indent: str = "") -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _message(name, value, indent)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            for one in value:
                if isinstance(one, Mapping):
                    yield from _message(name, one, indent)
            if scalars := [_scalar(one) for one in value if not isinstance(one, Mapping)]:
                yield f"{indent}{name}: [ {', '.join(scalars)} ]"
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _message(name: str, fields: Fields, indent: str) -> Iterator[str]:
    if not fields:
        yield f"{indent}{name} {{ }}"
        return
    yield f"{indent}{name} {{"
    yield from _lines(fields, f"{indent}  ")
    yield f"{indent}}}"


def _scalar(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum | int):
        return str(value)
    return json.dumps(value, ensure_ascii=False)  # C's escapes are a superset of JSON's
