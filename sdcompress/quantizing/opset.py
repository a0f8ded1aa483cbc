"""Convert a graph to the opset that a low-precision type needs."""

from __future__ import annotations

import onnx

from sdcompress.errors import UsageError
from sdcompress.onnx_graph.tensorrt8 import DYNAMO_OPSET

__all__ = ["upgrade_opset"]


def upgrade_opset(model: onnx.ModelProto, opset: int, *, ir: int) -> onnx.ModelProto:
    """Return the model itself if its opset is high enough, else a converted copy.

    Args:
        model: of ONNX's own operators.
        opset: the first version in which all of them have the type.
        ir: version of the file format that came with it; the converter does not raise it.

    Raises:
        UsageError: if an operator cannot be converted; or if the export has an opset for older runtimes, which could
            not read the result.
    """
    current = next(entry.version for entry in model.opset_import if not entry.domain)
    if current >= opset:
        return model
    if current < DYNAMO_OPSET:
        raise UsageError(
            f"The graphs were exported with opset {current}, for runtimes that read no newer one; this precision needs "
            f"{opset}.",
            allowed=f"graphs of opset {DYNAMO_OPSET} and above",
            next_step="take fp16 or int8, which keep the opset; or sdcompress export CHECKPOINT --opset "
            f"{max(opset, DYNAMO_OPSET)}, and quantise that",
        )
    try:
        converted = onnx.version_converter.convert_version(model, opset)
    except (onnx.version_converter.ConvertError, RuntimeError) as error:
        raise UsageError(
            f"A graph of opset {current} cannot be brought to {opset}: {str(error).splitlines()[0][:200]}",
            allowed=f"opset {opset} or later, or operators that ONNX's converter knows",
            next_step=f"sdcompress export CHECKPOINT --opset {max(opset, DYNAMO_OPSET)}, and quantise that",
        ) from error
    converted.ir_version = max(converted.ir_version, ir)
    return converted
