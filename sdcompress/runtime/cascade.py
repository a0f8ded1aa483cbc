"""Run an artifact: run a stage, let samples exit whose score is high enough, compact the rest, run the next stage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property, partial
from itertools import accumulate
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.execution_target import ExecutionTarget
from sdcompress.artifact.read import Artifact
from sdcompress.errors import UsageError
from sdcompress.modalities import Inputs, Modality
from sdcompress.policies import gates, restore
from sdcompress.policies._base import Float, Gate, Signals
from sdcompress.runtime.active_rows import ActiveRows, RoutedOutputs
from sdcompress.runtime.backends._base import Graph
from sdcompress.runtime.cost_model import CostModel, sample_size
from sdcompress.runtime.engine import ExitCost, Prediction, checked_exit_index, checked_temperatures
from sdcompress.runtime.one_graph import OneGraphEngine
from sdcompress.runtime.segments import ArrayExecutor, Executor, ForwardPass, LoadedLater
from sdcompress.runtime.stepwise import Stepwise
from sdcompress.schema.manifest import Manifest, Policy, Segment
from sdcompress.tasks import Task, task_of

__all__ = ["CascadeEngine", "array_cascade"]


def array_cascade(
    artifact: Artifact,
    load: Callable[[Segment], Graph],
    execution_target: ExecutionTarget | None = None,
    headless: Callable[[Sequence[Segment], Collection[str]], Graph | None] | None = None,
    one_graph: OneGraphEngine | None = None,
    *,
    by_stages: bool = False,
) -> CascadeEngine:
    """Return the engine of an artifact whose graphs are callables on numpy arrays.

    Args:
        artifact: opened, so checked.
        load: returns the callable of a segment.
        execution_target: of the graphs; default: ONNX Runtime on the CPU.
        headless: returns one graph of neighbouring segments that gives only the outputs of these names; None if there
            is none.
        one_graph: runs single samples; the segments are loaded when another call needs them.
        by_stages: see ``CascadeEngine``.
    """
    policy, later = artifact.manifest.policy, set[int]()
    if policy is not None and headless is not None:  # one graph without the head is loaded in the place of two
        ends = [exit_.segment for exit_ in artifact.manifest.exits]
        restored = restore(policy.name, policy.parameters, artifact.task, len(ends))
        unused = _never_taken(policy, history=restored.history)
        later = {ends[index] for k in unused for index in (k, k + 1)}
    later |= set(range(len(artifact.manifest.segments))) if one_graph else set()
    graphs = [
        LoadedLater(partial(_load_unchanged, artifact, load, segment)) if index in later else load(segment)
        for index, segment in enumerate(artifact.manifest.segments)
    ]
    executor = ArrayExecutor(artifact.manifest, graphs, execution_target or ExecutionTarget(), headless)
    return CascadeEngine(artifact.manifest, executor, artifact.modality, one_graph, by_stages=by_stages)


def _load_unchanged(artifact: Artifact, load: Callable[[Segment], Graph], segment: Segment) -> Graph:
    """Load a segment after the artifact was opened, whose folder may have been replaced meanwhile."""
    artifact.check_unchanged(segment)
    return load(segment)


class CascadeEngine:
    """An ``Engine`` over an artifact of any layout and any executor.

    Each sample exits by the artifact's policy, whatever the others do, at any batch size. Without a policy all samples
    run to the last exit; in an artifact with one exit the exit index is 0. In the layout ``all`` one graph computes
    every exit, so that an early exit changes the prediction but saves nothing.

    Calls from several threads are safe if the executor's forward passes are: everything else that changes during a
    call belongs to that call. A batch above the executor's largest is run in parts. So is a padded batch, where the
    measured times say that parts of like lengths take less time.

    Args:
        manifest: of an artifact that was opened, so checked.
        executor: of its stages.
        modality: of the artifact.
        one_graph: with the policy of the manifest, for single samples without a deadline; None: the executor runs all.
        by_stages: the caller runs ``stepwise``: what only whole calls need is loaded by the first of them.
    """

    def __init__(
        self,
        manifest: Manifest,
        executor: Executor,
        modality: Modality,
        one_graph: OneGraphEngine | None = None,
        *,
        by_stages: bool = False,
    ) -> None:
        self.manifest, self._executor, self._one_graph = manifest, executor, one_graph
        self._task, self._modality, self._varies = task_of(manifest), modality, modality.varies
        self._ends = [exit_.segment for exit_ in self.manifest.exits]
        self._exit_names = tuple(exit_.name for exit_ in self.manifest.exits)
        self._temperatures = tuple(exit_.temperature for exit_ in self.manifest.exits)
        policy = self.manifest.policy
        self._policy = restore(policy.name, policy.parameters, self._task, len(self._ends)) if policy else None
        self._gates: tuple[Gate, ...] = gates(self._policy, policy.thresholds) if policy and self._policy else ()
        self._looks_back = self._policy is not None and self._policy.history
        unused = _never_taken(policy, history=self._looks_back) if policy else range(len(self._ends) - 1)
        self._unused = frozenset(unused)
        self._cost_model = CostModel(policy, executor.rows, unused=self._unused)
        if one_graph is None and not by_stages:
            self._skipping  # noqa: B018 - loads now what the first call would load

    @cached_property
    def _skipping(self) -> Executor:
        """Return the executor that computes no head of exits that are never taken."""
        return self._executor.skipping(self._unused) if self.policy else self._executor

    @property
    def execution_target(self) -> ExecutionTarget:
        """Return the execution target: backend, device, plans."""
        return self._executor.execution_target

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Return the names of the E exits, shallow to deep."""
        return self._exit_names

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
        """Return the cost of each exit: the sum over the segments that have run."""
        macs = list(accumulate(segment.macs for segment in self.manifest.segments))
        parameters = list(accumulate(segment.parameters for segment in self.manifest.segments))
        return tuple(ExitCost(macs[exit_.segment], parameters[exit_.segment]) for exit_ in self.manifest.exits)

    def with_policy(self, policy: Policy, temperatures: Sequence[float] | None = None) -> CascadeEngine:
        """Return an engine over the same stages with another policy; no certificate covers it.

        Args:
            policy: of these exits.
            temperatures: one for each exit; None: as they are.
        """
        exits = tuple(
            exit_.model_copy(update={"temperature": temperature})
            for exit_, temperature in zip(self.manifest.exits, temperatures or self._temperatures, strict=True)
        )
        manifest = self.manifest.model_copy(update={"policy": policy, "exits": exits, "certificate": None})
        return CascadeEngine(manifest, self._executor, self._modality)

    def preprocess(self, raw: Any) -> Inputs:
        """Turn raw examples into inputs; see ``Engine.preprocess``."""
        return self._modality.prepare(raw)

    def forced(self, inputs: Any, exit: int) -> Prediction:  # noqa: A002 - the field's word
        """Predict with all samples at one exit; see ``Engine.forced``."""
        exit_index = checked_exit_index(exit, self.exit_names)
        return self._prediction(self._forced(self._executor.checked(inputs), exit_index))

    def exits(self, inputs: Any) -> Float:
        """Return the outputs of every exit, float32 [E, B, ...]; no sample exits early."""
        inputs = self._executor.checked(inputs)
        if len(inputs) == 0:
            return np.empty((len(self._ends), 0, *self._task.output_shape), np.float32)
        return np.concatenate([self._exits(part) for part in self._parts(inputs)], axis=1)

    def signals(self, inputs: Any, temperatures: Sequence[float] | None = None) -> tuple[Signals, ...]:
        """Return the signals of every exit; see ``Engine.signals``."""
        inputs = self._executor.checked(inputs)
        chosen = self._temperatures if temperatures is None else checked_temperatures(temperatures, len(self._ends))
        if len(inputs) == 0:
            return (self.task.signals(np.empty((0, *self.task.output_shape), np.float32)),) * len(self._ends)
        parts = [self._signals(part, chosen) for part in self._parts(inputs)]
        return tuple(map(Signals.joined, zip(*parts, strict=True)))

    def __call__(self, inputs: Any, *, deadline_ms: float | None = None) -> Prediction:
        """Predict; samples exit by the policy. See ``Engine.__call__``."""
        due = None if deadline_ms is None else perf_counter_ns() + deadline_ms * 1e6
        inputs = self._executor.checked(inputs)
        if self._one_graph is not None and due is None and len(inputs) == 1:  # as it was timed
            return self._one_graph.run(inputs)
        last = len(self._ends) - 1
        if len(inputs) == 0 or (len(self._unused) == last and due is None):
            return self._prediction(self._forced(inputs, last, self._skipping))
        parts = self.rows_by_length(inputs) if due is None else []
        if len(parts) < 2:
            return self._prediction(self._routed(inputs, due))
        routed = _joined([self._routed(inputs[rows], due) for rows in parts])
        back = np.argsort(np.concatenate(parts))
        return self._prediction(RoutedOutputs(routed.outputs[back], routed.exit_index[back]))

    def rows_by_length(self, inputs: Inputs) -> list[npt.NDArray[np.int64]]:
        """Return the rows that a call without a deadline runs together, int64; see ``CostModel.parts``."""
        if len(inputs) == 1 or not self._varies:
            return [np.arange(len(inputs))]
        return self._cost_model.parts(inputs.lengths)

    def stepwise(self, further_thresholds: Iterable[Sequence[float]] = ()) -> Stepwise:
        """Return the stages one by one, for a scheduler that lets rows of several calls share them.

        Args:
            further_thresholds: that rows may exit by instead of the policy's; one for each exit but the last.

        Raises:
            UsageError: if the executor keeps the tensors of a call to itself.
        """
        if not isinstance(self._executor, ArrayExecutor):
            raise UsageError(
                f"The backend '{self.execution_target.backend}' runs all stages of a call at once.",
                allowed="a backend that takes and returns numpy arrays, such as onnxruntime",
                next_step="open the artifact with the backend onnxruntime",
            )
        taken = {k for thresholds in further_thresholds for k, threshold in enumerate(thresholds) if threshold <= 1}
        # without a policy all graphs are loaded; one that looks back needs the signals of all exits, or of none
        skips = self._policy is not None and not (taken and self._looks_back)
        unused = self._unused - taken if skips else frozenset[int]()
        headless = self._executor.without_heads(unused)
        return Stepwise(
            self._executor.stages, self._temperatures, self._policy, self._gates, headless=headless, unused=unused
        )

    def move_ms(self, exit_index: int) -> float | None:
        """Return the ms that compaction takes for one row after an exit; None: as long as numpy takes."""
        return self._executor.move_ms(exit_index)

    def _routed(self, inputs: Inputs, due: float | None) -> RoutedOutputs:
        return _joined([self._predicted(part, due) for part in self._parts(inputs)])

    def _predicted(self, inputs: Inputs, due: float | None) -> RoutedOutputs:
        batch, last = ActiveRows(len(inputs)), len(self._ends) - 1
        alone = len(inputs) == 1 and due is None  # then no time is predicted
        size = sample_size(self.manifest.inputs, inputs) if self._varies and not alone else 1
        # with a deadline samples may have to exit where no score reaches the threshold
        executor = self._skipping if due is None else self._executor
        with executor.start(inputs) as forward:
            for exit_index in range(last):
                forward.stage(exit_index)
                outputs = partial(forward.outputs, exit_index)
                if exit_index not in self._unused and batch.exit_early(
                    self._exiting(exit_index, forward, batch), outputs, exit_index
                ):
                    return _gathered(forward, batch, exit_index)
                compacts = batch.active < batch.allocated and self._cost_model.compaction_pays(
                    exit_index, batch.allocated, batch.active, size
                )
                rows = batch.active if compacts else batch.allocated
                if due is not None and self._late(due, exit_index + 1, rows, size):
                    return _gathered(forward, batch, exit_index)
                if compacts:
                    forward.compact(exit_index, batch.compact())
            forward.stage(last)
            return _gathered(forward, batch, last)

    def _prediction(self, routed: RoutedOutputs) -> Prediction:
        return self._task.prediction(*routed, self.exit_names, self._temperatures)

    def _late(self, due: float, exit_index: int, rows: int, size: int) -> bool:
        """Return whether a stage would end too late; one that is computed already never does (the layout ``all``)."""
        runs = self._ends[exit_index] > self._ends[exit_index - 1]
        return runs and perf_counter_ns() + 1e6 * self._cost_model.ms(exit_index, rows, size) > due

    def _exiting(self, exit_index: int, forward: ForwardPass, batch: ActiveRows) -> npt.NDArray[np.bool_]:
        """Return the mask of rows that exit, those that exited before included, bool [allocated]."""
        signals = forward.signals(exit_index, self._temperatures[exit_index])
        if self._looks_back:
            batch.signals.append(signals)
            return self._gates[exit_index](batch.signals)
        return self._gates[exit_index]((signals,))

    def _parts(self, inputs: Inputs) -> list[Inputs]:
        rows = len(inputs)
        largest = self._executor.largest or rows
        if rows <= largest:
            return [inputs]
        return [inputs[start : start + largest] for start in range(0, rows, largest)]

    def _exits(self, inputs: Inputs) -> Float:
        exits = []
        with self._executor.start(inputs) as forward:
            for exit_index in range(len(self._ends)):
                forward.stage(exit_index)
                exits.append(forward.outputs(exit_index))
            forward.finish()
            return np.stack([forward.copied(outputs) for outputs in exits])

    def _signals(self, inputs: Inputs, temperatures: Sequence[float]) -> list[Signals]:
        exits = []
        with self._executor.start(inputs) as forward:
            for exit_index, temperature in enumerate(temperatures):
                forward.stage(exit_index)
                exits.append(forward.signals(exit_index, temperature).map(np.array))
        return exits

    def _forced(self, inputs: Inputs, exit_index: int, executor: Executor | None = None) -> RoutedOutputs:
        if len(inputs) == 0:  # many graphs cannot run on nothing
            return RoutedOutputs.all_at(np.empty((0, *self._task.output_shape), np.float32), exit_index)
        executor = executor or self._executor
        return _joined(
            [RoutedOutputs.all_at(_outputs_at(executor, part, exit_index), exit_index) for part in self._parts(inputs)]
        )


def _never_taken(policy: Policy, *, history: bool) -> list[int]:
    """Return the exits before the last whose threshold no score reaches, unless a later one needs their signals."""
    unused = [k for k, threshold in enumerate(policy.thresholds) if threshold > 1]
    return unused if len(unused) == len(policy.thresholds) or not history else []


def _outputs_at(executor: Executor, inputs: Inputs, exit_index: int) -> Float:
    with executor.start(inputs) as forward:
        for earlier in range(exit_index + 1):
            forward.stage(earlier)
        outputs = forward.outputs(exit_index)
        forward.finish()
        return forward.copied(outputs)


def _gathered(forward: ForwardPass, batch: ActiveRows, exit_index: int) -> RoutedOutputs:
    outputs = forward.outputs(exit_index)
    forward.finish()
    return batch.gather(forward.copied(outputs) if batch.none_exited else outputs, exit_index)


def _joined(parts: Sequence[RoutedOutputs]) -> RoutedOutputs:
    if len(parts) == 1:
        return parts[0]
    return RoutedOutputs(*map(np.concatenate, zip(*parts, strict=True)))
