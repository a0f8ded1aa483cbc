"""Accuracy class by class, and which classes are taken for which: what one accuracy hides where classes are unequal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sdcompress.schema.report import ClassScore

__all__ = ["balanced_accuracy", "class_scores", "confusion"]

Classes = npt.NDArray[np.int64]


def class_scores(
    names: Sequence[str], labels: Classes, answers: Classes, last: Classes | None = None
) -> tuple[ClassScore, ...]:
    """The accuracy on the images of each class, in the order of the classes.

    Args:
        names: of the K classes.
        labels: [N], in 0..K-1.
        answers: [N], likewise.
        last: [N], what the last exit answers, where a policy may let images leave before it.
    """
    counts = np.bincount(labels, minlength=len(names))
    right = np.bincount(labels[answers == labels], minlength=len(names))
    last_right = None if last is None else np.bincount(labels[last == labels], minlength=len(names))
    return tuple(
        ClassScore(
            name=name,
            samples=int(counts[k]),
            accuracy=float(right[k] / counts[k]) if counts[k] else None,
            last_accuracy=float(last_right[k] / counts[k]) if last_right is not None and counts[k] else None,
        )
        for k, name in enumerate(names)
    )


def balanced_accuracy(scores: Sequence[ClassScore]) -> float:
    """The mean of the accuracies of the classes that have images: every class weighs the same."""
    return float(np.mean([score.accuracy for score in scores if score.accuracy is not None]))


def confusion(labels: Classes, answers: Classes, classes: int) -> tuple[tuple[int, int, int], ...]:
    """The cells of the confusion matrix that are not 0: label, answer, images; row by row.

    Args:
        labels: [N], in 0..K-1.
        answers: [N], likewise.
        classes: K.
    """
    cells, counts = np.unique(labels * classes + answers, return_counts=True)
    return tuple(
        (int(cell // classes), int(cell % classes), int(count)) for cell, count in zip(cells, counts, strict=True)
    )
