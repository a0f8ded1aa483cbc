"""The engine over an artifact: run a segment, let sure samples leave, compact the rest, go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.read import Artifact
from sdcompress.errors import ArtifactError
from sdcompress.policies import restore
from sdcompress.policies._base import Float, Signals, signals_of
from sdcompress.runtime.backends._base import Graph
from sdcompress.runtime.cost import Cost
from sdcompress.runtime.engine import ExitCost, Images, Prediction
from sdcompress.runtime.gate import Gate, gates
from sdcompress.runtime.inputs import checked, exit_position, prepared
from sdcompress.runtime.stages import Tensors, stages
from sdcompress.runtime.survivors import Survivors
from sdcompress.schema.manifest import Manifest, Policy, Preprocess, Segment

__all__ = ["Network"]


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
        self._stages = stages(self.manifest, [load(segment) for segment in self.manifest.segments])
        self._temperatures = tuple(exit_.temperature for exit_ in self.manifest.exits)
        policy = self.manifest.policy
        restored = restore(policy.kind, policy.parameters) if policy else None
        self._gates: tuple[Gate, ...] = gates(restored, policy.thresholds) if policy and restored else ()
        self._looks_back = restored is not None and restored.history
        self._cost = Cost(policy)

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

    def signals(self, inputs: Float, temperatures: Sequence[float] | None = None) -> tuple[Signals, ...]:
        """What every exit's policy would judge by; see ``Engine.signals``."""
        inputs = checked(inputs, self._image)
        if len(inputs) == 0:
            return (signals_of(np.empty((0, len(self.classes)), np.float32)),) * len(self._stages)
        tensors, found = self._start(inputs), []
        for stage, temperature in zip(self._stages, temperatures or self._temperatures, strict=True):
            stage.run(tensors)
            found.append(stage.signals(tensors, temperature))
        return tuple(found)

    def __call__(self, inputs: Float, *, deadline_ms: float | None = None) -> Prediction:
        """Predict; samples leave as the policy says. See ``Engine.__call__``."""
        due = None if deadline_ms is None else perf_counter_ns() + deadline_ms * 1e6
        inputs = checked(inputs, self._image)
        last = len(self._stages) - 1
        if len(inputs) == 0 or (not self._gates and due is None):
            return self._forced(inputs, last)
        batch = Survivors(inputs, self.manifest.input.name)
        for position, stage in enumerate(self._stages[:-1]):
            logits = stage.run(batch.tensors)
            if self._gates and batch.leave(self._leaves(position, batch), logits, position):
                return batch.close(logits, position)
            compacts = batch.alive < batch.carried and self._cost.compaction_pays(position, batch.carried, batch.alive)
            if due is not None and self._late(due, position + 1, batch.alive if compacts else batch.carried):
                return batch.close(logits, position)
            batch.go_on(stage.kept)
            if compacts:
                batch.compact()
        return batch.close(self._stages[-1].run(batch.tensors), last)

    def _late(self, due: float, position: int, rows: int) -> bool:
        """Whether the next stage would end too late; one that is computed already never does (the layout ``all``)."""
        runs = bool(self._stages[position].graphs)
        return runs and perf_counter_ns() + 1e6 * self._cost.ms(position, rows) > due

    def _leaves(self, position: int, batch: Survivors) -> npt.NDArray[np.bool_]:
        """The rows that leave, those that have left before included."""
        signals = self._stages[position].signals(batch.tensors, self._temperatures[position])
        if self._looks_back:
            batch.signals.append(signals)
            return self._gates[position](batch.signals)
        return self._gates[position]((signals,))

    def _forced(self, inputs: Float, position: int) -> Prediction:
        if len(inputs) == 0:  # many graphs cannot run on nothing
            return _everybody(np.empty((0, len(self.classes)), np.float32), position)
        tensors = self._start(inputs)
        for stage in self._stages[:position]:
            stage.run(tensors)
            tensors = {name: tensors[name] for name in stage.kept}
        return _everybody(self._stages[position].run(tensors), position)

    def _start(self, inputs: Float) -> Tensors:
        return {self.manifest.input.name: inputs}


def _everybody(logits: Float, position: int) -> Prediction:
    return Prediction(logits, np.full(len(logits), position, np.int64))


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
