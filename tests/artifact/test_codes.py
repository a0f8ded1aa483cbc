"""Codes that a DequantizeLinear and a QuantizeLinear leave as they are, in every form that a file stores them in."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from sdcompress.artifact.codes import Quantisation, keeps_codes


def pair(scale: float, zero_point: int, *, raw: bool = False, dtype: type = np.uint8) -> Quantisation:
    if raw:
        tensors = [numpy_helper.from_array(np.float32(scale)), numpy_helper.from_array(dtype(zero_point))]
    else:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        tensors = [
            helper.make_tensor("s", TensorProto.FLOAT, [], [scale]),
            helper.make_tensor("z", kind, [], [zero_point]),
        ]
    return Quantisation(*(tensor.SerializeToString() for tensor in tensors))


@pytest.mark.parametrize("raw", [True, False])
def test_equal_scales_keep_all_codes(raw: bool) -> None:
    assert keeps_codes(pair(0.1, 123, raw=raw), pair(0.1, 123, raw=raw))
    assert keeps_codes(pair(0.1, 123, raw=raw), pair(0.1, 123, raw=not raw))


def test_scales_whose_last_bit_differs_keep_all_codes() -> None:
    scale = np.float32(0.05234139)
    assert keeps_codes(pair(float(scale), 0), pair(float(np.nextafter(scale, np.float32(0))), 0))


def test_other_scales_keep_the_codes_until_one_rounds_to_its_neighbour() -> None:
    assert not keeps_codes(pair(1.0, 0), pair(0.998, 0))  # 251 / 0.998 = 251.503
    assert keeps_codes(pair(1.0, 0), pair(0.9985, 0))  # 254 / 0.9985 = 254.38, and nothing is above 255
    assert keeps_codes(pair(1.0, 128), pair(0.997, 128))  # 127 / 0.997 = 127.38, and nothing is below -128


@pytest.mark.parametrize(
    "quantised",
    [pair(0.1, 122), pair(0.0, 123), pair(float("nan"), 123), pair(0.1, 123, dtype=np.int8)],
)
def test_other_codes(quantised: Quantisation) -> None:
    assert not keeps_codes(pair(0.1, 123), quantised)


def test_scales_of_channels_are_not_compared() -> None:
    scale = numpy_helper.from_array(np.full(3, 0.1, np.float32)).SerializeToString()
    several = pair(0.1, 123)._replace(scale=scale)
    assert not keeps_codes(several, several)
    assert not keeps_codes(Quantisation(b"", b""), pair(0.1, 123))  # what no file stores
