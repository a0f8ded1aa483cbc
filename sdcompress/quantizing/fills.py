"""Constants that stand for "very small" or "very large", such as -1e9 in masked attention, within what float16 holds.

In float16 they would be infinities, which a row that is masked as a whole turns into NaN.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["within_float16"]

_LARGEST = float(np.finfo(np.float16).max)

# Operator -> the inputs that may be fills, and how large they may be. A sum needs room for what is added to the fill.
_FILLED = {
    "Where": ((1, 2), _LARGEST),
    "Pad": ((2,), _LARGEST),
    "Clip": ((1, 2), _LARGEST),
    "Max": (None, _LARGEST),
    "Min": (None, _LARGEST),
    "Add": (None, _LARGEST / 2),
    "Sub": ((1,), _LARGEST / 2),
}


def within_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy, still float32, in which stored fills that float16 cannot hold are its largest numbers; infinities stay.

    Only what nodes choose, compare with or add: a weight of that size has a meaning, and is left to be refused.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in made.graph.initializer}
    copies: dict[str, np.ndarray] = {}
    for node in made.graph.node:
        if node.op_type not in _FILLED:
            continue
        positions, largest = _FILLED[node.op_type]
        for position in range(len(node.input)) if positions is None else positions:
            name = node.input[position] if position < len(node.input) else ""
            if name not in stored or stored[name].data_type != onnx.TensorProto.FLOAT:
                continue
            value = numpy_helper.to_array(stored[name])
            if (np.isfinite(value) & (np.abs(value) > _LARGEST)).any():
                node.input[position] = f"{name}/within-{largest:.0f}"
                within = np.where(np.isfinite(value), value.clip(-largest, largest), value)
                copies[node.input[position]] = within.astype(np.float32)
    made.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in copies.items())
    used = {name for node in made.graph.node for name in node.input}
    kept = [tensor for tensor in made.graph.initializer if tensor.name in used]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    return made
