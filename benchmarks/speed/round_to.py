"""Time convolutions by their number of channels: which multiples the kernels of ONNX Runtime like.

    PYTHONPATH=. python benchmarks/speed/round_to.py

Processor time of the thread in interleaved rounds, and of each multiply-accumulate.
"""

from __future__ import annotations

from time import thread_time
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from record import Record

CHANNELS = (32, 34, 36, 40, 44, 48, 50, 52, 56, 60, 62, 64)
SIZE, LAYERS, ROUNDS, CALLS = 16, 4, 12, 3


def session(channels: int) -> onnxruntime.InferenceSession:
    """Return 3 x 3 convolutions with ReLU in a row, of one thread."""
    rng = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for layer in range(LAYERS):
        values = rng.normal(size=(channels, channels, 3, 3)).astype(np.float32) / (3 * channels**0.5)
        weights.append(numpy_helper.from_array(values, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [name, f"w{layer}"], [f"y{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"y{layer}"], [f"z{layer}"]))
        name = f"z{layer}"
    shape = [1, channels, SIZE, SIZE]
    ports = [helper.make_tensor_value_info(each, TensorProto.FLOAT, shape) for each in ("x", name)]
    graph = helper.make_graph(nodes, "convolutions", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def main() -> None:
    record = Record()
    sessions = {channels: session(channels) for channels in CHANNELS}
    inputs = {channels: np.ones((1, channels, SIZE, SIZE), np.float32) for channels in CHANNELS}
    times: dict[int, list[float]] = {channels: [] for channels in CHANNELS}
    for number in range(ROUNDS):
        for channels in CHANNELS if number % 2 == 0 else CHANNELS[::-1]:
            feed = {"x": inputs[channels]}
            sessions[channels].run(None, feed)
            start = thread_time()
            for _ in range(CALLS):
                sessions[channels].run(None, feed)
            times[channels].append((thread_time() - start) / CALLS)
    figures: dict[str, Any] = {}
    for channels, seconds in times.items():
        median = float(np.median(seconds))
        macs = LAYERS * 9 * channels**2 * SIZE**2
        figures[str(channels)] = {"ms": round(1e3 * median, 4), "ps_of_a_mac": round(1e12 * median / macs, 1)}
    record.write(figures, threads=1, layers=LAYERS, size=SIZE, rounds=ROUNDS, calls=CALLS)


if __name__ == "__main__":
    main()
