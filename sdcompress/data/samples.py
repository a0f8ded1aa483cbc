"""Samples of a data set: examples and targets, fetched by position."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sdcompress.errors import DataError, UsageError
from sdcompress.modalities import Modality
from sdcompress.progress import Progress
from sdcompress.tasks import Array, Task

__all__ = [
    "ArraySamples",
    "Dataset",
    "Indices",
    "RawSamples",
    "Samples",
    "Subset",
    "originals",
    "row_batches",
    "without_setting",
]

Indices = npt.NDArray[np.int64]
_NAMED = 10  # broken examples that an error names


class Samples(Protocol):
    """A sequence of examples with their targets, in memory or read when asked for."""

    @property
    def targets(self) -> Array:
        """Return all targets, [N, ...], in the form that the task gives them."""

    @property
    def in_memory(self) -> bool:
        """Return whether ``examples`` copies what lies in memory."""

    def __len__(self) -> int: ...

    def examples(self, indices: Indices) -> Array:
        """Return the examples at these positions, [b, ...], in the form that the modality gives them.

        Raises:
            DataError: if an example cannot be read.
        """


class ArraySamples:
    """Samples held in memory.

    Args:
        examples: [N, ...], for images uint8 [N, H, W, C].
        targets: [N, ...]; integers [N] become int64.

    Raises:
        DataError: if there are more of one than of the other.
    """

    def __init__(self, examples: Array, targets: Array) -> None:
        if examples.ndim == 0 or targets.ndim == 0 or len(examples) != len(targets):
            raise DataError(
                f"The examples have the shape {list(examples.shape)}, the targets {list(targets.shape)}.",
                allowed="one target for each example",
                next_step="check that examples and targets belong together",
            )
        self._examples = examples
        plain = targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer)
        self._targets = targets.astype(np.int64) if plain else targets

    @property
    def targets(self) -> Array:
        """Return all targets, [N, ...]."""
        return self._targets

    @property
    def in_memory(self) -> bool:
        """Return True."""
        return True

    def __len__(self) -> int:
        return len(self._examples)

    def examples(self, indices: Indices) -> Array:
        """Return the examples at these positions, [b, ...]: a copy."""
        return self._examples[indices]


class Subset:
    """Some of the samples, in the order of the indices.

    Args:
        samples: what to choose from.
        indices: int64 [n], positions in ``samples``.
    """

    def __init__(self, samples: Samples, indices: Indices) -> None:
        self._samples, self._indices = samples, indices
        self._targets = samples.targets[indices]

    @property
    def targets(self) -> Array:
        """Return the chosen targets, [n, ...]."""
        return self._targets

    @property
    def in_memory(self) -> bool:
        """Return whether the source has its examples in memory."""
        return self._samples.in_memory

    def __len__(self) -> int:
        return len(self._indices)

    def originals(self, indices: Indices) -> list[Any] | None:
        """Return the raw examples at these positions, if they are kept."""
        return originals(self._samples, self._indices[indices])

    def examples(self, indices: Indices) -> Array:
        """Return the examples at these positions of the subset, [b, ...]."""
        return self._samples.examples(self._indices[indices])

    def problem(self, position: int) -> tuple[str, str] | None:
        """The name of an example that cannot be used and why, as far as a short look at its file tells; else None."""
        whole, index = self._samples, int(self._indices[position])
        if not isinstance(whole, _InFiles):
            return None
        why = whole.problem(index)
        return (whole.name(index), why) if why else None


def row_batches(samples: int, size: int) -> Iterator[Indices]:
    """Yield the positions 0 to ``samples`` - 1 in order, ``size`` at a time, the last batch perhaps fewer.

    Args:
        samples: N; of none nothing is yielded.
        size: positions of a batch.
    """
    for start in range(0, samples, size):
        yield np.arange(start, min(start + size, samples), dtype=np.int64)


def without_setting(names: Iterable[str]) -> str:
    """What to type so that examples are left out, of whatever letters their names are."""
    return "--set " + shlex.quote(f"data.exclude={json.dumps(list(names), ensure_ascii=False)}")


@runtime_checkable
class RawSamples(Protocol):
    """Samples that keep raw examples, from which the data set's modality makes examples."""

    def prepared_by(self, modality: Modality) -> Samples:
        """Return the same samples with the examples that a modality makes."""


