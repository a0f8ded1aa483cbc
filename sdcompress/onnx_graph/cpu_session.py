"""Open a serialised graph in ONNX Runtime on the CPU; imports no onnx."""

from __future__ import annotations

import onnxruntime

__all__ = ["cpu_session"]


def cpu_session(graph: bytes, *, threads: int = 0, optimise: bool = True) -> onnxruntime.InferenceSession:
    """Return a session of ONNX Runtime on the CPU that logs nothing: what fails is raised.

    Args:
        graph: the serialised model.
        threads: of ONNX Runtime; 0 leaves the choice to it.
        optimise: False: every node is computed as it is written.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
