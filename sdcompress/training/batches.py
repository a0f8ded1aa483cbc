"""The order of the data: which samples make which step, in which process, fetched ahead where that pays.

A step is made of ``parts`` batches, whose gradients are added up. Every order is drawn from (seed, epoch) and every
companion from (seed, epoch, step), for all processes alike: each takes its own share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from sdcompress.data.samples import Samples
from sdcompress.errors import RecipeError
from sdcompress.objectives.batch import Minibatch
from sdcompress.training.balance import Strata, balanced_order
from sdcompress.training.lengths import like_lengths

__all__ = ["Batches", "Fetch", "MicroBatch", "check_batch_size", "host", "permutation", "resident"]

Positions = npt.NDArray[np.int64]
_COMPANIONS = 1  # not 0: a seed with zeros behind it is the seed without them


class MicroBatch(NamedTuple):
    """One process's share of a batch, before augmentation: ``inputs`` are examples, as the data set holds them.

    Attributes:
        primary: the step's samples.
        companions: the samples of the method's further view, where these are others.
    """

    primary: Minibatch
    companions: Minibatch | None = None


Fetch = Callable[[Positions], Minibatch]


def host(samples: Samples, *, pin: bool = False) -> Fetch:
    """Fetch from where the samples are.

    Args:
        samples: the training split.
        pin: into memory that a GPU can copy from while it computes.
    """

    def fetch(index: Positions) -> Minibatch:
        positions, examples, targets = (
            tensor.pin_memory() if pin else tensor
            for tensor in map(torch.from_numpy, (index, samples.examples(index), samples.targets[index]))
        )
        return Minibatch((examples,), targets, positions)

    return fetch


def resident(samples: Samples, device: torch.device) -> Fetch:
    """Put all examples on the device once, as the data set holds them, and fetch them there.

    Args:
        samples: the training split.
        device: where it has room for them.
    """
    targets = torch.from_numpy(samples.targets).to(device)
    # in pieces: all at once would be twice in the memory of the host
    pieces = np.array_split(np.arange(len(samples)), max(1, len(samples) // 4096))
    examples = torch.cat([torch.from_numpy(samples.examples(piece)).to(device) for piece in pieces])

    def fetch(index: Positions) -> Minibatch:
        positions = torch.from_numpy(index).to(device, non_blocking=True)
        return Minibatch((examples[positions],), targets[positions], positions)

    return fetch


def permutation(samples: int, *, seed: int, epoch: int) -> Positions:
    """Return the order in which an epoch visits the training samples: int64 [samples]."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(samples)


def check_batch_size(batch_size: int, processes: int, parts: int) -> int:
    """Return the shares that the samples of a step are divided into, once they divide evenly.

    Args:
        batch_size: samples a step.
        processes: that train.
        parts: batches of a step.

    Raises:
        RecipeError: if they do not divide.
    """
    shares = processes * parts
    if batch_size % shares:
        raise RecipeError(
            f"train.batch_size is {batch_size}, which does not divide over train.processes {processes} x "
            f"train.accumulate {parts}.",
            allowed=f"a multiple of {shares}",
            next_step=f"--set train.batch_size={-(-batch_size // shares) * shares}",
        )
    return shares


