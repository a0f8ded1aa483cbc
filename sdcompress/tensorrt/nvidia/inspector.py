"""Parse the JSON report of TensorRT's engine inspector, of 8.5 to 10 and of 11."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sdcompress.errors import VerificationError
from sdcompress.schema.graphs import Precision

__all__ = ["UNKNOWN", "layer_types", "lower_problem", "missing_problem"]

UNKNOWN = "unknown"
# the words of the inspector's "Format/Datatype" ("Row major linear FP16 format", "Half") and of 11's "DataType"
_TYPE_NAMES = (
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
_KEYS = ("DataType", "Datatype", "Format/DataType", "Format/Datatype")
_LOWER = ("fp16", "bf16", "int8", "fp8", "fp4", "int4")
_ALSO_ALLOWED: dict[Precision, tuple[str, ...]] = {  # what a graph of a precision may also hold: heads are kept in fp32
    "fp32": (),
    "fp16": ("fp16",),
    "bf16": ("bf16",),
    "int8": ("int8", "fp16", "bf16"),
    "fp8": ("fp8", "fp16", "bf16"),
}


def layer_types(text: str) -> dict[str, int]:
    """Output type of layers -> number of layers; ``UNKNOWN`` where the report has no type.

    Args:
        text: ``get_engine_information(LayerInformationFormat.JSON)`` of a plan built with the verbosity DETAILED, with
            an execution context whose shapes are set. Without one a plan for several batch sizes is reported with
            "N/A due to dynamic shapes" instead of types.

    Raises:
        VerificationError: if it is not such a report.
    """
    layers = _fields(text).get("Layers")
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise _unreadable("its layers are bare names, or it lists none")
    return dict(sorted(Counter(_kind(layer) for layer in layers).items()))


def lower_problem(requested: Precision, layers: Mapping[str, int]) -> str | None:
    """Return which layers of a plan have a lower precision than requested, as text; None if there are none.

    Args:
        requested: the precision of the graph; with int8 and fp8 layers may also be fp16 or bf16.
        layers: from ``layer_types``.
    """
    lower = [kind for kind in _LOWER if layers.get(kind) and kind not in _ALSO_ALLOWED[requested]]
    return f"{requested} was requested, and layers are {' and '.join(lower)} ({_counts(layers)})" if lower else None


def missing_problem(requested: Precision, layers: Mapping[str, int], *, typed: bool) -> str | None:
    """Return that no layer of an artifact's plans has the requested precision, as text; None if one has or may have it.

    Layers of heads stay fp32, and a segment may be only a head: so the layers of all plans are counted together.

    Args:
        requested: the precision of the graphs; fp32 is never missing.
        layers: from ``layer_types``, of all plans of such graphs.
        typed: whether the networks were strongly typed. Then TensorRT must keep their types, and layers of unknown
            type may have the precision. If not, the report is the only evidence.
    """
    if requested == "fp32" or layers.get(requested) or (typed and (layers.get(UNKNOWN) or not layers)):
        return None
    return f"{requested} was requested, and no layer has it ({_counts(layers)})"


def _counts(layers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in layers.items()) or "no layer"


def _kind(layer: dict[str, Any]) -> str:
    fields = (layer.get("Outputs") or [{}])[0]
    words = " ".join(str(fields.get(key, "")) for key in _KEYS) if isinstance(fields, dict) else ""
    kind = _type_name(words)
    if "ForeignNode" in str(layer.get("Name")) and kind not in _LOWER:
        return UNKNOWN  # many fused layers: the output type is not that of the layers inside
    return kind


def _type_name(words: str) -> str:
    for name, pattern in _TYPE_NAMES:
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


def _unreadable(problem: str) -> VerificationError:
    return VerificationError(
        f"The engine inspector's report on a plan cannot be read: {problem}.",
        allowed="JSON with Layers, as TensorRT 8.5 to 11 write it",
        next_step="report it with the build log and the version of TensorRT",
    )
