from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from sdcompress.data import images as module
from sdcompress.data.images import image_source, preprocessing
from sdcompress.data.source import data_folder
from sdcompress.errors import RecipeError
from sdcompress.modalities._preprocess import Preprocess
from sdcompress.schema.recipe import Data

CORNERS = np.array([[0, 200], [40, 80]], np.uint8).reshape(1, 2, 2, 1)


def test_images_are_brought_to_the_geometry() -> None:
    preprocess = Preprocess(channels=1, resize=(4, 4), interpolation="nearest", mean=(0.5,), std=(0.5,))
    source = image_source(("a", "b"), preprocess, (CORNERS, np.zeros(1, np.int64)))
    expected = np.repeat(np.repeat(CORNERS, 2, axis=1), 2, axis=2)
    assert np.array_equal(source.train.examples(np.array([0])), expected)


def test_a_set_that_is_large_when_resized_gives_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (6, 5, 5, 3), np.uint8), np.arange(6)
    preprocess = Preprocess(channels=3, resize=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    in_memory = image_source(("a", "b"), preprocess, arrays)
    monkeypatch.setattr(module, "_IN_MEMORY", 6 * 8 * 8 * 3 - 1)
    when_asked = image_source(("a", "b"), preprocess, arrays)
    assert type(in_memory.train) is not type(when_asked.train)
    which = np.array([4, 0, 5])
    assert np.array_equal(in_memory.train.examples(which), when_asked.train.examples(which))
    assert np.array_equal(in_memory.train.targets, when_asked.train.targets)
    assert len(when_asked.train) == 6


def test_the_folder_is_the_recipes_then_the_environments_then_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDCOMPRESS_DATA", "/from/environment")
    assert data_folder(Data(dir="/from/recipe")) == Path("/from/recipe")
    assert data_folder(Data()) == Path("/from/environment")
    monkeypatch.delenv("SDCOMPRESS_DATA")
    assert data_folder(Data()) == Path("data")


OWN = {"side": 224, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.2)}


def test_a_recipe_says_how_images_are_prepared_and_the_set_says_the_rest() -> None:
    own = preprocessing(Data(), **OWN, crop=0.875)
    assert own == Preprocess(channels=3, resize=256, crop=(224, 224), mean=OWN["mean"], std=OWN["std"])
    half = (0.5, 0.5, 0.5)
    spec = Data(image_size=48, mean=half, std=half, interpolation="bicubic", crop=0.95, white_level=4095)
    expected = {"channels": 3, "interpolation": "bicubic", "mean": half, "std": half, "white_level": 4095}
    # 48 / 0.95 = 50.5, the nearest whole number is 51
    assert preprocessing(spec, **OWN, crop=0.875) == Preprocess(resize=51, crop=(48, 48), **expected)


@pytest.mark.parametrize(
    ("own", "crop", "resize", "cut"),
    [
        (0.875, "none", (64, 64), None),
        (0.875, 1.0, 64, (64, 64)),
        (None, None, (64, 64), None),
        (None, 0.5, 128, (64, 64)),
    ],
)
def test_the_share_of_the_crop(own: float | None, crop: Any, resize: Any, cut: Any) -> None:
    made = preprocessing(Data(image_size=64, crop=crop), **OWN, crop=own)
    assert (made.resize, made.crop) == (resize, cut)


def test_means_of_another_number_of_channels_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"(?s)data\.mean has 1 values.*3.*data\.mean=\[0\.5, 0\.5, 0\.5\]"):
        preprocessing(Data(mean=(0.5,)), **OWN)


@pytest.mark.parametrize("wrong", [{"crop": 0.0}, {"crop": 1.1}, {"mean": (float("nan"),)}, {"std": (0.0,)}])
def test_numbers_that_cannot_be_meant(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Data(**wrong)
