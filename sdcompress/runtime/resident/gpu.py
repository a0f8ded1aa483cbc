"""An NVIDIA GPU as a device of a chain."""

from __future__ import annotations

from sdcompress.runtime.resident.device import DeviceArray
from sdcompress.runtime.resident.dlpack import UNKNOWN, device_array
from sdcompress.tensorrt.nvidia.cuda import Cuda

__all__ = ["GpuDevice"]


class GpuDevice(Cuda):
    """See ``Device``; as a ``Cuda`` it is also a ``GraphRecorder``."""

    def accept(self, inputs: object) -> DeviceArray | None:
        """Return an array of torch, cupy or another library in the memory of this GPU, without a copy."""
        return device_array(inputs, self.stream)

    def after(self, array: DeviceArray) -> None:
        """Wait for the array's stream; for all streams if it is unknown."""
        if array.stream == UNKNOWN:
            self.wait_for_all()
        elif array.stream is not None:
            self.wait_for(array.stream)
