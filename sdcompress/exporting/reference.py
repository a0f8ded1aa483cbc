"""What the checkpoint itself says of real images: yardstick of the parity gate, golden samples and scores."""

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
from sdcompress.verification.hard_images import HardLogits, hard_images, nudged

__all__ = ["Reference", "hard_logits", "held_out", "reference"]

_BATCH = 64


@dataclass(frozen=True)
class Reference:
    """The checkpoint's logits on the images of the gate, and its scores on the validation split.

    Attributes:
        images: uint8 [N, H, W, C].
        labels: int64 [N].
        logits: float32 [E, N, K].
        accuracy: of each exit on the whole validation split; None where that is empty.
        ece: likewise.
    """

    images: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    accuracy: tuple[float | None, ...]
    ece: tuple[float | None, ...]


def reference(net: nn.Module, dataset: Dataset, *, samples: int, tick: Callable[[int], None]) -> Reference:
    """Run the checkpoint's network over the validation split, and over test images where that is too small.

    Args:
        net: images [B, C, H, W] -> E tensors [B, K], in evaluation mode, on the CPU.
        dataset: its data.
        samples: images that the gate asks for; spread evenly over the validation split. All, where there are fewer.
        tick: told how many images were done.

    Raises:
        DataError: if neither validation nor test has an image.
    """
    samples = min(samples, held_out(dataset))
    parts: list[tuple[Samples, np.ndarray]] = []
    scores: list[tuple[float | None, float | None]] = []
    if from_val := min(samples, len(dataset.val)):
        everything = _logits(net, dataset.val, dataset.preprocess, tick)
        scores = [_score(logits, dataset.val.labels) for logits in everything]
        chosen = _spread(len(dataset.val), from_val)
        parts.append((Subset(dataset.val, chosen), everything[:, chosen]))
    if from_val < samples:
        test = Subset(dataset.test, _spread(len(dataset.test), samples - from_val))
        parts.append((test, _logits(net, test, dataset.preprocess, tick)))
    logits = np.concatenate([part for _, part in parts], axis=1)
    scores = scores or [(None, None)] * len(logits)
    return Reference(
        images=np.concatenate([part.images(np.arange(len(part))) for part, _ in parts]),
        labels=np.concatenate([part.labels for part, _ in parts]),
        logits=logits,
        accuracy=tuple(accuracy for accuracy, _ in scores),
        ece=tuple(ece for _, ece in scores),
    )


def hard_logits(
    net: nn.Module, exits: Sequence[str], image: tuple[int, int, int], preprocess: Preprocess
) -> HardLogits:
    """The checkpoint's logits on images that are blank, saturated or noise.

    Args:
        net: images [B, C, H, W] -> E tensors [B, K], in evaluation mode, on the CPU.
        exits: E names.
        image: C, H, W.
        preprocess: of the network's input.
    """
    channels, height, width = image
    images = hard_images(height, width, channels)
    inputs = normalise(images, preprocess)
    with torch.inference_mode():
        logits, near = ([one.float().numpy() for one in net(torch.from_numpy(x))] for x in (inputs, nudged(inputs)))
    return HardLogits(images, dict(zip(exits, logits, strict=True)), dict(zip(exits, near, strict=True)))


def held_out(dataset: Dataset) -> int:
    """How many images there are to prove an export on.

    Raises:
        DataError: if there is none.
    """
    count = len(dataset.val) + len(dataset.test)
    if count == 0:
        raise DataError(
            f"'{dataset.name}' holds out no image: its validation and test splits are empty.",
            allowed="at least one image: an export is proved on real images that were not trained on",
            next_step="raise data.validation in the recipe before the training",
        )
    return count


def _logits(net: nn.Module, samples: Samples, preprocess: Preprocess, tick: Callable[[int], None]) -> np.ndarray:
    """The network's logits on all samples, float32 [E, N, K]."""
    batches = []
    for at in range(0, len(samples), _BATCH):
        images = samples.images(np.arange(at, min(at + _BATCH, len(samples))))
        with torch.inference_mode():
            batches.append(torch.stack(tuple(net(torch.from_numpy(normalise(images, preprocess))))).float())
        tick(len(images))
    return np.asarray(torch.cat(batches, dim=1))


def _spread(length: int, count: int) -> npt.NDArray[np.int64]:
    return np.asarray(np.linspace(0, length - 1, count).round(), np.int64)


def _score(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    return metrics.accuracy(logits, labels), metrics.ece(metrics.softmax(logits), labels)
