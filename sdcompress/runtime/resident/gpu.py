"""An NVIDIA GPU as a device of a chain."""

from __future__ import annotations

from sdcompress.runtime.resident.device import DeviceArray
from sdcompress.runtime.resident.dlpack import UNKNOWN, device_array
from sdcompress.tensorrt.nvidia.cuda import Cuda

__all__ = ["GpuDevice"]


class GpuDevice(Cuda):
    """See ``Device``; as ``Cuda`` it is also a ``Recorder``, of CUDA graphs."""

    def accept(self, inputs: object) -> DeviceArray | None:
        """An array in the memory of this GPU, of torch, cupy or another library; nothing is copied."""
        return device_array(inputs, self.stream)

    def after(self, array: DeviceArray) -> None:
        """Wait for the stream on which it was made; for everything, where nobody says which that is."""
        if array.stream == UNKNOWN:
            self.wait_for_all()
        elif array.stream is not None:
            self.wait_for(array.stream)
