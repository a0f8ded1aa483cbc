"""Lengths of examples that batches pad, such as texts: batches of like lengths waste no work on padding."""

from __future__ import annotations

import numpy as np

from sdcompress.data.samples import Indices, Samples, Subset
from sdcompress.modalities import Modality

__all__ = ["example_lengths", "sorted_by_length"]

_AT_ONCE = 4096  # examples


def example_lengths(samples: Samples, modality: Modality) -> Indices | None:
    """Return the length of each example, int64 [N]; None where the inputs of all examples have one shape.

    Args:
        samples: N of them.
        modality: says what a length is.

    Raises:
        DataError: if an example cannot be read.
    """
    if not modality.varies or len(samples) == 0:
        return None
    pieces = np.split(np.arange(len(samples)), range(_AT_ONCE, len(samples), _AT_ONCE))
    return np.concatenate([modality.lengths(samples.examples(piece)) for piece in pieces])


def sorted_by_length(samples: Samples, modality: Modality) -> tuple[Samples, Indices | slice]:
    """Return samples in the order of their lengths, and what puts results back: ``results[back]``.

    Args:
        samples: N of them; they keep their order where the inputs of all examples have one shape.
        modality: says what a length is.
    """
    lengths = example_lengths(samples, modality)
    if lengths is None:
        return samples, slice(None)  # copies nothing
    order = np.argsort(lengths, kind="stable")
    return Subset(samples, order), np.argsort(order, kind="stable")
