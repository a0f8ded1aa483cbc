from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdcompress.data import load
from sdcompress.data.files import FolderSamples
from sdcompress.data.image_arrays import image_source
from sdcompress.data.samples import ArraySamples, Dataset, Subset, originals, row_batches
from sdcompress.errors import DataError, UsageError
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image as Modality
from sdcompress.schema.recipe import Data, ModalitySection
from sdcompress.tasks.classification import Classification


def numbered(count: int) -> ArraySamples:
    """Image i is filled with i, its label is 10 * i."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 3, 1))
    return ArraySamples(images, 10 * np.arange(count))


def test_images_and_labels_come_in_the_order_asked_for() -> None:
    samples = numbered(5)
    assert samples.examples(np.array([3, 0, 3]))[:, 0, 0, 0].tolist() == [3, 0, 3]
    assert samples.targets.tolist() == [0, 10, 20, 30, 40]
    assert samples.targets.dtype == np.int64


def test_what_is_returned_may_be_written_to() -> None:
    samples = numbered(3)
    samples.examples(np.array([1]))[:] = 99
    assert samples.examples(np.array([1])).max() == 1


def test_batches_of_positions_leave_none_out() -> None:
    assert [rows.tolist() for rows in row_batches(5, 2)] == [[0, 1], [2, 3], [4]]
    assert [*row_batches(0, 2)] == []


def test_a_subset_of_a_subset_counts_from_the_inner_one() -> None:
    inner = Subset(numbered(10), np.array([8, 6, 4, 2]))
    outer = Subset(inner, np.array([3, 1]))
    assert len(outer) == 2
    assert outer.targets.tolist() == [20, 60]
    assert outer.examples(np.array([1, 0]))[:, 0, 0, 0].tolist() == [6, 2]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, int)),
        (np.zeros((2, 4, 4, 4), np.uint8), np.zeros(2, int)),
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros(2, int)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, int)),
    ],
)
def test_images_of_another_shape_or_dtype_and_targets_of_another_number_are_refused(
    images: np.ndarray, labels: np.ndarray
) -> None:
    with pytest.raises(DataError):
        image_source(("a", "b"), Preprocess(channels=3, mean=(0.5,) * 3, std=(0.5,) * 3), (images, labels))


@pytest.mark.parametrize(
    ("targets", "kept"),
    [
        (np.zeros(3, np.uint8), (np.int64, (3,))),
        (np.zeros((3, 5), np.uint8), (np.uint8, (3, 5))),
        (np.zeros(3, np.float32), (np.float32, (3,))),
        (np.zeros((3, 4, 4), np.int64), (np.int64, (3, 4, 4))),
    ],
)
def test_targets_have_any_shape_and_numbers_of_classes_become_int64(targets: np.ndarray, kept: tuple) -> None:
    found = Subset(ArraySamples(np.zeros((3, 7), np.float32), targets), np.array([2, 0, 1])).targets
    assert (found.dtype, found.shape) == kept


def test_an_empty_split_or_that_of_training_cannot_be_measured_on() -> None:
    full, empty = numbered(3), Subset(numbered(3), np.array([], np.int64))
    modality = Modality.of(Preprocess(channels=1, mean=(0.5,), std=(0.5,)), (2, 3))
    dataset = Dataset("n", full, empty, full, Classification(("a", "b")), modality, "0" * 64)
    assert dataset.split("test") is full
    with pytest.raises(UsageError, match="Nothing is measured on the split 'train'"):
        dataset.split("train")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"set data\.validation"):
        dataset.split("validation")
    without_test = Dataset("n", full, full, empty, Classification(("a", "b")), modality, "0" * 64)
    with pytest.raises(DataError, match="The test split of 'n' is empty") as caught:
        without_test.split("test")
    assert "add samples or a test split" in caught.value.next_step


def test_files_are_given_at_their_own_size(tmp_path: Path) -> None:
    sizes = [(40, 48), (30, 30), (64, 20)]
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for k, size in enumerate(sizes * 4):
                Image.new("RGB", size, (k, 10 * k, 3)).save(tmp_path / split / name / f"{k:02}.png")
    found = load(Data(name="imagefolder", dir=str(tmp_path)), seed=0, modality=ModalitySection(image_size=28)).test
    whole = originals(found, np.arange(6))
    assert whole is not None
    assert [(image.size, image.mode) for image in whole] == [(size, "RGB") for size in sizes * 2]
    assert [image.getpixel((0, 0)) for image in whole] == [(k, 10 * k, 3) for k in range(6)]
    assert found.examples(np.arange(6)).shape == (6, 28, 28, 3)  # as before


def test_of_no_files_there_are_no_examples_of_the_shape_of_others(tmp_path: Path) -> None:
    """Such as an empty validation split, beside the golden samples of an artifact."""
    modality = Modality.of(Preprocess(channels=1, resize=(3, 5), mean=(0.5,), std=(0.5,)))
    files = FolderSamples(tmp_path, [[tmp_path / "a.png"], []], modality)
    none = Subset(files, np.array([], np.int64))
    examples = none.examples(np.arange(len(none)))
    assert (examples.shape, examples.dtype) == ((0, 3, 5, 1), np.uint8)


def test_samples_that_keep_no_originals_say_so() -> None:
    samples = ArraySamples(np.zeros((3, 4, 4, 1), np.uint8), np.zeros(3, np.int64))
    assert originals(samples, np.arange(2)) is None
    assert originals(Subset(samples, np.arange(2)), np.arange(1)) is None
