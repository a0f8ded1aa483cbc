"""Run the one graph of an artifact, which applies the exit policy itself, with a part of the ``Engine`` interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sdcompress import registry
from sdcompress.artifact.execution_target import ExecutionTarget
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.errors import InputError, UsageError
from sdcompress.modalities import Inputs, Modality
from sdcompress.options import DEFAULT_OPTIONS, EngineOptions
from sdcompress.runtime.backends._base import Backend, ExecutorBackend, Graph
from sdcompress.runtime.engine import Prediction
from sdcompress.runtime.open import ROOM, USUAL, check_runs
from sdcompress.schema.manifest import Manifest, OneGraph
from sdcompress.tasks import task_of

__all__ = ["OneGraphEngine", "open_one_graph"]


class OneGraphEngine:
    """Predicts as an ``Engine`` does, but cannot force an exit, return all exits or keep a deadline.

    Args:
        manifest: of the artifact.
        one_graph: its entry there.
        graph: ready to run.
        modality: of the artifact.
    """

    def __init__(self, manifest: Manifest, one_graph: OneGraph, graph: Graph, modality: Modality) -> None:
        self._manifest, self._graph = manifest, graph
        self.task, self.modality = task_of(manifest), modality
        self._temperatures = tuple(exit_.temperature for exit_ in manifest.exits)
        self.batch_of_one = one_graph.kind == "if"

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Return the names of the E exits, shallow to deep."""
        return tuple(exit_.name for exit_ in self._manifest.exits)

    def preprocess(self, raw: Any) -> Inputs:
        """Turn raw examples into inputs; see ``Engine.preprocess``."""
        return self.modality.prepare(raw)

    def __call__(self, inputs: Any) -> Prediction:
        """Predict; samples exit by the policy in the graph.

        Args:
            inputs: as ``preprocess`` returns them; B is 1 for a graph of the kind "if", and may be 0.

        Raises:
            InputError: if an input has another dtype or shape.
        """
        checked = self.modality.check(inputs)
        rows = len(checked)
        if rows == 0:
            outputs, exit_index = np.empty((0, *self.task.output_shape), np.float32), np.empty(0, np.int64)
            return self.task.prediction(outputs, exit_index, self.exit_names, self._temperatures)
        if self.batch_of_one and rows != 1:
            raise InputError(
                f"A batch of {rows} samples was given to a graph of the kind 'if'.",
                allowed="one sample: all samples of a batch would have to take one exit",
                next_step="export the layout 'graph', or call it for each sample",
            )
        outputs, _, exit_index = self._graph(dict(checked.arrays))
        return self.task.prediction(outputs, exit_index, self.exit_names, self._temperatures)


def open_one_graph(source: Artifact | Path | str, options: EngineOptions = DEFAULT_OPTIONS) -> OneGraphEngine:
    """Open the one graph of an artifact, after checking all of it; the errors of ``open_engine``.

    A certificate covers the segments. It allows the thresholds, but does not cover the rounding of this graph.

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
    load: Backend | ExecutorBackend = registry.load(ROOM, backend, extra="all")
    if isinstance(load, ExecutorBackend):
        raise UsageError(
            f"The backend '{backend}' runs no graph that exits by itself.",
            allowed="onnxruntime: TensorRT runs both branches of an If",
            next_step="open the segments with it: sdcompress.open",
        )
    graph = load(artifact.file(one_graph), one_graph, threads=options.threads, device=device)
    return OneGraphEngine(manifest, one_graph, graph, artifact.modality)
