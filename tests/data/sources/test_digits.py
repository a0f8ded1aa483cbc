from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sdcompress.data import load
from sdcompress.data.samples import Dataset
from sdcompress.schema.recipe import Data, ModalitySection


def all_images(dataset: Dataset) -> np.ndarray:
    return np.concatenate(
        [samples.examples(np.arange(len(samples))) for samples in (dataset.train, dataset.val, dataset.test)]
    )


def test_the_splits_are_stratified_and_disjoint() -> None:
    dataset = load(Data(), seed=0)
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [1294, 144, 359]
    # 1,797 images, 174 to 183 a class: every class has 35 to 37 of the 359
    assert set(np.bincount(dataset.test.targets)) <= {35, 36, 37}
    distinct = {image.tobytes() for image in all_images(dataset)}
    assert len(distinct) == len(np.unique(load_digits().data, axis=0))


def test_at_eight_pixels_they_are_scikit_learns_scaled_to_255() -> None:
    dataset = load(Data(), seed=0, modality=ModalitySection(image_size=8))
    ours = {image.tobytes() for image in all_images(dataset)}
    # 16 levels above zero: 255 / 16 = 15.94 a level
    theirs = {np.rint(values * 15.9375).astype(np.uint8).tobytes() for values in load_digits().data}
    assert ours == theirs
    assert all_images(dataset).max() == 255


def test_mean_and_std_are_theirs() -> None:
    dataset = load(Data(), seed=0)
    images = all_images(dataset) / 255
    assert dataset.modality.shape == (1, 32, 32)
    assert images.mean() == pytest.approx(dataset.modality.preprocess.mean[0], abs=6e-5)
    assert images.std() == pytest.approx(dataset.modality.preprocess.std[0], abs=6e-5)
