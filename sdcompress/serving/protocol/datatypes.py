"""Name the types of tensors as the protocol does."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["BYTES", "NUMBERS", "datatype_of"]

BYTES = "BYTES"
NUMBERS: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("bool"),
    **{
        f"{kind.upper()}{bits}": np.dtype(f"<{kind[0]}{bits // 8}")
        for kind in ("uint", "int")
        for bits in (8, 16, 32, 64)
    },
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
"""Datatype -> little-endian dtype, as binary data has it."""

_NAMES = {dtype.newbyteorder("="): name for name, dtype in NUMBERS.items()}


def datatype_of(dtype: Any) -> str:
    """Return the protocol's name of a numpy dtype.

    Raises:
        KeyError: if it has none, as bfloat16.
    """
    return _NAMES[np.dtype(dtype).newbyteorder("=")]
