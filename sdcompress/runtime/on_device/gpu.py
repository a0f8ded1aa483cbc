"""Use an NVIDIA GPU as a device, and read arrays of other libraries in its memory without a copy.

These are read by DLPack or by ``__cuda_array_interface__``.
Sources: DLPack 0.6 (dlpack.h) and its Python specification; the CUDA Array Interface, versions 2 and 3 (numba). Neither
torch nor cupy is imported.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from sdcompress.errors import InputError
from sdcompress.runtime.on_device.device import DeviceArray
from sdcompress.tensorrt.nvidia.cuda import Cuda

__all__ = ["UNKNOWN", "GpuDevice", "device_array"]

CUDA = 2  # kDLCUDA
UNKNOWN = -1  # the producer does not name its stream

# DLDataTypeCode and bits -> numpy's name
_TYPES = {(code, bits): f"{kind}{bits}" for code, kind in enumerate(("int", "uint")) for bits in (8, 16, 32, 64)}
_TYPES |= {(2, bits): f"float{bits}" for bits in (16, 32, 64)}


class GpuDevice(Cuda):
    """A ``Device``, and, as a ``Cuda``, a ``GraphRecorder``."""

    def accept(self, inputs: object) -> DeviceArray | None:
        """Return an array of torch, cupy or another library in the memory of this GPU, without a copy."""
        with self.current():  # torch looks for the stream on the current GPU
            return device_array(inputs, self.stream)

    def after(self, array: DeviceArray) -> None:
        """Wait for the array's stream; for all streams if it is unknown."""
        if array.stream == UNKNOWN:
            self.wait_for_all()
        elif array.stream is not None:
            self.wait_for(array.stream)


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def device_array(inputs: Any, stream: int, *, device_type: int = CUDA) -> DeviceArray | None:
    """Return an array of another library as a batch of inputs; None if it is not on such a device.

    DLPack passes our stream to the producer, which makes it wait for its own. ``__cuda_array_interface__`` names the
    producer's stream (version 3), or not (version 2, torch's): then the caller must wait for all streams.

    Args:
        inputs: any object.
        stream: that will read the array, as CUDA's integer.
        device_type: DLPack's number of the device.

    Raises:
        InputError: if the array is not C-contiguous, or has a type that numpy lacks.
    """
    dlpack_device = getattr(inputs, "__dlpack_device__", None)
    if dlpack_device is not None:
        kind, ordinal = dlpack_device()
        if int(kind) != device_type:
            return None
        if int(ordinal) != 0:
            raise InputError(
                f"The input lies on GPU {int(ordinal)}.",
                allowed="the first GPU that CUDA sees, where the engines run",
                next_step="move it there, or set CUDA_VISIBLE_DEVICES",
            )
        # the capsule owns the memory: it releases it when it is collected
        try:
            capsule = inputs.__dlpack__(stream=stream) if device_type == CUDA else inputs.__dlpack__()
        except (BufferError, RuntimeError) as error:  # torch: the tensor requires a gradient
            raise InputError(
                f"The {type(inputs).__name__} does not export its memory: {error}",
                allowed="a tensor without a gradient",
                next_step="call .detach() on it",
            ) from error
        return _from_capsule(capsule)
    interface = getattr(inputs, "__cuda_array_interface__", None) if device_type == CUDA else None
    return None if interface is None else _from_interface(inputs, interface)


def _from_capsule(capsule: Any) -> DeviceArray:
    tensor = ctypes.cast(_pointer(capsule, b"dltensor"), ctypes.POINTER(_DLTensor)).contents
    name = _TYPES.get((tensor.code, tensor.bits))
    if tensor.lanes != 1 or name is None:
        raise InputError(
            f"The input has DLPack's type {tensor.code} of {tensor.bits} bits.",
            allowed="integers of 8 to 64 bits and floats of 16 to 64, as numpy has them",
            next_step="convert it on the device first",
        )
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    strides = tuple(tensor.strides[axis] for axis in range(tensor.ndim)) if tensor.strides else None
    _check_contiguous(shape, strides)
    return DeviceArray((tensor.data or 0) + tensor.byte_offset, shape, np.dtype(name), capsule)


def _from_interface(inputs: Any, interface: dict[str, Any]) -> DeviceArray:
    dtype, shape = np.dtype(interface["typestr"]), tuple(int(size) for size in interface["shape"])
    strides = interface.get("strides")
    if strides is not None:
        strides = tuple(int(step) // dtype.itemsize for step in strides)
    _check_contiguous(shape, strides)
    stream = interface.get("stream", UNKNOWN) if interface.get("version", 0) >= 3 else UNKNOWN
    return DeviceArray(int(interface["data"][0]), shape, dtype, inputs, stream)


def _check_contiguous(shape: Sequence[int], strides: Sequence[int] | None) -> None:
    if strides is None or 0 in shape:
        return
    expected = 1
    for size, step in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and step != expected:
            raise InputError(
                f"The input on the device is not C-contiguous: shape {list(shape)}, strides {list(strides)} elements.",
                allowed="[B, C, H, W] without gaps, channels first in memory too",
                next_step="call .contiguous() on it (torch), or ascontiguousarray (cupy)",
            )
        expected *= size
