"""Which training images ranges are taken from."""

from __future__ import annotations

import numpy as np

from sdcompress.data.samples import ArraySamples
from sdcompress.quantizing.calibration_data import BATCH, calibration_samples
from sdcompress.tasks.classification import Classification

TASK = Classification(("a", "b", "c", "d"))


def samples(labels: np.ndarray) -> ArraySamples:
    return ArraySamples(
        np.broadcast_to(np.arange(len(labels), dtype=np.uint8)[:, None, None, None], (len(labels), 1, 1, 1)), labels
    )


def test_no_batch_holds_one_class_because_a_folder_does() -> None:
    """A folder of four classes, one after the other: 8 of each in every batch of 32, give or take one."""
    training = samples(np.repeat(np.arange(4), 250))
    for count in (512, 1000):
        chosen = calibration_samples(training, TASK, count)
        assert len(chosen) == count
        for at in range(0, count - BATCH + 1, BATCH):
            assert (np.bincount(chosen.targets[at : at + BATCH], minlength=4) >= BATCH // 4 - 2).all()


def test_a_rare_class_has_its_share() -> None:
    labels = np.zeros(1000, np.int64)
    labels[:50] = 1
    assert calibration_samples(samples(labels), TASK, 500).targets.sum() == 25


def test_every_image_once_and_the_same_ones_each_time() -> None:
    training = samples(np.arange(200) % 3)
    first, second = (calibration_samples(training, TASK, 200).examples(np.arange(200)).ravel() for _ in range(2))
    assert sorted(first.tolist()) == list(range(200))
    np.testing.assert_array_equal(first, second)
    assert first.tolist() != sorted(first.tolist())
