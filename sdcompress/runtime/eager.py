"""Run a checkpoint with torch behind the ``Engine`` interface, as the reference of its artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from sdcompress.checkpoint import Checkpoint, open_checkpoint
from sdcompress.errors import SetupError, UsageError, requires_extra
from sdcompress.machine import check_threads
from sdcompress.modalities import Inputs, Modality
from sdcompress.options import DEFAULT_OPTIONS, EngineOptions
from sdcompress.policies._base import Float, Signals
from sdcompress.runtime.engine import ExitCost, Prediction, checked_exit_index, checked_temperatures
from sdcompress.schema.manifest import Policy
from sdcompress.tasks import Task

if TYPE_CHECKING:
    from sdcompress.models.multiexit import MultiExit

__all__ = ["EagerEngine", "open_eager"]


def open_eager(source: Checkpoint | Path | str, options: EngineOptions = DEFAULT_OPTIONS) -> EagerEngine:
    """Open a checkpoint.

    Args:
        source: a checkpoint, its folder, or that of a training run.
        options: ``threads`` are set for torch in the whole process; None does not change them.

    Raises:
        CheckpointError: if the checkpoint is not intact.
        UsageError: if it names a module that is not trusted.
        MissingExtraError: if torch is not installed.
        SetupError: if torch has no such device here.
        UsageError: if threads is below 1 or more than this machine runs at once.
    """
    threads, device = options.threads, options.device or "cpu"
    if threads is not None:
        check_threads(threads)
    checkpoint = open_checkpoint(source)
    with requires_extra("train"):
        import torch
    usable = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    if device not in usable:
        raise SetupError(
            f"torch has no device '{device}' here.", allowed=", ".join(usable), next_step="use the device 'cpu'"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    return EagerEngine(checkpoint, checkpoint.network(trust_modules=options.trust_modules).to(device))


class EagerEngine:
    """An ``Engine`` over a checkpoint. Every call runs the whole network; no sample exits early.

    Calls from several threads are safe and wait for each other.

    Args:
        checkpoint: of the network.
        network: in evaluation mode, on its device.
    """

    def __init__(self, checkpoint: Checkpoint, network: MultiExit) -> None:
        self._checkpoint, self._network, self._lock = checkpoint, network, Lock()

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Return the names of the E exits, shallow to deep."""
        return self._network.exit_names

    @property
    def task(self) -> Task:
        """Return the task, the meaning of the outputs."""
        return self._checkpoint.task

    @property
    def modality(self) -> Modality:
        """Return the modality of the inputs."""
        return self._checkpoint.modality

    @property
    def policy(self) -> Policy | None:
        """Return None: a checkpoint has no policy."""
        return None

    @property
    def exit_costs(self) -> tuple[ExitCost, ...]:
        """Return the cost of the network truncated at each exit, without the heads before it."""
        from sdcompress.models.cost import costs

        with self._lock:
            exit_costs = costs(self._network, self.modality.tensors)
        return tuple(ExitCost(cost.macs, cost.parameters) for cost in exit_costs)

    def preprocess(self, raw: Any) -> Inputs:
        """Turn raw examples into inputs; see ``Engine.preprocess``."""
        return self.modality.prepare(raw)

    def exits(self, inputs: Any) -> Float:
        """Return the outputs of every exit, float32 [E, B, ...]."""
        import torch

        checked = self.modality.check(inputs)
        if len(checked) == 0:  # many networks cannot run on nothing
            return np.empty((len(self.exit_names), 0, *self.task.output_shape), np.float32)
        arrays = checked.arrays.values()
        device = next(self._network.parameters()).device
        with self._lock, torch.inference_mode():
            tensors = [
                torch.from_numpy(array if array.flags.writeable else array.copy()).to(device) for array in arrays
            ]
            outputs = self._network(*tensors).logits
        return np.stack([exit_.float().cpu().numpy() for exit_ in outputs])

    def forced(self, inputs: Any, exit: int) -> Prediction:  # noqa: A002 - the field's word
        """Run all of the network and take this exit's outputs; see ``Engine.forced``."""
        exit_index = checked_exit_index(exit, self.exit_names)
        outputs = self.exits(inputs)[exit_index]
        return self.task.prediction(outputs, np.full(len(outputs), exit_index, np.int64), self.exit_names)

    def signals(self, inputs: Any, temperatures: Sequence[float] | None = None) -> tuple[Signals, ...]:
        """Return the signals of every exit; see ``Engine.signals``."""
        exits = len(self.exit_names)
        chosen = (1.0,) * exits if temperatures is None else checked_temperatures(temperatures, exits)
        return tuple(map(self.task.signals, self.exits(inputs), chosen))

    def __call__(self, inputs: Any, *, deadline_ms: float | None = None) -> Prediction:
        """Predict with the last exit. A deadline is refused, because the whole network always runs."""
        if deadline_ms is not None:
            raise UsageError(
                "The network of a checkpoint always runs whole, so it cannot keep a deadline.",
                allowed="deadline_ms=None",
                next_step="export the checkpoint with the layout 'cascade' and open that",
            )
        return self.forced(inputs, -1)
