"""Run the checkpoint on real images, for the parity gate, the golden samples and its scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sdcompress.data.samples import Dataset, Samples, Subset
from sdcompress.errors import DataError
from sdcompress.modalities._geometry import normalise
from sdcompress.schema.manifest import Preprocess
from sdcompress.tasks import _probabilities as metrics
from sdcompress.verification.edge_cases import EdgeCaseLogits, edge_case_images, perturbed

__all__ = ["Reference", "edge_case_logits", "held_out", "reference"]

_BATCH = 64


@dataclass(frozen=True)
class Reference:
    """The checkpoint's logits on the images of the gate, and its scores on the validation split.

    Attributes:
        images: uint8 [N, H, W, C].
        labels: int64 [N].
        logits: float32 [E, N, K].
        accuracy: of each exit on the whole validation split; None where that is empty.
        ece: likewise, the expected calibration error.
    """

    images: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    accuracy: tuple[float | None, ...]
    ece: tuple[float | None, ...]


def reference(net: nn.Module, dataset: Dataset, *, samples: int, advance: Callable[[int], None]) -> Reference:
    """Run the checkpoint's network on the validation split, and on test images if that is too small.

    Args:
        net: images [B, C, H, W] -> E tensors [B, K], in evaluation mode, on the CPU.
        dataset: its data.
        samples: images for the gate, evenly spaced in the validation split; all if there are fewer.
        advance: called with the number of images that were run.

    Raises:
        DataError: if neither validation nor test has an image.
    """
    samples = min(samples, held_out(dataset))
    sources: list[tuple[Samples, np.ndarray]] = []
    scores: list[tuple[float | None, float | None]] = []
    if from_val := min(samples, len(dataset.val)):
        val_logits = _logits(net, dataset.val, dataset.preprocess, advance)
        scores = [_score(logits, dataset.val.targets) for logits in val_logits]
        chosen = _spread(len(dataset.val), from_val)
        sources.append((Subset(dataset.val, chosen), val_logits[:, chosen]))
    if from_val < samples:
        test = Subset(dataset.test, _spread(len(dataset.test), samples - from_val))
        sources.append((test, _logits(net, test, dataset.preprocess, advance)))
    logits = np.concatenate([source for _, source in sources], axis=1)
    scores = scores or [(None, None)] * len(logits)
    return Reference(
        images=np.concatenate([source.examples(np.arange(len(source))) for source, _ in sources]),
        labels=np.concatenate([source.targets for source, _ in sources]),
        logits=logits,
        accuracy=tuple(accuracy for accuracy, _ in scores),
        ece=tuple(ece for _, ece in scores),
    )


def edge_case_logits(
    net: nn.Module, exits: Sequence[str], image: tuple[int, int, int], preprocess: Preprocess
) -> EdgeCaseLogits:
    """The checkpoint's logits on blank, saturated and noisy images.

    Args:
        net: images [B, C, H, W] -> E tensors [B, K], in evaluation mode, on the CPU.
        exits: E names.
        image: C, H, W.
        preprocess: of the network's input.
    """
    channels, height, width = image
    images = edge_case_images(height, width, channels)
    inputs = normalise(images, preprocess)
    with torch.inference_mode():
        logits, moved = (
            {name: output.float().numpy() for name, output in zip(exits, net(torch.from_numpy(x)), strict=True)}
            for x in (inputs, perturbed(inputs))
        )
    return EdgeCaseLogits(images, logits, moved)


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


def _logits(net: nn.Module, samples: Samples, preprocess: Preprocess, advance: Callable[[int], None]) -> np.ndarray:
    """The network's logits on all samples, float32 [E, N, K]."""
    batches = []
    for at in range(0, len(samples), _BATCH):
        images = samples.examples(np.arange(at, min(at + _BATCH, len(samples))))
        with torch.inference_mode():
            batches.append(torch.stack(tuple(net(torch.from_numpy(normalise(images, preprocess))))).float())
        advance(len(images))
    return np.asarray(torch.cat(batches, dim=1))


def _spread(length: int, count: int) -> npt.NDArray[np.int64]:
    return np.asarray(np.linspace(0, length - 1, count).round(), np.int64)


def _score(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    return metrics.accuracy(logits, labels), metrics.ece(metrics.softmax(logits), labels)
