from __future__ import annotations

import numpy as np
import pytest

from sdcompress.data.samples import ArraySamples, Dataset, Subset
from sdcompress.errors import DataError
from sdcompress.schema.manifest import Preprocess


def numbered(count: int) -> ArraySamples:
    """Image i is filled with i, its label is 10 * i."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 3, 1))
    return ArraySamples(images, 10 * np.arange(count))


def test_images_and_labels_come_in_the_order_asked_for() -> None:
    samples = numbered(5)
    assert samples.images(np.array([3, 0, 3]))[:, 0, 0, 0].tolist() == [3, 0, 3]
    assert samples.labels.tolist() == [0, 10, 20, 30, 40]
    assert samples.labels.dtype == np.int64


def test_what_is_returned_may_be_written_to() -> None:
    samples = numbered(3)
    samples.images(np.array([1]))[:] = 99
    assert samples.images(np.array([1])).max() == 1


def test_a_subset_of_a_subset_counts_from_the_inner_one() -> None:
    inner = Subset(numbered(10), np.array([8, 6, 4, 2]))
    outer = Subset(inner, np.array([3, 1]))
    assert len(outer) == 2
    assert outer.labels.tolist() == [20, 60]
    assert outer.images(np.array([1, 0]))[:, 0, 0, 0].tolist() == [6, 2]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, int)),
        (np.zeros((2, 4, 4, 4), np.uint8), np.zeros(2, int)),
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros(2, int)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, int)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, float)),
    ],
)
def test_arrays_of_another_shape_or_dtype_are_refused(images: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(DataError):
        ArraySamples(images, labels)


def test_an_empty_split_cannot_be_measured_on() -> None:
    full, empty = numbered(3), Subset(numbered(3), np.array([], np.int64))
    preprocess = Preprocess(channels=1, mean=(0.5,), std=(0.5,))
    dataset = Dataset("n", full, empty, full, ("a", "b"), preprocess, "0" * 64)
    assert dataset.image == (1, 2, 3)
    assert dataset.split("test") is full
    with pytest.raises(DataError, match="validation"):
        dataset.split("validation")
