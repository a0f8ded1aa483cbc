"""The order of the data: which images make which step, in which process, fetched ahead where that pays.

A step is made of ``parts`` batches, whose gradients are added up. Every order is drawn from (seed, epoch) and every
companion from (seed, epoch, step), for all processes alike: each takes its own share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sdcompress.data.samples import Labels, Samples
from sdcompress.errors import RecipeError
from sdcompress.training.balance import balanced_order
from sdcompress.training.randomness import permutation

__all__ = ["Batches", "Fetch", "RawBatch", "host", "resident"]

_COMPANIONS = 1  # not 0: a seed with zeros behind it is the seed without them


@dataclass(frozen=True)
class RawBatch:
    """One process's share of a batch, before augmentation.

    Attributes:
        index: int64 [b], positions in the training split.
        images: uint8 [b, H, W, C].
        labels: int64 [b].
        second: the companions, where the method sees further samples.
    """

    index: Tensor
    images: Tensor
    labels: Tensor
    second: RawBatch | None = None


Fetch = Callable[[Labels], RawBatch]


def host(samples: Samples, *, pin: bool = False) -> Fetch:
    """Fetch from where the samples are.

    Args:
        samples: the training split.
        pin: into memory that a GPU can copy from while it computes.
    """

    def fetch(index: Labels) -> RawBatch:
        chosen, images, labels = (
            tensor.pin_memory() if pin else tensor
            for tensor in map(torch.from_numpy, (index, samples.examples(index), samples.targets[index]))
        )
        return RawBatch(chosen, images, labels)

    return fetch


def resident(samples: Samples, device: torch.device) -> Fetch:
    """Put all images on the device once, as uint8, and fetch them there.

    Args:
        samples: the training split.
        device: where it has room for them.
    """
    labels = torch.from_numpy(samples.targets).to(device)
    # in pieces: all at once would be twice in the memory of the host
    pieces = np.array_split(np.arange(len(samples)), max(1, len(samples) // 4096))
    images = torch.cat([torch.from_numpy(samples.examples(piece)).to(device) for piece in pieces])

    def fetch(index: Labels) -> RawBatch:
        chosen = torch.from_numpy(index).to(device, non_blocking=True)
        return RawBatch(chosen, images[chosen], labels[chosen])

    return fetch


class Batches:
    """The steps of an epoch in a seeded order.

    The images that do not fill a last step are left out of this epoch; the next epoch has another order.

    Args:
        fetch: gives the images at some positions.
        labels: int64 [N], of the training split.
        batch_size: images a step, over all processes and parts.
        seed: of the order.
        rank: this process.
        world: number of processes.
        parts: batches of a step.
        companions: ``own`` for none; ``same_class`` for another sample of each one's class; ``previous`` for the batch
            before (for the very first one itself).
        workers: threads that fetch ahead; 0 fetches in the step.
        sampling: ``shuffled``: every image once an epoch; ``balanced``: every class as often.

    Attributes:
        size: images of a batch, over all processes.
        steps_per_epoch: steps.

    Raises:
        RecipeError: if the batch does not divide over the processes and parts, or there are fewer images than these.
    """

    def __init__(
        self,
        fetch: Fetch,
        labels: Labels,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        parts: int = 1,
        companions: Literal["own", "same_class", "previous"] = "own",
        workers: int = 0,
        sampling: Literal["shuffled", "balanced"] = "shuffled",
    ) -> None:
        shares = world * parts
        if batch_size % shares:
            raise RecipeError(
                f"train.batch_size is {batch_size}, which does not divide over {world} processes x "
                f"train.accumulate {parts}.",
                allowed=f"a multiple of {shares}",
                next_step=f"--set train.batch_size={-(-batch_size // shares) * shares}",
            )
        if len(labels) < shares:
            raise RecipeError(
                f"There are {len(labels)} training images for {world} processes x train.accumulate {parts}.",
                allowed=f"at least {shares}, one for each",
                next_step="raise data.train_limit, or train with fewer processes",
            )
        self._fetch, self._seed, self._rank, self._world, self._workers = fetch, seed, rank, world, workers
        self.size = min(batch_size, len(labels) // shares * shares) // parts
        self._parts, self._labels, self._sampling = parts, labels, sampling
        self.steps_per_epoch = len(labels) // (self.size * parts)
        self._companions = companions
        self._classes = _Classes(labels) if companions == "same_class" else None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[RawBatch, ...]]:
        """The steps of an epoch from step ``start`` of it on, each as its parts."""
        batches = (
            self._ahead(self._plans(epoch, start)) if self._workers else map(self._load, self._plans(epoch, start))
        )
        for first in batches:
            yield (first, *(next(batches) for _ in range(self._parts - 1)))

    def example(self) -> RawBatch:
        """The first batch of the training, or the share of it that this process takes."""
        return self._load(next(self._plans(0, 0)))

    def _plans(self, epoch: int, start: int) -> Iterator[tuple[Labels, Labels | None]]:
        """The positions of each batch, and of its companions."""
        order = self._order(epoch)
        for at in range(start * self._parts, self.steps_per_epoch * self._parts):
            own = self._cut(order, at)
            companions = None
            if self._companions == "previous":
                companions = self._cut(order, at - 1) if at else self._last_of(epoch - 1, own)
            elif self._classes:
                chance = np.random.Generator(np.random.PCG64([self._seed, epoch, at, _COMPANIONS]))
                companions = self._classes.others(own, chance)
            share = slice(self._rank, None, self._world)
            yield own[share], None if companions is None else companions[share]

    def _order(self, epoch: int) -> Labels:
        if self._sampling == "balanced":
            return balanced_order(self._labels, seed=self._seed, epoch=epoch)
        return permutation(len(self._labels), seed=self._seed, epoch=epoch)

    def _cut(self, order: Labels, at: int) -> Labels:
        return order[at * self.size : (at + 1) * self.size]

    def _last_of(self, epoch: int, otherwise: Labels) -> Labels:
        return self._cut(self._order(epoch), self.steps_per_epoch * self._parts - 1) if epoch >= 0 else otherwise

    def _load(self, plan: tuple[Labels, Labels | None]) -> RawBatch:
        own, companions = plan
        batch = self._fetch(own)
        return batch if companions is None else replace(batch, second=self._fetch(companions))

    def _ahead(self, plans: Iterator[tuple[Labels, Labels | None]]) -> Iterator[RawBatch]:
        # Pillow and numpy give up the interpreter lock while they decode, so threads are enough
        with ThreadPoolExecutor(self._workers, thread_name_prefix="batch") as pool:
            waiting: deque[Future[RawBatch]] = deque()
            for plan in plans:
                waiting.append(pool.submit(self._load, plan))
                if len(waiting) > 2 * self._workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


class _Classes:
    """The samples of each class, to draw from."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._members = np.argsort(labels, kind="stable")
        self._counts = np.bincount(labels)
        self._starts = np.cumsum(self._counts) - self._counts
        self._place = np.empty(len(labels), np.int64)  # of each sample within its class
        self._place[self._members] = np.arange(len(labels)) - self._starts[labels[self._members]]

    def others(self, index: Labels, chance: np.random.Generator) -> Labels:
        """For each sample another one of its class, each as likely; itself where it is the only one."""
        classes = self._labels[index]
        counts = self._counts[classes]
        steps = 1 + np.floor(chance.random(len(index)) * (counts - 1)).astype(np.int64)
        return self._members[self._starts[classes] + (self._place[index] + steps) % counts]
