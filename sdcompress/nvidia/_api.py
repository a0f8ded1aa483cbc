"""The module ``tensorrt`` as a type: what of it is used, which a type checker holds against the real bindings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sdcompress.nvidia.log import Log

if TYPE_CHECKING:
    import tensorrt

__all__ = ["TensorRT"]


class TensorRT(Protocol):
    """The module ``tensorrt``, as far as this package uses it."""

    @property
    def Builder(self) -> type[tensorrt.Builder]: ...
    @property
    def BuilderFlag(self) -> type[tensorrt.BuilderFlag]: ...
    @property
    def DataType(self) -> type[tensorrt.DataType]: ...
    @property
    def ILogger(self) -> type[tensorrt.ILogger]: ...
    @property
    def LayerInformationFormat(self) -> type[tensorrt.LayerInformationFormat]: ...
    @property
    def MemoryPoolType(self) -> type[tensorrt.MemoryPoolType]: ...
    @property
    def NetworkDefinitionCreationFlag(self) -> type[tensorrt.NetworkDefinitionCreationFlag]: ...
    @property
    def OnnxParser(self) -> type[tensorrt.OnnxParser]: ...
    @property
    def ProfilingVerbosity(self) -> type[tensorrt.ProfilingVerbosity]: ...
    @property
    def Runtime(self) -> type[tensorrt.Runtime]: ...
    @property
    def TacticSource(self) -> type[tensorrt.TacticSource]: ...
    @property
    def TensorIOMode(self) -> type[tensorrt.TensorIOMode]: ...


if TYPE_CHECKING:

    class Logger(Log, tensorrt.ILogger):
        """Both; made at run time by ``make_logger``, when there is an ILogger."""
