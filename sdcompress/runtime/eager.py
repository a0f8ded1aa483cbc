"""The yardstick: a checkpoint run by torch, behind the same calls as an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from sdcompress.checkpoint import Checkpoint, open_checkpoint
from sdcompress.errors import SetupError, UsageError, requires_extra
from sdcompress.machine import check_threads
from sdcompress.modalities import Modality
from sdcompress.policies._base import Float, Signals
from sdcompress.runtime.engine import ExitCost, Images, Names, Prediction
from sdcompress.runtime.inputs import checked, checked_temperatures, exit_position, prepared
from sdcompress.schema.manifest import Policy, Preprocess
from sdcompress.tasks import Task

if TYPE_CHECKING:
    from sdcompress.models.multiexit import MultiExit

__all__ = ["EagerEngine", "open_eager"]


def open_eager(
    path: Path | str, *, threads: int | None = None, device: str = "cpu", trust_modules: bool = False
) -> EagerEngine:
    """Open a checkpoint.

    Args:
        path: a checkpoint, or the folder of a training run.
        threads: torch's, which are those of the whole process; None leaves them as they are.
        device: "cpu" or "cuda".
        trust_modules: import the module that the checkpoint names, see ``Checkpoint.network``.

    Raises:
        CheckpointError: if the checkpoint is not intact.
        UsageError: if it names a module that is not trusted.
        MissingExtraError: if torch is not installed.
        SetupError: if torch has no such device here.
        UsageError: if threads is below 1 or more than this machine runs at once.
    """
    if threads is not None:
        check_threads(threads)
    checkpoint = open_checkpoint(path)
    with requires_extra("train"):
        import torch
    usable = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    if device not in usable:
        raise SetupError(
            f"torch has no device '{device}' here.", allowed=", ".join(usable), next_step="use the device 'cpu'"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    return EagerEngine(checkpoint, checkpoint.network(trust_modules=trust_modules).to(device))


class EagerEngine:
    """A checkpoint's network in evaluation mode. Every call runs the whole network; nobody leaves by itself.

    Calls from several threads are safe and wait for each other: a network with exits serves one at a time.

    Args:
        checkpoint: where the network comes from.
        network: in evaluation mode, on its device.
    """

    def __init__(self, checkpoint: Checkpoint, network: MultiExit) -> None:
        self._checkpoint, self._network, self._lock = checkpoint, network, Lock()

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Names of the E exits, shallow to deep."""
        return self._network.exit_names

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self._checkpoint.classes

    @property
    def image(self) -> tuple[int, int, int]:
        """C, H, W of the inputs."""
        return self._checkpoint.image

    @property
    def preprocess_spec(self) -> Preprocess:
        """From any image to an input."""
        return self._checkpoint.preprocess

    @property
    def task(self) -> Task:
        """What its outputs mean."""
        return self._checkpoint.task

    @property
    def modality(self) -> Modality:
        """What it is given."""
        return self._checkpoint.modality

    @property
    def policy(self) -> Policy | None:
        """A checkpoint has none."""
        return None

    @property
    def exit_costs(self) -> tuple[ExitCost, ...]:
        """The cost of the network pruned to each exit: without the heads before it, which nobody would run."""
        from sdcompress.models.cost import costs

        with self._lock:
            found = costs(self._network, self.modality.tensors)
        return tuple(ExitCost(cost.macs, cost.parameters) for cost in found)

    def preprocess(self, images: Images) -> Float:
        """Turn images into inputs; see ``Engine.preprocess``."""
        return prepared(images, self.preprocess_spec, self.image)

    def exits(self, inputs: Float) -> Float:
        """The logits of every exit, float32 [E, B, K]."""
        import torch

        inputs = checked(inputs, self.image)
        device = next(self._network.parameters()).device
        with self._lock, torch.inference_mode():
            images = torch.from_numpy(inputs if inputs.flags.writeable else inputs.copy()).to(device)
            logits = self._network(images).logits
        return np.stack([exit_.float().cpu().numpy() for exit_ in logits])

    def forced(self, inputs: Float, exit: int) -> Prediction:  # noqa: A002 - the field's word
        """Run all of the network and take this exit's logits; see ``Engine.forced``."""
        position = exit_position(exit, self.exit_names)
        names = Names(self.classes, self.exit_names, (1.0,) * len(self.exit_names))
        return Prediction(self.exits(inputs)[position], np.full(len(inputs), position, np.int64), names)

    def signals(self, inputs: Float, temperatures: Sequence[float] | None = None) -> tuple[Signals, ...]:
        """What an exit policy would judge by; see ``Engine.signals``."""
        exits = len(self.exit_names)
        chosen = (1.0,) * exits if temperatures is None else checked_temperatures(temperatures, exits)
        return tuple(map(self.task.signals, self.exits(inputs), chosen))

    def __call__(self, inputs: Float, *, deadline_ms: float | None = None) -> Prediction:
        """Predict with the last exit; a deadline cannot be kept, because the network always runs whole."""
        if deadline_ms is not None:
            raise UsageError(
                "A checkpoint's network always runs whole: it keeps no deadline.",
                allowed="deadline_ms=None",
                next_step="export the checkpoint with the layout 'cascade' and open that",
            )
        return self.forced(inputs, -1)