class Batches:
    """The steps of an epoch in a seeded order.

    The samples that do not fill a last step are left out of this epoch; the next epoch has another order.

    Args:
        fetch: gives the samples at some positions.
        samples: N, of the training split.
        batch_size: samples a step, over all processes and parts.
        seed: of the order.
        rank: this process.
        world: number of processes.
        parts: batches of a step.
        companions: ``same`` for none; ``same_stratum`` for another sample of each one's stratum; ``previous`` for the
            batch before (for the very first one itself).
        workers: threads that fetch ahead; 0 fetches in the step.
        sampling: ``shuffled``: every sample once an epoch; ``balanced``: every stratum as often.
        strata: int64 [N], of the training split; None where the task has none.
        lengths: int64 [N], of the training split: batches hold samples of like lengths; None: the order is random.

    Attributes:
        fetch: gives the samples at some positions; another one may take its place.
        size: samples of a batch, over all processes.
        steps_per_epoch: steps.

    Raises:
        RecipeError: if the batch does not divide over the processes and parts, or there are fewer samples than these,
            or strata are needed and there are none.
    """

    def __init__(
        self,
        fetch: Fetch,
        samples: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        parts: int = 1,
        companions: Literal["same", "same_stratum", "previous"] = "same",
        workers: int = 0,
        sampling: Literal["shuffled", "balanced"] = "shuffled",
        strata: Strata | None = None,
        lengths: Positions | None = None,
    ) -> None:
        shares = check_batch_size(batch_size, world, parts)
        if samples < shares:
            raise RecipeError(
                f"There are {samples} training samples for {world} processes x train.accumulate {parts}.",
                allowed=f"at least {shares}, one for each",
                next_step="raise data.train_limit, or train with fewer processes",
            )
        if strata is None and (sampling == "balanced" or companions == "same_stratum"):
            raise RecipeError(
                "The task has no strata, and "
                + ("train.sampling is balanced." if sampling == "balanced" else "the method pairs samples of them."),
                allowed="shuffled, and a method that pairs no samples",
                next_step="--set train.sampling=shuffled, or choose another method",
            )
        self.fetch, self._seed, self._rank, self._world, self._workers = fetch, seed, rank, world, workers
        self.size = min(batch_size, samples // shares * shares) // parts
        self._parts, self._samples = parts, samples
        self._balanced, self._lengths = strata if sampling == "balanced" else None, lengths
        self.steps_per_epoch = samples // (self.size * parts)
        self._companions = companions
        self._strata = _Members(strata) if companions == "same_stratum" and strata is not None else None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[MicroBatch, ...]]:
        """Yield the steps of an epoch from step ``start`` of it on, each as its parts."""
        batches = (
            self._ahead(self._plans(epoch, start)) if self._workers else map(self._load, self._plans(epoch, start))
        )
        for first in batches:
            yield (first, *(next(batches) for _ in range(self._parts - 1)))

    def example(self) -> MicroBatch:
        """Return the first batch of the training, or the share of it that this process takes."""
        return self._load(next(self._plans(0, 0)))

    def _plans(self, epoch: int, start: int) -> Iterator[_BatchIndices]:
        """Yield the positions of each batch, and of its companions."""
        order = self._order(epoch)
        for at in range(start * self._parts, self.steps_per_epoch * self._parts):
            primary = self._cut(order, at)
            companions = None
            if self._companions == "previous":
                companions = self._cut(order, at - 1) if at else self._last_of(epoch - 1, primary)
            elif self._strata:
                rng = np.random.Generator(np.random.PCG64([self._seed, epoch, at, _COMPANIONS]))
                companions = self._strata.sample_partners(primary, rng)
            share = slice(self._rank, None, self._world)
            yield _BatchIndices(primary[share], None if companions is None else companions[share])

    def _order(self, epoch: int) -> Positions:
        if self._balanced is not None:
            order = balanced_order(self._balanced, seed=self._seed, epoch=epoch)
        else:
            order = permutation(self._samples, seed=self._seed, epoch=epoch)
        if self._lengths is None:
            return order
        used = self.steps_per_epoch * self._parts * self.size  # what is left out is random, not the longest
        return like_lengths(order[:used], self._lengths, self.size, seed=self._seed, epoch=epoch)

    def _cut(self, order: Positions, at: int) -> Positions:
        return order[at * self.size : (at + 1) * self.size]

    def _last_of(self, epoch: int, otherwise: Positions) -> Positions:
        return self._cut(self._order(epoch), self.steps_per_epoch * self._parts - 1) if epoch >= 0 else otherwise

    def _load(self, plan: _BatchIndices) -> MicroBatch:
        return MicroBatch(self.fetch(plan.primary), None if plan.companions is None else self.fetch(plan.companions))

    def _ahead(self, plans: Iterator[_BatchIndices]) -> Iterator[MicroBatch]:
        # Pillow and numpy give up the interpreter lock while they decode, so threads are enough
        with ThreadPoolExecutor(self._workers, thread_name_prefix="batch") as pool:
            waiting: deque[Future[MicroBatch]] = deque()
            for plan in plans:
                waiting.append(pool.submit(self._load, plan))
                if len(waiting) > 2 * self._workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


class _BatchIndices(NamedTuple):
    """Positions of the samples of a micro-batch, and of their companions."""

    primary: Positions
    companions: Positions | None


class _Members:
    """The samples of each stratum, to draw from."""

    def __init__(self, strata: Strata) -> None:
        self._strata = strata
        self._members = np.argsort(strata, kind="stable")
        self._counts = np.bincount(strata)
        self._starts = np.cumsum(self._counts) - self._counts
        self._place = np.empty(len(strata), np.int64)  # of each sample within its stratum
        self._place[self._members] = np.arange(len(strata)) - self._starts[strata[self._members]]

    def sample_partners(self, index: Positions, rng: np.random.Generator) -> Positions:
        """Draw another sample of the same stratum for each sample, uniformly; itself where it is the only one."""
        strata = self._strata[index]
        counts = self._counts[strata]
        steps = 1 + np.floor(rng.random(len(index)) * (counts - 1)).astype(np.int64)
        return self._members[self._starts[strata] + (self._place[index] + steps) % counts]
