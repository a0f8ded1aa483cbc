"""The engine over an artifact: run a stage, let sure samples leave, compact the rest, go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.certificate import ExecutionTarget
from sdcompress.artifact.read import Artifact
from sdcompress.errors import ArtifactError
from sdcompress.modalities import Modality, modality_of
from sdcompress.policies import restore
from sdcompress.policies._base import Float, Signals
from sdcompress.runtime.active_rows import ActiveRows
from sdcompress.runtime.backends._base import Graph
from sdcompress.runtime.chain import ArrayChain, Batch, Chain, Run
from sdcompress.runtime.cost import Cost
from sdcompress.runtime.engine import ExitCost, Images, Names, Prediction
from sdcompress.runtime.gate import Gate, gates
from sdcompress.runtime.inputs import checked_temperatures, exit_position, prepared
from sdcompress.schema.manifest import Manifest, Policy, Preprocess, Segment
from sdcompress.tasks import Task, task_of

__all__ = ["CascadeEngine", "array_cascade", "check_input"]


def array_cascade(
    artifact: Artifact, load: Callable[[Segment], Graph], where: ExecutionTarget | None = None
) -> CascadeEngine:
    """A network whose graphs are callables on numpy arrays.

    Args:
        artifact: opened, so checked.
        load: makes a graph of a segment.
        where: what computes them; default: what a certificate is about unless it says otherwise.
    """
    check_input(artifact.manifest)
    graphs = [load(segment) for segment in artifact.manifest.segments]
    return CascadeEngine(artifact.manifest, ArrayChain(artifact.manifest, graphs, where or ExecutionTarget()))


class CascadeEngine:
    """An artifact ready to run: every layout, one way, whatever computes underneath.

    Samples leave by the artifact's policy, each for itself, at any batch size. Without a policy nobody leaves before
    the last exit; an artifact with one exit answers 0 as the exit of every sample. In the layout ``all`` one graph
    computes every exit, so that leaving early changes the answer but saves nothing.

    Calls from several threads are safe as far as the chain's runs are: everything else that changes during a call
    belongs to that call. A batch above the chain's largest is answered in parts.

    Args:
        manifest: of an artifact that was opened, so checked.
        chain: its stages, ready to run.
    """

    def __init__(self, manifest: Manifest, chain: Chain) -> None:
        self.manifest, self._chain = manifest, chain
        self._task, self._modality = task_of(manifest), modality_of(manifest)
        self._image = check_input(self.manifest)
        self._ends = [exit_.segment for exit_ in self.manifest.exits]
        self._temperatures = tuple(exit_.temperature for exit_ in self.manifest.exits)
        self._names = Names(self.classes, self.exit_names, self._temperatures)
        policy = self.manifest.policy
        restored = restore(policy.kind, policy.parameters, len(self._ends)) if policy else None
        self._gates: tuple[Gate, ...] = gates(restored, policy.thresholds) if policy and restored else ()
        self._looks_back = restored is not None and restored.history
        self._cost = Cost(policy, chain.rows)

    @property
    def where(self) -> ExecutionTarget:
        """What computes it, and where."""
        return self._chain.where

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
    def task(self) -> Task:
        """What its outputs mean."""
        return self._task

    @property
    def modality(self) -> Modality:
        """What it is given."""
        return self._modality

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

    def under(self, policy: Policy, temperatures: Sequence[float] | None = None) -> CascadeEngine:
        """The same stages, as another policy and other temperatures would use them; no certificate covers it.

        Args:
            policy: of these exits.
            temperatures: one for each exit; None: as they are.
        """
        exits = tuple(
            exit_.model_copy(update={"temperature": temperature})
            for exit_, temperature in zip(self.manifest.exits, temperatures or self._temperatures, strict=True)
        )
        manifest = self.manifest.model_copy(update={"policy": policy, "exits": exits, "certificate": None})
        return CascadeEngine(manifest, self._chain)

    def preprocess(self, images: Images) -> Float:
        """Turn images into inputs; see ``Engine.preprocess``."""
        return prepared(images, self.preprocess_spec, self._image)

    def forced(self, inputs: Any, exit: int) -> Prediction:  # noqa: A002 - the field's word
        """Predict with everybody leaving at one exit; see ``Engine.forced``."""
        position = exit_position(exit, self.exit_names)
        return self._named(self._forced(self._chain.checked(inputs), position))

    def exits(self, inputs: Any) -> Float:
        """The logits of every exit, float32 [E, B, K]; nobody leaves."""
        inputs = self._chain.checked(inputs)
        if len(inputs) == 0:
            return np.empty((len(self._ends), 0, len(self.classes)), np.float32)
        return np.concatenate([self._exits(part) for part in self._parts(inputs)], axis=1)

    def signals(self, inputs: Any, temperatures: Sequence[float] | None = None) -> tuple[Signals, ...]:
        """What every exit's policy would judge by; see ``Engine.signals``."""
        inputs = self._chain.checked(inputs)
        chosen = self._temperatures if temperatures is None else checked_temperatures(temperatures, len(self._ends))
        if len(inputs) == 0:
            return (self.task.signals(np.empty((0, *self.task.output_shape), np.float32)),) * len(self._ends)
        parts = [self._signals(part, chosen) for part in self._parts(inputs)]
        return tuple(map(Signals.joined, zip(*parts, strict=True)))

    def __call__(self, inputs: Any, *, deadline_ms: float | None = None) -> Prediction:
        """Predict; samples leave as the policy says. See ``Engine.__call__``."""
        due = None if deadline_ms is None else perf_counter_ns() + deadline_ms * 1e6
        inputs = self._chain.checked(inputs)
        if len(inputs) == 0 or (not self._gates and due is None):
            return self._named(self._forced(inputs, len(self._ends) - 1))
        return self._named(_joined([self._predicted(part, due) for part in self._parts(inputs)]))

    def move_ms(self, position: int) -> float | None:
        """What compaction takes for one row after an exit, in milliseconds; None: as much as numpy."""
        return self._chain.move_ms(position)

    def _predicted(self, inputs: Batch, due: float | None) -> Prediction:
        batch, last = ActiveRows(len(inputs)), len(self._ends) - 1
        with self._chain.start(inputs) as run:
            for position in range(last):
                run.stage(position)
                if self._gates and batch.leave(
                    self._leaves(position, run, batch), partial(run.logits, position), position
                ):
                    return _closed(run, batch, position)
                compacts = batch.active < batch.allocated and self._cost.compaction_pays(
                    position, batch.allocated, batch.active
                )
                if due is not None and self._late(due, position + 1, batch.active if compacts else batch.allocated):
                    return _closed(run, batch, position)
                if compacts:
                    run.compact(position, batch.compact())
            run.stage(last)
            return _closed(run, batch, last)

    def _named(self, prediction: Prediction) -> Prediction:
        return Prediction(prediction.logits, prediction.exit_index, self._names)

    def _late(self, due: float, position: int, rows: int) -> bool:
        """Whether the next stage would end too late; one that is computed already never does (the layout ``all``)."""
        runs = self._ends[position] > self._ends[position - 1]
        return runs and perf_counter_ns() + 1e6 * self._cost.ms(position, rows) > due

    def _leaves(self, position: int, run: Run, batch: ActiveRows) -> npt.NDArray[np.bool_]:
        """The rows that leave, those that have left before included."""
        signals = run.signals(position, self._temperatures[position])
        if self._looks_back:
            batch.signals.append(signals)
            return self._gates[position](batch.signals)
        return self._gates[position]((signals,))

    def _parts(self, inputs: Batch) -> list[Batch]:
        most = self._chain.largest or len(inputs)
        if len(inputs) <= most:
            return [inputs]
        return [inputs[start : start + most] for start in range(0, len(inputs), most)]

    def _exits(self, inputs: Batch) -> Float:
        found = []
        with self._chain.start(inputs) as run:
            for position in range(len(self._ends)):
                run.stage(position)
                found.append(run.logits(position))
            run.finish()
            return np.stack([run.own(logits) for logits in found])

    def _signals(self, inputs: Batch, temperatures: Sequence[float]) -> list[Signals]:
        found = []
        with self._chain.start(inputs) as run:
            for position, temperature in zip(range(len(self._ends)), temperatures, strict=True):
                run.stage(position)
                found.append(run.signals(position, temperature).map(np.array))
        return found

    def _forced(self, inputs: Batch, position: int) -> Prediction:
        if len(inputs) == 0:  # many graphs cannot run on nothing
            return _everybody(np.empty((0, len(self.classes)), np.float32), position)
        return _joined([_everybody(self._reached(part, position), position) for part in self._parts(inputs)])

    def _reached(self, inputs: Batch, position: int) -> Float:
        with self._chain.start(inputs) as run:
            for earlier in range(position + 1):
                run.stage(earlier)
            logits = run.logits(position)
            run.finish()
            return run.own(logits)


def _closed(run: Run, batch: ActiveRows, position: int) -> Prediction:
    logits = run.logits(position)
    run.finish()
    return batch.close(run.own(logits) if batch.whole else logits, position)


def _joined(parts: Sequence[Prediction]) -> Prediction:
    if len(parts) == 1:
        return parts[0]
    return Prediction(
        np.concatenate([part.logits for part in parts]), np.concatenate([part.exit_index for part in parts])
    )


def _everybody(logits: Float, position: int) -> Prediction:
    return Prediction(logits, np.full(len(logits), position, np.int64))


def check_input(manifest: Manifest) -> tuple[int, int, int]:
    """C, H, W of an artifact's input.

    Raises:
        ArtifactError: if it is no image of a fixed size.
    """
    shape = manifest.input.shape
    if manifest.input.dtype != "float32" or len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
        raise ArtifactError(
            f"The artifact's input is {manifest.input.dtype} {list(shape)}.",
            allowed="float32 ['batch', C, H, W]",
            next_step="export it again with this version of sdcompress",
        )
    channels, height, width = (int(size) for size in shape[1:])
    return channels, height, width
