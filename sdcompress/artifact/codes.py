"""Tell whether a QuantizeLinear makes the codes again that a DequantizeLinear has read, from the tensors of a file."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sdcompress.artifact.protobuf import VARINT, Field, fields, varints

__all__ = ["Quantisation", "keeps_codes"]

# field numbers of onnx.proto
_DATA_TYPE, _FLOATS, _INTEGERS, _RAW = 2, 4, 5, 9
_FLOAT, _UINT8 = 1, 2  # data types


class Quantisation(NamedTuple):
    """What a code means: (code - zero point) * scale. Both are stored tensors, as an ONNX file holds them."""

    scale: bytes | memoryview
    zero_point: bytes | memoryview


def keeps_codes(dequantised: Quantisation, quantised: Quantisation) -> bool:
    """Return whether every code 0..255 is the same after it was dequantised and quantised again.

    The scales of one tensor in two files may differ in the last bit: it was measured once in each.

    Args:
        dequantised: of the DequantizeLinear.
        quantised: of the QuantizeLinear that reads what the first gives.

    Raises:
        Refused: if a tensor is no protobuf message.
    """
    scales = [_number(one.scale, _FLOAT) for one in (dequantised, quantised)]
    zero_points = [_number(one.zero_point, _UINT8) for one in (dequantised, quantised)]
    if None in scales or None in zero_points:
        return False
    codes = np.arange(256, dtype=np.float32)
    with np.errstate(all="ignore"):  # a scale of 0 keeps nothing
        again = np.rint((codes - np.float32(zero_points[0])) * np.float32(scales[0]) / np.float32(scales[1]))
    return bool((np.clip(again + np.float32(zero_points[1]), 0, 255) == codes).all())


def _number(tensor: bytes | memoryview, data_type: int) -> float | None:
    """Return the only number of a tensor; None if it holds several, or has another type."""
    parts = {field.number: field for field in fields(memoryview(tensor))}
    if _DATA_TYPE not in parts or parts[_DATA_TYPE].value != data_type:
        return None
    if data_type == _UINT8 and _INTEGERS in parts:
        numbers = _integers(parts[_INTEGERS])
    else:
        stored = parts.get(_RAW) or parts.get(_FLOATS)
        content = b"" if stored is None else bytes(stored.content)
        dtype = np.dtype("<f4" if data_type == _FLOAT else "u1")
        numbers = np.frombuffer(content, dtype).tolist() if len(content) % dtype.itemsize == 0 else []
    return float(numbers[0]) if len(numbers) == 1 else None


def _integers(field: Field) -> list[int]:
    return [field.value] if field.wire == VARINT else list(varints(field.content))
