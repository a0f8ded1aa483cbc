"""Run the checkpoint on real images, for the parity gate, the golden samples and its scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sdcompress.data.lengths import sorted_by_length
from sdcompress.data.samples import Dataset, Samples, Subset
from sdcompress.errors import DataError
from sdcompress.modalities import Modality
from sdcompress.tasks import metric_of
from sdcompress.verification.edge_cases import EdgeCases, edge_case_inputs, perturbed

__all__ = ["Reference", "edge_case_outputs", "held_out", "reference"]

_BATCH = 64


@dataclass(frozen=True)
class Reference:
    """The checkpoint's outputs for the examples of the gate, and its scores on the validation split.

    Attributes:
        examples: [N, ...].
        targets: [N, ...].
        outputs: float32 [E, N, ...].
        scores: of each exit on the whole validation split, by name; empty where that is empty.
    """

    examples: np.ndarray
    targets: np.ndarray
    outputs: np.ndarray
    scores: tuple[dict[str, float], ...]


def reference(net: nn.Module, dataset: Dataset, *, samples: int, advance: Callable[[int], None]) -> Reference:
    """Run the checkpoint's network on the validation split, and on test samples if that is too small.

    Args:
        net: the inputs, in the order of the modality -> E tensors [B, ...], in evaluation mode, on the CPU.
        dataset: its data.
        samples: number of samples for the gate, evenly spaced over the validation split; all, where there are fewer.
        advance: called with the number of samples that were run.

    Raises:
        DataError: if neither validation nor test has a sample.
    """
    samples, task, modality = min(samples, held_out(dataset)), dataset.task, dataset.modality
    sources: list[tuple[Samples, np.ndarray]] = []
    scores: list[dict[str, float]] = []
    if from_val := min(samples, len(dataset.val)):
        val_outputs = _outputs(net, dataset.val, modality, advance)
        targets = dataset.val.targets
        losses = [task.loss(task.decide(each), targets) for each in val_outputs]
        scores = [
            {task.metric: metric_of(loss), **task.summary(task.measures(each, targets))}
            for loss, each in zip(losses, val_outputs, strict=True)
        ]
        chosen = _spread(len(dataset.val), from_val)
        sources.append((Subset(dataset.val, chosen), val_outputs[:, chosen]))
    if from_val < samples:
        test = Subset(dataset.test, _spread(len(dataset.test), samples - from_val))
        sources.append((test, _outputs(net, test, modality, advance)))
    outputs = np.concatenate([source for _, source in sources], axis=1)
    return Reference(
        examples=np.concatenate([source.examples(np.arange(len(source))) for source, _ in sources]),
        targets=np.concatenate([source.targets for source, _ in sources]),
        outputs=outputs,
        scores=tuple(scores) or ({},) * len(outputs),
    )


def edge_case_outputs(net: nn.Module, exits: Sequence[str], modality: Modality) -> EdgeCases:
    """The checkpoint's outputs for the modality's edge cases.

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


def held_out(dataset: Dataset) -> int:
    """The number of held-out images that an export can be compared on.

    Raises:
        DataError: if there is none.
    """
    count = len(dataset.val) + len(dataset.test)
    if count == 0:
        raise DataError(
            f"'{dataset.name}' holds out no image: its validation and test splits are empty.",
            allowed="at least one image: an export is compared with the checkpoint on images that were not trained on",
            next_step="raise data.validation in the recipe before the training",
        )
    return count


def _outputs(net: nn.Module, samples: Samples, modality: Modality, advance: Callable[[int], None]) -> np.ndarray:
    """The network's outputs for all samples, float32 [E, N, ...]."""
    batches, (samples, back) = [], sorted_by_length(samples, modality)
    for start in range(0, len(samples), _BATCH):
        examples = samples.examples(np.arange(start, min(start + _BATCH, len(samples))))
        batches.append(torch.stack(_run(net, modality.ordered(modality.collate(examples)))).float())
        advance(len(examples))
    return np.asarray(torch.cat(batches, dim=1))[:, back]


def _run(net: nn.Module, inputs: Sequence[np.ndarray]) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode():
        return tuple(net(*map(torch.from_numpy, inputs)))


def _spread(length: int, count: int) -> npt.NDArray[np.int64]:
    return np.asarray(np.linspace(0, length - 1, count).round(), np.int64)
