"""Run the checkpoint on real samples, for the parity gate, the golden samples and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sdcompress.data.samples import Dataset, Samples, Subset, row_batches
from sdcompress.errors import DataError
from sdcompress.evaluation.exit_outcomes import Measured
from sdcompress.modalities import Modality
from sdcompress.verification.edge_cases import EdgeCases, edge_case_inputs, perturbed

__all__ = ["CheckpointOutputs", "edge_case_outputs", "gate_samples", "held_out", "reference"]

_BATCH = 64  # samples at a time, fewer where the outputs of four exits need too much memory
_EXITS = 4
_GATE_BATCHES = 4  # a gate holds the outputs of so many batches, see Task.batch_size,
_LEAST_GATE_SAMPLES = 8  # and of so many samples even if they are larger


@dataclass(frozen=True)
class CheckpointOutputs:
    """The checkpoint's outputs for the examples of the gate, and its metrics on the validation split.

    Attributes:
        examples: [N, ...].
        targets: [N, ...].
        outputs: float32 [E, N, ...].
        metrics: of each exit on the whole validation split, by name; empty where that is empty.
    """

    examples: np.ndarray
    targets: np.ndarray
    outputs: np.ndarray
    metrics: tuple[dict[str, float], ...]


def reference(net: nn.Module, dataset: Dataset, *, samples: int, advance: Callable[[int], None]) -> CheckpointOutputs:
    """Run the checkpoint's network on the validation split, and on test samples if that is too small.

    Args:
        net: the inputs, in the order of the modality -> E tensors [B, ...], in evaluation mode, on the CPU.
        dataset: its data.
        samples: number of samples for the gate, evenly spaced over the validation split; all, where there are fewer.
        advance: called with the number of samples that were run.

    Raises:
        DataError: if neither validation nor test has a sample.
    """
    samples = min(samples, held_out(dataset))
    parts: list[tuple[Samples, np.ndarray]] = []
    metrics: tuple[dict[str, float], ...] = ()
    if from_val := min(samples, len(dataset.val)):
        chosen = _spread(len(dataset.val), from_val)
        outputs, metrics = _run_split(net, dataset.val, chosen, dataset, advance)
        parts.append((Subset(dataset.val, chosen), outputs))
    if from_val < samples:
        test = Subset(dataset.test, _spread(len(dataset.test), samples - from_val))
        outputs, _ = _run_split(net, test, np.arange(len(test)), dataset, advance)
        parts.append((test, outputs))
    outputs = np.concatenate([each for _, each in parts], axis=1)
    return CheckpointOutputs(
        examples=np.concatenate([source.examples(np.arange(len(source))) for source, _ in parts]),
        targets=np.concatenate([source.targets for source, _ in parts]),
        outputs=outputs,
        metrics=metrics or ({},) * len(outputs),
    )


def edge_case_outputs(net: nn.Module, exits: Sequence[str], modality: Modality) -> EdgeCases:
    """Return the checkpoint's outputs for the modality's edge cases.

    Args:
        net: the inputs, in the order of the modality -> E tensors [B, ...], in evaluation mode, on the CPU.
        exits: E names.
        modality: of the network.
    """
    kinds, inputs = edge_case_inputs(modality)
    outputs, shifted = (
        dict(zip(exits, (output.float().numpy() for output in _run(net, modality.ordered(batch))), strict=True))
        for batch in (inputs, perturbed(inputs))
    )
    return EdgeCases(kinds, inputs, outputs, shifted)


def gate_samples(dataset: Dataset, requested: int, exits: int) -> int:
    """Return how many samples an export is compared on: at most those requested, held out, and fitting into memory.

    Args:
        dataset: of the network.
        requested: by the recipe.
        exits: of the network.

    Raises:
        DataError: if there is none.
    """
    return min(
        requested,
        held_out(dataset),
        max(_LEAST_GATE_SAMPLES, dataset.task.batch_size(requested, exits) * _GATE_BATCHES),
    )


def held_out(dataset: Dataset) -> int:
    """Return the number of held-out samples that an export can be compared on.

    Raises:
        DataError: if there is none.
    """
    count = len(dataset.val) + len(dataset.test)
    if count == 0:
        raise DataError(
            f"'{dataset.name}' holds out no sample: its validation and test splits are empty.",
            allowed="at least one: an export is compared with the checkpoint on samples that were not trained on",
            next_step="raise data.validation in the recipe before the training",
        )
    return count


def _run_split(
    net: nn.Module, samples: Samples, chosen: npt.NDArray[np.int64], dataset: Dataset, advance: Callable[[int], None]
) -> tuple[np.ndarray, tuple[dict[str, float], ...]]:
    """Run all samples; return the outputs of the chosen ones, float32 [E, n, ...], and the metrics of each exit on all.

    No other outputs are held for more than one batch.
    """
    task, modality, kept, measured = dataset.task, dataset.modality, [], []
    for rows in row_batches(len(samples), task.batch_size(_BATCH, _EXITS)):
        arrays = modality.ordered(modality.collate(samples.examples(rows)))
        outputs = np.asarray(torch.stack(_run(net, arrays)).float())
        kept.append(outputs[:, np.isin(rows, chosen)])
        measured.append([Measured.of(task, each, samples.targets[rows]) for each in outputs])
        advance(len(rows))
    metrics = tuple(Measured.joined(parts).metrics(task) for parts in zip(*measured, strict=True))
    return np.concatenate(kept, axis=1), metrics


def _run(net: nn.Module, inputs: Sequence[np.ndarray]) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode():
        return tuple(net(*map(torch.from_numpy, inputs)))


def _spread(length: int, count: int) -> npt.NDArray[np.int64]:
    return np.asarray(np.linspace(0, length - 1, count).round(), np.int64)
