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
from sdcompress.modalities import Inputs, Modality
from sdcompress.policies import gates, restore
from sdcompress.policies._base import Float, Gate, Signals
from sdcompress.runtime.active_rows import ActiveRows, RoutedOutputs
from sdcompress.runtime.backends._base import Graph
from sdcompress.runtime.cost import Cost, sample_size
from sdcompress.runtime.engine import ExitCost, Prediction
from sdcompress.runtime.inputs import checked_temperatures, exit_position
from sdcompress.runtime.segments import ArrayChain, Chain, ChainPass
from sdcompress.schema.manifest import Manifest, Policy, Segment
from sdcompress.tasks import Task, task_of

__all__ = ["CascadeEngine", "array_cascade"]


def array_cascade(
    artifact: Artifact, load: Callable[[Segment], Graph], where: ExecutionTarget | None = None
) -> CascadeEngine:
    """Return a network whose graphs are callables on numpy arrays.

    Args:
        artifact: opened, so checked.
        load: makes a graph of a segment.
        where: what computes them; default: what a certificate is about unless it says otherwise.
    """
    graphs = [load(segment) for segment in artifact.manifest.segments]
    chain = ArrayChain(artifact.manifest, graphs, where or ExecutionTarget())
    return CascadeEngine(artifact.manifest, chain, artifact.modality)


