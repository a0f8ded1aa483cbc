"""Run the one graph of an artifact, which exits by itself: what a user without this package runs, under our names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sdcompress import registry
from sdcompress.artifact.certificate import ExecutionTarget
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.errors import InputError, UsageError
from sdcompress.options import AS_USUAL, EngineOptions
from sdcompress.policies._base import Float
from sdcompress.runtime.backends._base import Backend, ChainBackend, Graph
from sdcompress.runtime.engine import Images, Names, Prediction
from sdcompress.runtime.inputs import checked, prepared
from sdcompress.runtime.open import ROOM, USUAL, check_runs
from sdcompress.schema.manifest import Manifest, OneGraph

__all__ = ["OneGraphEngine", "open_one_graph"]


class OneGraphEngine:
    """Predicts as ``Engine`` does; it can only do that: no exit can be forced or looked at, and there is no deadline.

    Args:
        manifest: of the artifact.
        one_graph: its entry there.
        graph: ready to run.
    """

    def __init__(self, manifest: Manifest, one_graph: OneGraph, graph: Graph) -> None:
        self._manifest, self._graph = manifest, graph
        channels, height, width = (int(size) for size in manifest.input.shape[1:])
        self._image = (channels, height, width)
        temperatures = tuple(exit_.temperature for exit_ in manifest.exits)
        self._names = Names(manifest.classes, self.exit_names, temperatures)
        self.batch_of_one = one_graph.kind == "if"

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Names of the E exits, shallow to deep."""
        return tuple(exit_.name for exit_ in self._manifest.exits)

    def preprocess(self, images: Images) -> Float:
        """Turn images into inputs; see ``Engine.preprocess``."""
        return prepared(images, self._manifest.input.preprocess, self._image)

    def __call__(self, inputs: Float) -> Prediction:
        """Predict; samples leave as the policy in the graph says.

        Args:
            inputs: float32 [B, C, H, W]; B is 1 for a graph of the kind "if", and may be 0.

        Raises:
            InputError: if the array has another dtype or shape.
        """
        inputs = checked(inputs, self._image)
        if len(inputs) == 0:
            return Prediction(
                np.empty((0, len(self._manifest.classes)), np.float32), np.empty(0, np.int64), self._names
            )
        if self.batch_of_one and len(inputs) != 1:
            raise InputError(
                f"A batch of {len(inputs)} images was given to a graph of the kind 'if'.",
                allowed="one image: all of a batch would have to leave together",
                next_step="export the layout 'graph', or call it for each image",
            )
        logits, _, exit_index = self._graph({self._manifest.input.name: inputs})
        return Prediction(logits, exit_index, self._names)


def open_one_graph(source: Artifact | Path | str, options: EngineOptions = AS_USUAL) -> OneGraphEngine:
    """Open the one graph of an artifact, after checking all of it; the errors of ``open_engine``.

    A certificate is about the segments: it says which thresholds may run, and not that this graph rounds as they do.

    Raises:
        UsageError: if the artifact holds no such graph.
    """
    artifact = open_artifact(source)
    backend, device = options.backend or USUAL, options.device or "cpu"
    manifest, one_graph = artifact.manifest, artifact.manifest.one_graph
    if one_graph is None:
        raise UsageError(
            f"'{artifact.path}' holds no graph that exits by itself.",
            allowed="an artifact that was exported with --layout graph or if",
            next_step=f"sdcompress export {artifact.path} --layout graph --out FOLDER",
        )
    check_runs(artifact, ExecutionTarget(backend, device), allow_uncertified=options.allow_uncertified, stacklevel=3)
    load: Backend | ChainBackend = registry.load(ROOM, backend, extra="all")
    if isinstance(load, ChainBackend):
        raise UsageError(
            f"The backend '{backend}' runs no graph that exits by itself.",
            allowed="onnxruntime: TensorRT runs both branches of an If",
            next_step="open the segments with it: sdcompress.open",
        )
    graph = load(artifact.file(one_graph), one_graph, threads=options.threads, device=device)
    return OneGraphEngine(manifest, one_graph, graph)
