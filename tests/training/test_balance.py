"""Weights of classes, and training with them and with balanced sampling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdcompress.data.assemble import assemble
from sdcompress.data.image_arrays import image_source
from sdcompress.data.samples import Dataset
from sdcompress.errors import RecipeError
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.schema.recipe import Data, Recipe
from sdcompress.training.balance import class_weights
from sdcompress.training.run import train


def dataset(counts: tuple[int, ...] = (60, 30, 10)) -> Dataset:
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.zeros((len(labels), 4, 4, 1), np.uint8)
    source = image_source(("a", "b", "c"), Preprocess(channels=1, mean=(0.5,), std=(0.5,)), (images, labels))
    return assemble(Data(validation=0.0), source, seed=0)


def test_balanced_weights_are_the_images_over_the_classes_times_those_of_the_class() -> None:
    found = dataset()  # a fifth is held out: 48, 24 and 8 images are left of 80
    weights = class_weights("balanced", found)
    np.testing.assert_allclose(weights, [80 / (3 * 48), 80 / (3 * 24), 80 / (3 * 8)], rtol=1e-6)
    assert weights is not None
    assert weights[found.train.targets].mean() == pytest.approx(1, rel=1e-6)
    assert class_weights("none", found) is None
    np.testing.assert_array_equal(class_weights((1.0, 2.0, 5.0), found), [1, 2, 5])
    with pytest.raises(RecipeError, match=r"(?s)has 2 numbers.*3 classes"):
        class_weights((1.0, 2.0), found)


def test_a_class_without_samples_has_a_weight_of_one() -> None:
    """Smoothing and predictions give it a share of every target, which a weight of 96 / 3 would multiply."""
    weights = class_weights("balanced", dataset((80, 40, 0)))  # a fifth is held out: 64 and 32 images are left of 96
    np.testing.assert_allclose(weights, [96 / (3 * 64), 96 / (3 * 32), 1], rtol=1e-6)


@pytest.mark.parametrize("method", ["byot", "ps_kd", "sfr"])
def test_methods_train_with_weights_and_balanced_sampling_and_weights_change_the_result(
    small: Callable[..., Recipe], tmp_path: Path, method: str
) -> None:
    own = (f"method={method}", "train.epochs=1", "data.train_limit=64", "data.test_limit=32", "data.validation=0.05")
    ones = f"train.class_weights={[1.0] * 10}"
    plain = train(small(*own), tmp_path / "plain")
    assert train(small(*own, ones), tmp_path / "ones").weights_sha256 == plain.weights_sha256
    weighed = train(small(*own, f"train.class_weights={[9.0] + [1.0] * 9}"), tmp_path / "weighed")
    assert weighed.weights_sha256 != plain.weights_sha256
    balanced = train(small(*own, "train.sampling=balanced"), tmp_path / "balanced")
    assert balanced.weights_sha256 != plain.weights_sha256
