"""The engine over an artifact: run a segment, let sure samples leave, compact the rest, go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from sdcompress.artifact.read import Artifact
from sdcompress.errors import ArtifactError
from sdcompress.runtime.backends._base import Graph
from sdcompress.runtime.engine import ExitCost, Float, Images, Prediction
from sdcompress.runtime.inputs import checked, exit_position, prepared
from sdcompress.runtime.policies import Gate, gates
from sdcompress.schema.manifest import Manifest, Policy, Preprocess, Segment

__all__ = ["Network"]

Tensors = dict[str, Float]


@dataclass(frozen=True)
class _Stage:
    """The way from one exit to the next.

    Attributes:
        graphs: what must run, with the names of its inputs and outputs.
        logits: name of the exit's logits.
        kept: names of what is needed after this exit.
    """

    graphs: tuple[tuple[Graph, tuple[str, ...], tuple[str, ...]], ...]
    logits: str
    kept: tuple[str, ...]

    def run(self, tensors: Tensors) -> Float:
        """Run the graphs, add their outputs to the tensors and return the exit's logits, [rows, K]."""
        for graph, inputs, outputs in self.graphs:
            tensors.update(zip(outputs, graph({name: tensors[name] for name in inputs}), strict=True))
        return tensors[self.logits]


class Network:
    """An artifact ready to run: every layout, one way.

    Samples leave by the artifact's policy, each for itself, at any batch size. Without a policy nobody leaves before
    the last exit; an artifact with one exit answers 0 as the exit of every sample. In the layout ``all`` one graph
    computes every exit, so that leaving early changes the answer but saves nothing.

    Calls from several threads are safe as far as the backend's graphs are (ONNX Runtime's are): everything that
    changes during a call belongs to that call.

    Args:
        artifact: opened, so checked.
        load: makes a graph of a segment.
    """

    def __init__(self, artifact: Artifact, load: Callable[[Segment], Graph]) -> None:
        self.manifest = artifact.manifest
        self._image = _image(self.manifest)
        self._stages = _stages(self.manifest, [load(segment) for segment in self.manifest.segments])
        policy = self.manifest.policy
        self._gates: tuple[Gate, ...] = gates(policy, self.manifest.exits) if policy else ()

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Names of the E exits, shallow to deep."""
        return tuple(exit_.name for exit_ in self.manifest.exits)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.manifest.classes

    @property
    def image(self) -> tuple[int, int, int]:
        """C, H, W of the inputs."""
        return self._image

    @property
    def preprocess_spec(self) -> Preprocess:
        """From any image to an input."""
        return self.manifest.input.preprocess

    @property
    def policy(self) -> Policy | None:
        """When samples leave; None: nobody leaves before the last exit."""
        return self.manifest.policy

    @property
    def exit_costs(self) -> tuple[ExitCost, ...]:
        """The cost of leaving at each exit: the sum over the segments that have run."""
        macs = list(accumulate(segment.macs for segment in self.manifest.segments))
        parameters = list(accumulate(segment.parameters for segment in self.manifest.segments))
        return tuple(ExitCost(macs[exit_.segment], parameters[exit_.segment]) for exit_ in self.manifest.exits)

    def preprocess(self, images: Images) -> Float:
        """Turn images into inputs; see ``Engine.preprocess``."""
        return prepared(images, self.preprocess_spec, self._image)

    def forced(self, inputs: Float, exit: int) -> Prediction:  # noqa: A002 - the field's word
        """Predict with everybody leaving at one exit; see ``Engine.forced``."""
        position = exit_position(exit, self.exit_names)
        return self._forced(checked(inputs, self._image), position)

    def exits(self, inputs: Float) -> Float:
        """The logits of every exit, float32 [E, B, K]; nobody leaves."""
        inputs = checked(inputs, self._image)
        if len(inputs) == 0:
            return np.empty((len(self._stages), 0, len(self.classes)), np.float32)
        tensors = self._start(inputs)
        return np.stack([stage.run(tensors) for stage in self._stages])

    def __call__(self, inputs: Float) -> Prediction:
        """Predict; samples leave as the policy says. See ``Engine.__call__``."""
        inputs = checked(inputs, self._image)
        if not self._gates or len(inputs) == 0:
            return self._forced(inputs, len(self._stages) - 1)
        answer: Prediction | None = None  # made when the first samples leave without the others
        rows = np.empty(0, np.int64)
        tensors = self._start(inputs)
        for position, (stage, gate) in enumerate(zip(self._stages, self._gates, strict=False)):
            logits = stage.run(tensors)
            leaves = gate(logits)
            leaving = np.count_nonzero(leaves)
            if leaving == len(leaves):
                return _close(answer, rows, logits, position)
            if leaving:
                if answer is None:
                    answer, rows = _blank(len(inputs), logits.shape[1]), np.arange(len(inputs))
                gone, stays = rows[leaves], np.flatnonzero(~leaves)
                answer.logits[gone], answer.exit_index[gone] = logits[leaves], position
                rows = rows[stays]
                tensors = {name: tensors[name].take(stays, axis=0) for name in stage.kept}
            else:
                tensors = {name: tensors[name] for name in stage.kept}
        return _close(answer, rows, self._stages[-1].run(tensors), len(self._stages) - 1)

    def _forced(self, inputs: Float, position: int) -> Prediction:
        if len(inputs) == 0:  # many graphs cannot run on nothing
            return _close(None, np.empty(0, np.int64), np.empty((0, len(self.classes)), np.float32), position)
        tensors = self._start(inputs)
        for stage in self._stages[:position]:
            stage.run(tensors)
            tensors = {name: tensors[name] for name in stage.kept}
        return _close(None, np.empty(0, np.int64), self._stages[position].run(tensors), position)

    def _start(self, inputs: Float) -> Tensors:
        return {self.manifest.input.name: inputs}


def _blank(batch: int, classes: int) -> Prediction:
    return Prediction(np.empty((batch, classes), np.float32), np.empty(batch, np.int64))


def _close(answer: Prediction | None, rows: np.ndarray, logits: Float, position: int) -> Prediction:
    """Everybody who is left leaves here."""
    if answer is None:
        return Prediction(logits, np.full(len(logits), position, np.int64))
    answer.logits[rows], answer.exit_index[rows] = logits, position
    return answer


def _image(manifest: Manifest) -> tuple[int, int, int]:
    shape = manifest.input.shape
    if manifest.input.dtype != "float32" or len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
        raise ArtifactError(
            f"The artifact's input is {manifest.input.dtype} {list(shape)}.",
            allowed="float32 ['batch', C, H, W]",
            next_step="export it again with this version of sdcompress",
        )
    channels, height, width = (int(size) for size in shape[1:])
    return channels, height, width


def _stages(manifest: Manifest, graphs: Sequence[Graph]) -> tuple[_Stage, ...]:
    parts = [
        (graph, tuple(tensor.name for tensor in segment.inputs), tuple(tensor.name for tensor in segment.outputs))
        for graph, segment in zip(graphs, manifest.segments, strict=True)
    ]
    stages: list[_Stage] = []
    later: set[str] = set()
    for position in range(len(manifest.exits) - 1, -1, -1):
        exit_ = manifest.exits[position]
        first = manifest.exits[position - 1].segment + 1 if position else 0
        mine = tuple(parts[first : exit_.segment + 1])
        stages.append(_Stage(mine, exit_.logits, tuple(sorted(later))))
        made = {name for _, _, outputs in mine for name in outputs}
        later = (later | {exit_.logits} | {name for _, inputs, _ in mine for name in inputs}) - made
    return tuple(reversed(stages))
