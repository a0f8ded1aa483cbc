"""Run exported graphs before there is an artifact: what the parity gate measures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

__all__ = ["FAILURES", "Chain"]

# what ONNX Runtime raises when a graph cannot be loaded or run; they have no common base
FAILURES = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class Chain:
    """ONNX graphs run one after the other on the CPU; nobody leaves early.

    Args:
        graphs: their bytes, in order; each takes its inputs by name from the network's input or earlier graphs.
        network_input: name of the network's input.
        logits: names of the exits' logits.
        threads: of ONNX Runtime; 0 leaves the choice to it.
        optimise: False: every node is computed as it is written.
    """

    def __init__(
        self,
        graphs: Sequence[bytes],
        *,
        network_input: str,
        logits: Sequence[str],
        threads: int = 0,
        optimise: bool = True,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4  # what fails is raised
        self._sessions = [
            onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]) for graph in graphs
        ]
        self._input, self._logits = network_input, logits

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """All exits' logits, float32 [E, B, K], of float32 [B, C, H, W]."""
        tensors = self.run(inputs)
        return np.stack([tensors[name] for name in self._logits])

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Every output of every graph by its name."""
        tensors = {self._input: inputs}
        for session in self._sessions:
            names = [output.name for output in session.get_outputs()]
            feed = {entry.name: tensors[entry.name] for entry in session.get_inputs()}
            tensors.update(zip(names, session.run(names, feed), strict=True))
        return tensors