@runtime_checkable
class _InFiles(Protocol):
    """What samples offer whose examples are files with names."""

    def name(self, position: int) -> str: ...

    def problem(self, position: int) -> str | None: ...


@dataclass(frozen=True)
class Dataset:
    """A data set, split and ready.

    Attributes:
        name: the source's name.
        train: what may be learnt from.
        val: held out for decisions (exit thresholds, model choice); empty if the recipe says ``validation: 0``.
        test: held out for the reported figures.
        task: what the targets mean.
        modality: what the examples are, and how they become inputs.
        fingerprint: SHA-256 over name, outputs, preparation, targets, content and split.
        layout: the same over the names of the samples in the place of their content: it stays where a file is lost.
    """

    name: str
    train: Samples
    val: Samples
    test: Samples
    task: Task
    modality: Modality
    fingerprint: str
    layout: str = ""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of what the network's outputs stand for, such as those of classes."""
        return self.task.outputs

    def check(self, progress: Progress | None = None) -> None:
        """Take a short look at every example that is a file, so that a broken one is found before it is needed.

        Args:
            progress: called with (examples checked, all examples), about a thousand times.

        Raises:
            DataError: if one cannot be used; names up to ten of them.
        """
        parts = [part for part in (self.train, self.val, self.test) if isinstance(part, Subset) and not part.in_memory]
        total, done, broken = sum(map(len, parts)), 0, dict[str, str]()
        for part in parts:
            for position in range(len(part)):
                broken.update(filter(None, [part.problem(position)]))
                done += 1
                if progress and (done % max(1, total // 1000) == 0 or done == total):
                    progress(done, total)
        if broken:
            first = list(broken.items())[:_NAMED]
            more = f", and {len(broken) - len(first)} more" if len(broken) > len(first) else ""
            raise DataError(
                f"{len(broken)} of {total} examples of '{self.name}' cannot be used: "
                + "; ".join(f"{name}: {why.rstrip('.')}" for name, why in first)
                + more
                + ".",
                allowed="whole files",
                next_step="repair them, or train without them: "
                + without_setting(name for name, _ in first)
                + (", and the others too" if more else ""),
            )

    def split(self, name: Literal["validation", "test"]) -> Samples:
        """Return the samples to measure on.

        Raises:
            DataError: if that split is empty.
            UsageError: if there is no such split to measure on.
        """
        if name not in {"validation", "test"}:
            raise UsageError(
                f"Nothing is measured on the split '{name}'.",
                allowed="validation, test",
                next_step="choose one of them",
            )
        samples = self.val if name == "validation" else self.test
        if len(samples) == 0:
            raise DataError(
                f"The {name} split of '{self.name}' is empty.",
                allowed="a share of the training samples is held out where data.validation is above 0"
                if name == "validation"
                else "a fifth of the samples is held out of a set without a test split, which takes three of them",
                next_step="set data.validation, e.g. to 0.1, and train again"
                if name == "validation"
                else "add samples or a test split, and train again",
            )
        return samples


@runtime_checkable
class _KeepsOriginals(Protocol):
    """What samples offer that can also give raw examples."""

    def originals(self, indices: Indices) -> list[Any] | None: ...


def originals(samples: Samples, indices: Indices) -> list[Any] | None:
    """Return the raw examples at these positions, for images uint8 [h, w, C] of any size; None: they are not kept.

    Args:
        samples: N of them.
        indices: int64 [n].

    Raises:
        DataError: if an example cannot be read.
    """
    return samples.originals(indices) if isinstance(samples, _KeepsOriginals) else None
