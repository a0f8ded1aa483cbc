"""Run the segments of an export in ONNX Runtime on the CPU, before there is a manifest that an engine could open."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdcompress.modalities import Inputs
from sdcompress.onnx_graph.cpu_session import cpu_session
from sdcompress.schema.manifest import Manifest

__all__ = ["SegmentSessions", "open_sessions"]


class SegmentSessions:
    """ONNX graphs that run one after the other on all rows, without early exits.

    Args:
        graphs: their bytes, in order; each takes its inputs by name from the network's inputs or earlier graphs.
        outputs: names of the exits' outputs.
        threads: of ONNX Runtime; 0 leaves the choice to it.
        optimise: False: every node is computed as it is written.
    """

    def __init__(
        self,
        graphs: Sequence[bytes],
        *,
        outputs: Sequence[str],
        threads: int = 0,
        optimise: bool = True,
    ) -> None:
        self._sessions = [cpu_session(graph, threads=threads, optimise=optimise) for graph in graphs]
        self._outputs = outputs

    def __call__(self, inputs: Inputs) -> np.ndarray:
        """The outputs of all exits, float32 [E, B, ...]."""
        tensors = self.run(inputs)
        return np.stack([tensors[name] for name in self._outputs])

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Return the outputs of all graphs by name."""
        tensors = dict(inputs.arrays)
        for session in self._sessions:
            names = [output.name for output in session.get_outputs()]
            feed = {graph_input.name: tensors[graph_input.name] for graph_input in session.get_inputs()}
            tensors.update(zip(names, session.run(names, feed), strict=True))
        return tensors


def open_sessions(
    manifest: Manifest, graphs: Sequence[bytes], *, threads: int, optimise: bool = True
) -> SegmentSessions:
    """Return the sessions of graphs with the exits of a manifest."""
    outputs = [exit_.outputs for exit_ in manifest.exits]
    return SegmentSessions(graphs, outputs=outputs, threads=threads, optimise=optimise)
