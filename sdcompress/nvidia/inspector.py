"""What TensorRT's engine inspector says of a plan, in the JSON of 8.5 to 10 and in that of 11. Text in, facts out."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sdcompress.errors import VerificationError
from sdcompress.schema.graphs import Precision

__all__ = ["UNKNOWN", "border_names", "layer_types", "precision_problem"]

UNKNOWN = "unknown"
# the words of the inspector's "Format/Datatype" ("Row major linear FP16 format", "Half") and of 11's "DataType"
_WORDS = (
    ("bf16", r"bf16|bfloat16?"),
    ("fp16", r"fp16|half|float16"),
    ("fp8", r"fp8|float8\w*"),
    ("fp4", r"fp4|float4\w*"),
    ("fp32", r"fp32|float32|float"),
    ("int4", r"int4"),
    ("uint8", r"uint8"),
    ("int8", r"int8"),
    ("int32", r"int32"),
    ("int64", r"int64"),
    ("bool", r"bool"),
)
_OPERANDS = {"tf32": "fp32", "f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "e4m3": "fp8"}
_LOWER = ("fp16", "bf16", "int8", "fp8", "fp4", "int4")
_BESIDE: dict[Precision, tuple[str, ...]] = {  # what a graph of a precision may also hold: heads are kept in fp32
    "fp32": (),
    "fp16": ("fp16",),
    "bf16": ("bf16",),
    "int8": ("int8", "fp16", "bf16"),
}


def layer_types(text: str) -> dict[str, int]:
    """What layers give -> number of layers; ``UNKNOWN`` where the inspector does not say.

    A plan for several batch sizes is reported with "N/A due to dynamic shapes" in the place of its outputs' types (seen
    by users of 8.6 and 10); then the type of a layer's weights counts, or of the operands in its kernel's name.

    Args:
        text: ``get_engine_information(LayerInformationFormat.JSON)`` of a plan built with the verbosity DETAILED.

    Raises:
        VerificationError: if it is not that.
    """
    layers = _fields(text).get("Layers")
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise _unreadable("its layers are bare names, or it lists none")
    return dict(sorted(Counter(_kind(layer) for layer in layers).items()))


def border_names(text: str) -> tuple[str, ...]:
    """The names of a plan's inputs and outputs: ``Bindings`` up to 10, ``I/O Tensors`` from 11.

    Raises:
        VerificationError: if there are neither.
    """
    fields = _fields(text)
    tensors = fields.get("Bindings", fields.get("I/O Tensors"))
    if not isinstance(tensors, list):
        raise _unreadable("it lists no inputs and outputs")
    return tuple(str(tensor.get("Name") if isinstance(tensor, dict) else tensor) for tensor in tensors)


def precision_problem(asked: Precision, layers: Mapping[str, int], *, typed: bool) -> str | None:
    """What a plan's layers are although something else was asked for; None if they are as asked.

    Asked for fp32, no layer may give less. Asked for less, some layer must give it: a plan without any is an fp32 plan
    that says otherwise. Other layers may stay fp32, as exits' heads do, and with int8 also fp16 or bf16.

    Args:
        asked: the precision of the graph.
        layers: from ``layer_types``.
        typed: whether the network was strongly typed. TensorRT is bound to its types then, and an inspector that says
            nothing is no contradiction; if not, it is the only evidence, and silence is refused.
    """
    counts = ", ".join(f"{number} {kind}" for kind, number in layers.items()) or "no layer"
    if not set(layers) & {*_LOWER, "fp32"}:
        return None if typed else f"the engine inspector does not say what its layers compute in ({counts})"
    lower = [kind for kind in _LOWER if layers.get(kind) and kind not in _BESIDE[asked]]
    if lower:
        return f"{asked} was asked for, and layers give {' and '.join(lower)} ({counts})"
    if asked != "fp32" and not layers.get(asked):
        return f"{asked} was asked for, and no layer gives it ({counts})"
    return None


def _kind(layer: dict[str, Any]) -> str:
    outputs = layer.get("Outputs") or [{}]
    said = [outputs[0], layer.get("Weights")]
    for fields in said:
        if isinstance(fields, dict):
            for key in ("DataType", "Datatype", "Format/DataType", "Format/Datatype", "Type"):
                if (name := _named(str(fields.get(key, "")))) != UNKNOWN:
                    return name
    kernel = re.search(r"_(tf32|bf16|f16|f32|i8|e4m3)(?=[a-z0-9]*_)", str(layer.get("TacticName", "")).lower())
    return _OPERANDS[kernel.group(1)] if kernel else UNKNOWN


def _named(words: str) -> str:
    for name, pattern in _WORDS:
        if re.search(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])", words.lower()):
            return name
    return UNKNOWN


def _fields(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise _unreadable(f"it is not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise _unreadable("it is not an object")
    return fields


def _unreadable(why: str) -> VerificationError:
    return VerificationError(
        f"The engine inspector's report on a plan cannot be read: {why}.",
        allowed="JSON with Layers, as TensorRT 8.5 to 11 write it",
        next_step="report it with the build log and the version of TensorRT",
    )
