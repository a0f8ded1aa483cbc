"""Bring a graph to the operators that a narrow type needs."""

from __future__ import annotations

import onnx

from sdcompress.errors import UsageError
from sdcompress.onnx_graph.tensorrt8 import DYNAMO_OPSET

__all__ = ["at_least"]


def at_least(model: onnx.ModelProto, opset: int, *, ir: int) -> onnx.ModelProto:
    """The model itself if its operators are that new, else a converted copy.

    Args:
        model: of ONNX's own operators.
        opset: the first version in which all of them know the type.
        ir: version of the file format that came with it; the converter leaves the old one as it was.

    Raises:
        UsageError: if an operator cannot be converted; or if the export was asked to have an opset for older runtimes,
            which could not read what this makes.
    """
    given = next(each.version for each in model.opset_import if not each.domain)
    if given >= opset:
        return model
    if given < DYNAMO_OPSET:
        raise UsageError(
            f"The graphs were exported with opset {given}, for runtimes that read no newer one; this precision needs "
            f"{opset}.",
            allowed=f"graphs of opset {DYNAMO_OPSET} and above",
            next_step="take fp16 or int8, which keep the opset; or sdcompress export CHECKPOINT --opset "
            f"{max(opset, DYNAMO_OPSET)}, and quantise that",
        )
    try:
        made = onnx.version_converter.convert_version(model, opset)
    except (onnx.version_converter.ConvertError, RuntimeError) as error:
        raise UsageError(
            f"A graph of opset {given} cannot be brought to {opset}: {str(error).splitlines()[0][:200]}",
            allowed=f"opset {opset} or later, or operators that ONNX's converter knows",
            next_step=f"sdcompress export CHECKPOINT --opset {max(opset, DYNAMO_OPSET)}, and quantise that",
        ) from error
    made.ir_version = max(made.ir_version, ir)
    return made
