"""What is remembered from past steps: buffers, so that a resumed run remembers the same.

A memory is one call that first recalls, then remembers. It never waits for the device. With several processes each
step's predictions are gathered, so every process holds the same table; all of them must then have batches of one size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

__all__ = ["ClassMemory", "LastBatch", "RisingTemperature", "SampleMemory"]


class SampleMemory(nn.Module):
    """The last prediction for every training sample, keyed by its position: ``4 N K`` bytes (CIFAR-100: 20 MB).

    Args:
        samples: N, of the training split.
        classes: K.
    """

    table: Tensor

    def __init__(self, samples: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(samples, classes))

    @torch.no_grad()
    def forward(self, index: Tensor, predictions: Tensor, unseen: Tensor) -> Tensor:
        """Recall what was predicted when these samples were last seen, then remember what is predicted now.

        Args:
            index: int64 [B], positions in the training split; of one that is there twice the first is remembered.
            predictions: [B, K] probabilities of this step.
            unseen: [B, K] probabilities to recall for samples that were never seen.

        Returns:
            [B, K] probabilities.
        """
        past = self.table[index]
        seen = past.sum(1, keepdim=True) > 0  # a row of probabilities sums to 1, an empty one to 0
        everyone, now = _from_all(index), _from_all(predictions.detach().to(self.table.dtype))
        # which of two writes to one place comes last is not determined, so both write the same
        first = (everyone[:, None] == everyone[None]).int().argmax(1)
        self.table[everyone] = now[first]
        return torch.where(seen, past, unseen.to(past.dtype))


class ClassMemory(nn.Module):
    """Online label smoothing: per class, the mean correct prediction of the epoch before (arXiv 2011.12562).

    The label itself for a class that had no correct prediction, and in the first epoch: nothing better is known of it.

    Args:
        classes: K.
    """

    labels: Tensor
    sums: Tensor
    epoch: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("labels", torch.eye(classes))
        self.register_buffer("sums", torch.zeros(classes, classes))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, labels: Tensor, predictions: Tensor, epoch: int) -> Tensor:
        """Recall the soft labels of these samples' classes, then count this step's correct predictions.

        Args:
            labels: int64 [B].
            predictions: [B, K] probabilities of this step.
            epoch: whole epochs done; when it grows, what was counted becomes the soft labels.

        Returns:
            [B, K] probabilities.
        """
        self._turn(epoch)
        everyone, chosen = _from_all(predictions.detach().to(self.sums.dtype)), _from_all(labels)
        correct = everyone.argmax(1) == chosen
        # A product instead of a scatter: its sum has one order, so a rerun gives the same bits.
        self.sums += F.one_hot(chosen, len(self.labels)).to(self.sums.dtype).T @ (everyone * correct.unsqueeze(1))
        return self.labels[labels]

    def _turn(self, epoch: int) -> None:
        """At a new epoch, take what was counted; written without a branch, which would wait for the device."""
        new = self.epoch != epoch
        mass = self.sums.sum(1, keepdim=True)
        one_hot = torch.eye(len(mass), dtype=mass.dtype, device=mass.device)
        fresh = torch.where(mass > 0, self.sums / mass.clamp_min(torch.finfo(mass.dtype).tiny), one_hot)
        self.labels.copy_(torch.where(new, fresh, self.labels))
        self.sums.mul_(~new)
        self.epoch.fill_(epoch)


class LastBatch(nn.Module):
    """The outputs for the batch before, keyed by position in the training split: ``4 B K`` bytes.

    Args:
        batch: B, samples of a batch over all processes.
        shape: of one sample's outputs, such as (K,).
    """

    index: Tensor
    logits: Tensor

    def __init__(self, batch: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("index", torch.full((batch,), -1, dtype=torch.int64))
        self.register_buffer("logits", torch.zeros(batch, *shape))

    @torch.no_grad()
    def forward(self, wanted: Tensor, otherwise: Tensor, index: Tensor, logits: Tensor) -> Tensor:
        """Recall the outputs for some samples in the batch before, then remember this batch.

        Args:
            wanted: int64 [b], positions to recall.
            otherwise: [b, ...], outputs to give for those that were not in it.
            index: int64 [b], positions of this batch.
            logits: [b, ...], outputs of this batch.

        Returns:
            [b, ...] outputs.
        """
        same = wanted[:, None] == self.index[None]
        known = same.any(1).view(-1, *[1] * (otherwise.dim() - 1))
        recalled = torch.where(known, self.logits[same.int().argmax(1)], otherwise.detach())
        everyone = _from_all(index)
        self.index.fill_(-1)
        self.index[: len(everyone)] = everyone
        self.logits[: len(everyone)] = _from_all(logits.detach().to(self.logits.dtype))
        return recalled


class RisingTemperature(nn.Module):
    """A temperature that starts at 1 and rises while the softened teacher is sure (Phuong and Lampert, ICCV 2019).

    Args:
        factor: by which it rises.
        confidence: mean largest probability above which it does.
    """

    temperature: Tensor
    step: Tensor
    confidences: Tensor
    parts: Tensor

    def __init__(self, factor: float, confidence: float) -> None:
        super().__init__()
        self._factor, self._confidence = factor, confidence
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("step", torch.full((), -1, dtype=torch.int64))
        self.register_buffer("confidences", torch.zeros(()))
        self.register_buffer("parts", torch.zeros(()))

    @torch.no_grad()
    def forward(self, teacher: Tensor, step: int) -> Tensor:
        """Return the temperature of this step, a scalar; then look at how sure the teacher is at it.

        Args:
            teacher: [B, K] logits.
            step: it belongs to; the parts of one step have one temperature.
        """
        new = self.step != step
        sure = self.confidences > self._confidence * self.parts  # the mean over the parts of the step before
        self.temperature.mul_(torch.where(new & sure, self._factor, 1.0))
        confidence = F.softmax(_from_all(teacher) / self.temperature, dim=1).amax(1).mean()
        self.confidences.mul_(~new).add_(confidence)
        self.parts.mul_(~new).add_(1)
        self.step.fill_(step)
        return self.temperature.clone()


def _from_all(tensor: Tensor) -> Tensor:
    """Return the tensors of all processes, joined along the batch; the tensor itself in a single process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
