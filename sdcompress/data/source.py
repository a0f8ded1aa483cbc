"""What the file of a data set returns: its samples before they are split further."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sdcompress.data.samples import ArraySamples, Samples
from sdcompress.modalities import Modality
from sdcompress.schema import recipe
from sdcompress.tasks import Array

__all__ = ["Source", "array_source", "content_digest", "data_folder"]


@dataclass(frozen=True)
class Source:
    """A data set as published.

    Attributes:
        outputs: names of what a network's outputs stand for, such as those of K classes, in the order of the targets.
        modality: what the examples are, and how they become inputs, as far as the data set says: a recipe may change
            it. Where the recipe has to say something of it, it is given by its name and the data set's parameters.
        train: training samples; those with raw examples are ``RawSamples``, and follow the recipe's modality.
        digest: SHA-256 of what the samples are made of (arrays, or paths and sizes of files).
        val: validation samples, if the set has such a split.
        test: test samples, if the set has such a split.
        names: SHA-256 of the names of the samples, where they have some.
        left_out: positions that ``data.exclude`` names, in the samples of ``train``, ``val`` and ``test``. Their
            examples are never asked for.
        task: of the targets, by its name in 'sdcompress list tasks'.
        columns: the named columns that the examples were read from, if they come from a table; a recipe whose
            ``data.columns`` are others is refused.
        fit: returns the modality, given first, with what it measures on the examples that train, such as means. It is
            called after the split: validation samples may have no part in that, because thresholds are certified on
            them. None: the modality is used as it is.
    """

    outputs: tuple[str, ...]
    modality: Modality | recipe.ModalitySection
    train: Samples
    digest: str
    val: Samples | None = None
    test: Samples | None = None
    names: str | None = None
    left_out: Mapping[str, Collection[int]] = field(default_factory=dict)
    task: str = "classification"
    columns: tuple[str, ...] = ()
    fit: Callable[[Any, Array], Modality] | None = None


def array_source(
    outputs: tuple[str, ...],
    modality: Modality,
    train: tuple[Array, Array],
    test: tuple[Array, Array] | None = None,
    *,
    task: str = "classification",
) -> Source:
    """Return a source of examples that lie in memory in the form that the network takes.

    Images of another size are brought to it by ``sdcompress.data.image_arrays.image_source``.

    Args:
        outputs: names of what a network's outputs stand for.
        modality: what the examples are.
        train: examples [N, ...] and targets [N, ...].
        test: the same, if the set has a test split.
        task: of the targets.
    """
    return Source(
        outputs=outputs,
        modality=modality,
        train=ArraySamples(*train),
        test=None if test is None else ArraySamples(*test),
        digest=content_digest(train, test),
        task=task,
    )


def content_digest(*splits: tuple[Array, Array] | None) -> str:
    """SHA-256 over the examples of the splits that there are."""
    digest = hashlib.sha256()
    for examples, _ in filter(None, splits):
        digest.update(repr(examples.shape).encode() + np.ascontiguousarray(examples).tobytes())
    return digest.hexdigest()


def data_folder(spec: recipe.Data) -> Path:
    """Where data lie: ``data.dir``, else the environment's SDCOMPRESS_DATA, else ./data."""
    return Path(spec.dir or os.environ.get("SDCOMPRESS_DATA") or "data")