class CascadeEngine:
    """An artifact ready to run: every layout, one way, whatever computes underneath.

    Each sample leaves by the artifact's policy, whatever the others do, at any batch size. Without a policy all samples
    run to the last exit; an artifact with one exit gives 0 as the exit of every sample. In the layout ``all`` one graph
    computes every exit, so that leaving early changes the prediction but saves nothing.

    Calls from several threads are safe as far as the chain's runs are: everything else that changes during a call
    belongs to that call. A batch above the chain's largest is run in parts.

    Args:
        manifest: of an artifact that was opened, so checked.
        chain: its stages, ready to run.
        modality: of the artifact.
    """

    def __init__(self, manifest: Manifest, chain: Chain, modality: Modality) -> None:
        self.manifest, self._chain = manifest, chain
        self._task, self._modality = task_of(manifest), modality
        self._ends = [exit_.segment for exit_ in self.manifest.exits]
        self._temperatures = tuple(exit_.temperature for exit_ in self.manifest.exits)
        policy = self.manifest.policy
        restored = restore(policy.kind, policy.parameters, self._task, len(self._ends)) if policy else None
        self._gates: tuple[Gate, ...] = gates(restored, policy.thresholds) if policy and restored else ()
        self._looks_back = restored is not None and restored.history
        self._cost = Cost(policy, chain.rows)

    @property
    def where(self) -> ExecutionTarget:
        """Return the execution target: backend, device, plans."""
        return self._chain.where

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Return the names of the E exits, shallow to deep."""
        return tuple(exit_.name for exit_ in self.manifest.exits)

    @property
    def task(self) -> Task:
        """Return the task, the meaning of the outputs."""
        return self._task

    @property
    def modality(self) -> Modality:
        """Return the modality of the inputs."""
        return self._modality

    @property
    def policy(self) -> Policy | None:
        """Return the exit policy; None: all samples run to the last exit."""
        return self.manifest.policy

    @property
    def exit_costs(self) -> tuple[ExitCost, ...]:
        """Return the cost of leaving at each exit: the sum over the segments that have run."""
        macs = list(accumulate(segment.macs for segment in self.manifest.segments))
        parameters = list(accumulate(segment.parameters for segment in self.manifest.segments))
        return tuple(ExitCost(macs[exit_.segment], parameters[exit_.segment]) for exit_ in self.manifest.exits)

    def with_policy(self, policy: Policy, temperatures: Sequence[float] | None = None) -> CascadeEngine:
        """Return the same stages, as another policy and other temperatures would use them; no certificate covers it.

        Args:
            policy: of these exits.
            temperatures: one for each exit; None: as they are.
        """
        exits = tuple(
            exit_.model_copy(update={"temperature": temperature})
            for exit_, temperature in zip(self.manifest.exits, temperatures or self._temperatures, strict=True)
        )
        manifest = self.manifest.model_copy(update={"policy": policy, "exits": exits, "certificate": None})
        return CascadeEngine(manifest, self._chain, self._modality)

    def preprocess(self, raw: Any) -> Inputs:
        """Turn raw examples into inputs; see ``Engine.preprocess``."""
        return self._modality.prepare(raw)

    def forced(self, inputs: Any, exit: int) -> Prediction:  # noqa: A002 - the field's word
        """Predict with all samples leaving at one exit; see ``Engine.forced``."""
        position = exit_position(exit, self.exit_names)
        return self._prediction(self._forced(self._chain.checked(inputs), position))

    def exits(self, inputs: Any) -> Float:
        """Return the outputs of every exit, float32 [E, B, ...]; no sample leaves early."""
        inputs = self._chain.checked(inputs)
        if len(inputs) == 0:
            return np.empty((len(self._ends), 0, *self._task.output_shape), np.float32)
        return np.concatenate([self._exits(part) for part in self._parts(inputs)], axis=1)

    def signals(self, inputs: Any, temperatures: Sequence[float] | None = None) -> tuple[Signals, ...]:
        """What the policy would judge every exit by; see ``Engine.signals``."""
        inputs = self._chain.checked(inputs)
        chosen = self._temperatures if temperatures is None else checked_temperatures(temperatures, len(self._ends))
        if len(inputs) == 0:
            return (self.task.signals(np.empty((0, *self.task.output_shape), np.float32)),) * len(self._ends)
        parts = [self._signals(part, chosen) for part in self._parts(inputs)]
        return tuple(map(Signals.joined, zip(*parts, strict=True)))

    def __call__(self, inputs: Any, *, deadline_ms: float | None = None) -> Prediction:
        """Predict; samples exit by the policy. See ``Engine.__call__``."""
        due = None if deadline_ms is None else perf_counter_ns() + deadline_ms * 1e6
        inputs = self._chain.checked(inputs)
        if len(inputs) == 0 or (not self._gates and due is None):
            return self._prediction(self._forced(inputs, len(self._ends) - 1))
        return self._prediction(_joined([self._predicted(part, due) for part in self._parts(inputs)]))

    def move_ms(self, position: int) -> float | None:
        """What compaction takes for one row after an exit, in milliseconds; None: as much as numpy."""
        return self._chain.move_ms(position)

    def _predicted(self, inputs: Inputs, due: float | None) -> RoutedOutputs:
        batch, last, size = ActiveRows(len(inputs)), len(self._ends) - 1, sample_size(self.manifest.inputs, inputs)
        with self._chain.start(inputs) as run:
            for position in range(last):
                run.stage(position)
                if self._gates and batch.leave(
                    self._leaves(position, run, batch), partial(run.outputs, position), position
                ):
                    return _closed(run, batch, position)
                compacts = batch.active < batch.allocated and self._cost.compaction_pays(
                    position, batch.allocated, batch.active, size
                )
                rows = batch.active if compacts else batch.allocated
                if due is not None and self._late(due, position + 1, rows, size):
                    return _closed(run, batch, position)
                if compacts:
                    run.compact(position, batch.compact())
            run.stage(last)
            return _closed(run, batch, last)

    def _prediction(self, answers: RoutedOutputs) -> Prediction:
        return self._task.prediction(*answers, self.exit_names, self._temperatures)

    def _late(self, due: float, position: int, rows: int, size: int) -> bool:
        """Whether the next stage would end too late; one that is computed already never does (the layout ``all``)."""
        runs = self._ends[position] > self._ends[position - 1]
        return runs and perf_counter_ns() + 1e6 * self._cost.ms(position, rows, size) > due

    def _leaves(self, position: int, run: ChainPass, batch: ActiveRows) -> npt.NDArray[np.bool_]:
        """Return the rows that leave, those that have left before included."""
        signals = run.signals(position, self._temperatures[position])
        if self._looks_back:
            batch.signals.append(signals)
            return self._gates[position](batch.signals)
        return self._gates[position]((signals,))

    def _parts(self, inputs: Inputs) -> list[Inputs]:
        rows = len(inputs)
        largest = self._chain.largest or rows
        if rows <= largest:
            return [inputs]
        return [inputs[start : start + largest] for start in range(0, rows, largest)]

    def _exits(self, inputs: Inputs) -> Float:
        exits = []
        with self._chain.start(inputs) as run:
            for position in range(len(self._ends)):
                run.stage(position)
                exits.append(run.outputs(position))
            run.finish()
            return np.stack([run.copied(outputs) for outputs in exits])

    def _signals(self, inputs: Inputs, temperatures: Sequence[float]) -> list[Signals]:
        exits = []
        with self._chain.start(inputs) as run:
            for position, temperature in zip(range(len(self._ends)), temperatures, strict=True):
                run.stage(position)
                exits.append(run.signals(position, temperature).map(np.array))
        return exits

    def _forced(self, inputs: Inputs, position: int) -> RoutedOutputs:
        if len(inputs) == 0:  # many graphs cannot run on nothing
            return RoutedOutputs.all_at(np.empty((0, *self._task.output_shape), np.float32), position)
        return _joined(
            [RoutedOutputs.all_at(self._outputs_at(part, position), position) for part in self._parts(inputs)]
        )

    def _outputs_at(self, inputs: Inputs, position: int) -> Float:
        with self._chain.start(inputs) as run:
            for earlier in range(position + 1):
                run.stage(earlier)
            outputs = run.outputs(position)
            run.finish()
            return run.copied(outputs)


def _closed(run: ChainPass, batch: ActiveRows, position: int) -> RoutedOutputs:
    outputs = run.outputs(position)
    run.finish()
    return batch.close(run.copied(outputs) if batch.whole else outputs, position)


def _joined(parts: Sequence[RoutedOutputs]) -> RoutedOutputs:
    if len(parts) == 1:
        return parts[0]
    return RoutedOutputs(*map(np.concatenate, zip(*parts, strict=True)))
