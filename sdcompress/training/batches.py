"""The order of the data: which images make which step, in which process, fetched ahead where that pays."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sdcompress.data.samples import Samples
from sdcompress.errors import RecipeError
from sdcompress.training.randomness import permutation

__all__ = ["Batches", "RawBatch"]


@dataclass(frozen=True)
class RawBatch:
    """One process's share of a step, before augmentation.

    Attributes:
        index: int64 [b], positions in the training split.
        images: uint8 [b, H, W, C].
        labels: int64 [b].
    """

    index: np.ndarray
    images: np.ndarray
    labels: np.ndarray


class Batches:
    """Batches of an epoch in a seeded order.

    The images that do not fill a last batch are left out of this epoch; the next epoch has another order.

    Args:
        samples: the training split.
        batch_size: images a step over all processes.
        seed: of the order.
        rank: this process.
        world: number of processes.
        workers: threads that fetch ahead; 0 fetches in the step.

    Raises:
        RecipeError: if the batch does not divide over the processes.
    """

    def __init__(
        self, samples: Samples, batch_size: int, *, seed: int, rank: int = 0, world: int = 1, workers: int = 0
    ) -> None:
        if batch_size % world:
            raise RecipeError(
                f"train.batch_size is {batch_size}, which does not divide over {world} processes.",
                allowed=f"a multiple of {world}",
                next_step=f"--set train.batch_size={-(-batch_size // world) * world}",
            )
        self._samples, self._seed, self._rank, self._world, self._workers = samples, seed, rank, world, workers
        self._batch = min(batch_size, len(samples) // world * world)
        self.steps_per_epoch = len(samples) // self._batch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[RawBatch]:
        """The steps of an epoch from step ``start`` of it on."""
        order = permutation(len(self._samples), seed=self._seed, epoch=epoch)
        steps = (
            order[step * self._batch : (step + 1) * self._batch][self._rank :: self._world]
            for step in range(start, self.steps_per_epoch)
        )
        return self._ahead(steps) if self._workers else map(self._fetch, steps)

    def _fetch(self, index: np.ndarray) -> RawBatch:
        return RawBatch(index, self._samples.images(index), self._samples.labels[index])

    def _ahead(self, steps: Iterator[np.ndarray]) -> Iterator[RawBatch]:
        # Pillow and numpy give up the interpreter lock while they decode, so threads are enough
        with ThreadPoolExecutor(self._workers, thread_name_prefix="batch") as pool:
            waiting: deque[Future[RawBatch]] = deque()
            for index in steps:
                waiting.append(pool.submit(self._fetch, index))
                if len(waiting) > 2 * self._workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
