"""Arrays of other libraries: DLPack's structure is read from numpy's capsules, the CUDA interface from its words."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from sdcompress.errors import InputError
from sdcompress.runtime.on_device.gpu import UNKNOWN, device_array

HOST = 1  # DLPack's kDLCPU


class Speaks:
    """An object with the CUDA Array Interface; nothing lies at its address."""

    def __init__(self, **interface: Any) -> None:
        self.__cuda_array_interface__ = {
            "shape": (2, 3, 4, 4), "typestr": "<f4", "data": (4096, False), "version": 3, **interface
        }  # fmt: skip


def test_a_capsule_is_read_where_the_array_lies() -> None:
    array = np.arange(96, dtype=np.float32).reshape(2, 3, 4, 4)
    taken = device_array(array[1:], 0, device_type=HOST)
    assert taken is not None
    assert (taken.shape, taken.dtype, taken.address) == ((1, 3, 4, 4), np.float32, array[1:].ctypes.data)
    assert ctypes.c_float.from_address(taken.address).value == 48
    assert taken.stream is None


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float64", "float16"])
def test_the_type_is_kept(dtype: str) -> None:
    taken = device_array(np.zeros((2, 3), dtype), 0, device_type=HOST)
    assert taken is not None
    assert taken.dtype == dtype


def test_the_memory_stays_as_long_as_the_batch() -> None:
    taken = device_array(np.full((4, 3), 7, np.float32), 0, device_type=HOST)  # the only reference
    assert taken is not None
    np.full((4, 3), 9, np.float32)
    assert ctypes.c_float.from_address(taken[2:].address).value == 7


def test_an_array_of_the_host_does_not_lie_on_the_gpu() -> None:
    assert device_array(np.zeros(3), 0) is None
    assert device_array([1.0], 0) is None


def test_what_has_gaps_is_refused() -> None:
    with pytest.raises(InputError, match="not C-contiguous"):
        device_array(np.zeros((4, 6), np.float32)[:, ::2], 0, device_type=HOST)
    with pytest.raises(InputError, match=r"contiguous\(\)") as caught:
        device_array(Speaks(strides=(192, 4, 48, 12)), 0)  # channels last
    assert "channels first" in str(caught.value)


def test_the_cuda_interface_tells_the_stream_or_not() -> None:
    taken = device_array(Speaks(stream=7, strides=(192, 64, 16, 4)), 0)
    assert taken is not None
    assert (taken.address, taken.shape, taken.stream) == (4096, (2, 3, 4, 4), 7)
    for silent in (Speaks(version=2), Speaks()):
        taken = device_array(silent, 0)
        assert taken is not None
        assert taken.stream == UNKNOWN
    quiet = device_array(Speaks(stream=None), 0)  # version 3: nothing to wait for
    assert quiet is not None
    assert quiet.stream is None


def test_torch_is_asked_through_dlpack_and_an_array_of_another_gpu_is_refused() -> None:
    class Elsewhere:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 1

    with pytest.raises(InputError, match="lies on GPU 1"):
        device_array(Elsewhere(), 0)


def test_a_tensor_of_torch_is_read_where_it_lies() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(24, dtype=torch.float32).reshape(2, 1, 3, 4)
    taken = device_array(tensor[1:], 0, device_type=HOST)
    assert taken is not None
    assert (taken.address, taken.shape, taken.dtype) == (tensor[1:].data_ptr(), (1, 1, 3, 4), np.float32)
    with pytest.raises(InputError, match="not C-contiguous"):
        device_array(tensor.transpose(2, 3), 0, device_type=HOST)
    with pytest.raises(InputError, match=r"DLPack's type 4 of 16 bits"):
        device_array(tensor.to(torch.bfloat16), 0, device_type=HOST)
    with pytest.raises(InputError, match=r"does not export its memory") as caught:
        device_array(tensor.requires_grad_(), 0, device_type=HOST)
    assert ".detach()" in str(caught.value)
    assert device_array(tensor.detach(), 0) is None  # not on a GPU
