"""Run the one graph of an artifact, which applies the exit policy itself, with a part of the ``Engine`` interface."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from sdcompress.errors import InputError
from sdcompress.modalities import Inputs, Modality
from sdcompress.runtime.backends._base import Graph
from sdcompress.runtime.engine import Prediction
from sdcompress.schema.manifest import Manifest
from sdcompress.tasks import task_of

__all__ = ["OneGraphEngine"]


class OneGraphEngine:
    """Predicts as an ``Engine`` does, but cannot force an exit, return all exits or keep a deadline.

    Args:
        manifest: of the artifact.
        kind: of the graph: "graph" or "if".
        graph: ready to run.
        modality: of the artifact.

    Attributes:
        exit_names: the names of the E exits, shallow to deep.
    """

    def __init__(self, manifest: Manifest, kind: Literal["graph", "if"], graph: Graph, modality: Modality) -> None:
        self._graph = graph
        self.task, self.modality = task_of(manifest), modality
        self.exit_names = tuple(exit_.name for exit_ in manifest.exits)
        self._temperatures = tuple(exit_.temperature for exit_ in manifest.exits)
        self.batch_of_one = kind == "if"

    def takes(self, rows: int) -> bool:
        """Return whether a batch of so many rows can run."""
        return rows == 1 or not self.batch_of_one

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
        return self.run(self.modality.check(inputs))

    def run(self, checked: Inputs) -> Prediction:
        """Predict from checked inputs; see ``__call__``."""
        rows = len(checked)
        if rows == 0:
            outputs, exit_index = np.empty((0, *self.task.output_shape), np.float32), np.empty(0, np.int64)
            return self.task.prediction(outputs, exit_index, self.exit_names, self._temperatures)
        if not self.takes(rows):
            raise InputError(
                f"A batch of {rows} samples was given to a graph of the kind 'if'.",
                allowed="one sample: all samples of a batch would have to take one exit",
                next_step="export the layout 'graph', or call it for each sample",
            )
        outputs, _, exit_index = self._graph(dict(checked.arrays))
        return self.task.prediction(outputs, exit_index, self.exit_names, self._temperatures)
