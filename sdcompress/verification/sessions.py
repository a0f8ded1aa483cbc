"""Run the segments of an export in ONNX Runtime on the CPU, before there is a manifest that an engine could open."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdcompress.onnx_graph.cpu_session import cpu_session
from sdcompress.schema.manifest import Manifest

__all__ = ["SegmentSessions", "open_sessions"]


class SegmentSessions:
    """ONNX graphs that run one after the other on all rows, without early exits.

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
        self._sessions = [cpu_session(graph, threads=threads, optimise=optimise) for graph in graphs]
        self._input, self._logits = network_input, logits

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """The logits of all exits, float32 [E, B, K], for inputs float32 [B, C, H, W]."""
        tensors = self.run(inputs)
        return np.stack([tensors[name] for name in self._logits])

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of all graphs by name."""
        tensors = {self._input: inputs}
        for session in self._sessions:
            names = [output.name for output in session.get_outputs()]
            feed = {graph_input.name: tensors[graph_input.name] for graph_input in session.get_inputs()}
            tensors.update(zip(names, session.run(names, feed), strict=True))
        return tensors


def open_sessions(
    manifest: Manifest, graphs: Sequence[bytes], *, threads: int, optimise: bool = True
) -> SegmentSessions:
    """The sessions of graphs with the input and the exits of a manifest."""
    logits = [exit_.logits for exit_ in manifest.exits]
    return SegmentSessions(graphs, network_input=manifest.input.name, logits=logits, threads=threads, optimise=optimise)
